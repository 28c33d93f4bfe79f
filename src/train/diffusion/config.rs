//! Settings of the diffusion model's training.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::model::TextTraining;
use super::preview::PreviewConfig;
use crate::config_error::ConfigError;
use crate::diffusion::timesteps::Duplicates;
use crate::diffusion::ObjectiveConfig;
use crate::torch::device::Precision;
use crate::train::engine::ema::EmaConfig;
use crate::train::engine::learning_rate::{Course, LearningRateConfig, ThresholdMode};
use crate::train::engine::optimizer::{GradientClipping, OptimizerConfig};
use crate::train::engine::range::{
    check_counts, check_most, check_numbers, check_precision, check_samples, Range, MOST_STEPS,
    MOST_TOGETHER,
};
use crate::train::engine::settings::{CheckpointConfig, GradientFormat, Settings, SKIP_LIMIT};
use crate::train::engine::{Recipe, Rules};
use crate::transformer::DropoutRates;

/// A training run; the defaults are the original's COCO recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Folder of checkpoints and logs.
    pub folder: PathBuf,
    /// Key of all random numbers.
    pub seed: u64,
    /// Optimizer steps of the whole run.
    pub steps: u64,
    /// Passes through the training set, in place of `steps`: each makes as many steps as
    /// the set has whole batches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// Samples that go through the network together. Several processes divide a step of
    /// batch_size · accumulation samples: each takes a smaller accumulation, then a smaller
    /// batch.
    pub batch_size: usize,
    /// Such batches per optimizer step.
    pub accumulation: usize,
    /// Number format in which several processes send each other their gradients.
    pub gradients: GradientFormat,
    /// Number format of the denoiser's activations and of the copy of its weights they
    /// are computed with; the weights that are trained are always f32.
    pub precision: Precision,
    /// Keep the inputs of the denoiser's blocks alone and evaluate each block once more in
    /// the backward pass: far less memory for a batch, a third more operations.
    pub activation_checkpointing: bool,
    pub recipe: Recipe,
    pub text: TextTraining,
    /// Shares of the denoiser's values that are dropped in training (`attn_pdrop`,
    /// `resid_pdrop`).
    #[serde(skip_serializing_if = "DropoutRates::is_none")]
    pub dropout: DropoutRates,
    pub objective: ObjectiveConfig,
    pub learning_rate: LearningRateConfig,
    pub optimizer: OptimizerConfig,
    pub clip: GradientClipping,
    pub ema: EmaConfig,
    /// Steps in a row whose loss or gradient is not finite before the run is given up.
    pub skip_limit: u64,
    pub checkpoint: CheckpointConfig,
    pub validation: ValidationConfig,
    pub preview: PreviewConfig,
    /// Steps between lines of the log.
    pub log_every: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        TrainConfig {
            folder: "runs/train".into(),
            seed: 0,
            steps: 100_000,
            epochs: None,
            batch_size: 4,
            accumulation: 8,
            gradients: GradientFormat::F32,
            precision: Precision::F32,
            activation_checkpointing: false,
            recipe: Recipe::Corrected,
            text: TextTraining::Frozen,
            dropout: DropoutRates::default(),
            objective: ObjectiveConfig::default(),
            learning_rate: LearningRateConfig {
                start: 3e-6,
                peak: 2e-4,
                warmup: 1000,
                course: Course::Plateau {
                    factor: 0.5,
                    patience: 60_000,
                    threshold: 0.1,
                    mode: ThresholdMode::Relative,
                    cooldown: 0,
                    minimum: 1e-6,
                    window: 1000,
                },
            },
            optimizer: OptimizerConfig::default(),
            clip: GradientClipping::default(),
            ema: EmaConfig::default(),
            skip_limit: SKIP_LIMIT,
            checkpoint: CheckpointConfig::default(),
            validation: ValidationConfig::default(),
            preview: PreviewConfig::default(),
            log_every: 50,
        }
    }
}

/// The bound on a fixed subset with fixed times and noise, under the averaged weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ValidationConfig {
    /// Steps between validations; 0 for none.
    pub every: u64,
    /// Samples of the subset.
    pub samples: usize,
    /// Times that each sample is shown at.
    pub times: usize,
}

impl Default for ValidationConfig {
    fn default() -> Self {
        ValidationConfig {
            every: 1000,
            samples: 256,
            times: 2,
        }
    }
}

impl TrainConfig {
    /// Sets `steps` for a training set of `samples`, where `epochs` are given.
    ///
    /// # Errors
    ///
    /// A set that does not fill one batch, a run that is too long.
    pub fn settle_steps(&mut self, samples: u64) -> Result<(), ConfigError> {
        let Some(epochs) = self.epochs else {
            return Ok(());
        };
        let batch = self.effective_batch();
        let steps = match samples / batch {
            0 => {
                let problem = format!(
                    "{epochs} are wanted of a training set of {samples} samples, and a step \
                     takes {batch}"
                );
                return Err(ConfigError::impossible("epochs", problem));
            }
            steps => epochs.saturating_mul(steps),
        };
        if steps > MOST_STEPS {
            let problem = format!("{epochs} make more than {MOST_STEPS} steps");
            return Err(ConfigError::impossible("epochs", problem));
        }
        self.steps = steps;
        check_samples(steps, self.batch_size as u64, self.accumulation as u64)
            .map_err(|e| e.of_part("epochs"))
    }

    /// Samples per optimizer step.
    pub fn effective_batch(&self) -> u64 {
        self.batch_size as u64 * self.accumulation as u64
    }

    /// How a step's gradients change the weights.
    pub fn rules(&self) -> Rules {
        Rules {
            optimizer: self.optimizer.clone(),
            learning_rate: self.learning_rate.over(self.steps),
            clip: self.clip.clone(),
            ema: Some(self.ema.clone()),
            recipe: self.recipe,
        }
    }

    /// What a time that is drawn twice in a step leaves in the history.
    pub fn duplicates(&self) -> Duplicates {
        match self.recipe {
            Recipe::Corrected => Duplicates::Mean,
            Recipe::Official => Duplicates::Last,
        }
    }

    /// What the engine is told.
    pub fn settings(&self) -> Settings {
        Settings {
            steps: self.steps,
            batch_size: self.batch_size,
            accumulation: self.accumulation,
            gradients: self.gradients,
            rules: self.rules(),
            skip_limit: self.skip_limit,
            log_every: self.log_every,
            checkpoint: self.checkpoint.clone(),
            validation_every: self.validation.every,
            preview_every: self.preview.every,
        }
    }

    /// Whether the values are possible; the first that is not, by its key.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_counts(&[
            ("steps", self.steps, MOST_STEPS),
            ("epochs", self.epochs.unwrap_or(1), MOST_STEPS),
            ("batch_size", self.batch_size as u64, MOST_TOGETHER),
            ("accumulation", self.accumulation as u64, MOST_TOGETHER),
            ("ema.every", self.ema.every, MOST_STEPS),
            ("skip_limit", self.skip_limit, MOST_STEPS),
            ("checkpoint.every", self.checkpoint.every, MOST_STEPS),
            (
                "checkpoint.keep",
                self.checkpoint.keep as u64,
                MOST_TOGETHER,
            ),
            (
                "validation.samples",
                self.validation.samples as u64,
                MOST_TOGETHER,
            ),
            (
                "validation.times",
                self.validation.times as u64,
                MOST_TOGETHER,
            ),
            ("log_every", self.log_every, MOST_STEPS),
        ])?;
        check_most(&[
            ("clip.start", self.clip.start, MOST_STEPS),
            ("clip.end", self.clip.end.unwrap_or(0), MOST_STEPS),
            ("validation.every", self.validation.every, MOST_STEPS),
        ])?;
        check_samples(self.steps, self.batch_size as u64, self.accumulation as u64)?;
        self.preview
            .check_numbers()
            .map_err(|e| e.within("preview"))?;
        let [masked, visible] = self.objective.mask_weight;
        check_numbers(&[
            ("clip.norm", self.clip.norm, Range::AboveZero),
            ("ema.decay", self.ema.decay, Range::BelowOne),
            (
                "objective.auxiliary_weight",
                self.objective.auxiliary_weight,
                Range::AtLeastZero,
            ),
            ("dropout.attention", self.dropout.attention, Range::BelowOne),
            ("dropout.residual", self.dropout.residual, Range::BelowOne),
            ("objective.mask_weight", masked, Range::AtLeastZero),
            ("objective.mask_weight", visible, Range::AtLeastZero),
        ])?;
        let within = |part: &'static str| move |e: ConfigError| e.within(part);
        self.learning_rate
            .check()
            .map_err(within("learning_rate"))?;
        self.optimizer.check().map_err(within("optimizer"))?;
        if let Some(end) = self.clip.end.filter(|_| self.recipe == Recipe::Corrected) {
            if end <= self.clip.start {
                return Err(ConfigError::value("clip.end", end, "above clip.start"));
            }
        }
        check_precision(self.precision)
    }
}
