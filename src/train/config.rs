//! Settings of a training run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ema::EmaConfig;
use super::learning_rate::{Course, LearningRateConfig, ThresholdMode};
use super::model::TextTraining;
use super::optimizer::{ClipConfig, OptimizerConfig};
use super::preview::PreviewConfig;
use super::range::{check_counts, check_numbers, Range};
use crate::diffusion::ObjectiveConfig;
use crate::torch::device::Precision;

/// Where the original's training code has faults, whether they are repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recipe {
    /// They are not.
    #[default]
    Corrected,
    /// They are: of a time drawn twice in a step one loss enters the history; clipping
    /// never ends; the cosine's warm-up takes a step too many. (The original's plateau
    /// is `learning_rate.course.window: 1`.)
    Official,
}

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
    /// Samples that go through the network together.
    pub batch_size: usize,
    /// Such batches per optimizer step.
    pub accumulation: usize,
    /// Number format of the denoiser's activations and of the copy of its weights they
    /// are computed with; the weights that are trained are always f32.
    pub precision: Precision,
    /// Keep the inputs of the denoiser's blocks alone and evaluate each block once more in
    /// the backward pass: far less memory for a batch, a third more operations.
    pub activation_checkpointing: bool,
    pub recipe: Recipe,
    pub text: TextTraining,
    pub objective: ObjectiveConfig,
    pub learning_rate: LearningRateConfig,
    pub optimizer: OptimizerConfig,
    pub clip: ClipConfig,
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
            batch_size: 4,
            accumulation: 8,
            precision: Precision::F32,
            activation_checkpointing: false,
            recipe: Recipe::Corrected,
            text: TextTraining::Frozen,
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
            clip: ClipConfig::default(),
            ema: EmaConfig::default(),
            skip_limit: 10,
            checkpoint: CheckpointConfig::default(),
            validation: ValidationConfig::default(),
            preview: PreviewConfig::default(),
            log_every: 50,
        }
    }
}

/// When checkpoints are written, and how many stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Steps between checkpoints.
    pub every: u64,
    /// Newest checkpoints that are kept, besides the best.
    pub keep: usize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        CheckpointConfig {
            every: 1000,
            keep: 2,
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
    /// Samples per optimizer step.
    pub fn effective_batch(&self) -> u64 {
        (self.batch_size * self.accumulation) as u64
    }

    /// Whether the values are possible; the first that is not, by its key.
    pub fn check(&self) -> Result<(), String> {
        check_counts(&[
            ("steps", self.steps),
            ("batch_size", self.batch_size as u64),
            ("accumulation", self.accumulation as u64),
            ("ema.every", self.ema.every),
            ("skip_limit", self.skip_limit),
            ("checkpoint.every", self.checkpoint.every),
            ("checkpoint.keep", self.checkpoint.keep as u64),
            ("validation.samples", self.validation.samples as u64),
            ("validation.times", self.validation.times as u64),
            ("preview.columns", self.preview.columns as u64),
            ("preview.steps", self.preview.steps as u64),
            ("log_every", self.log_every),
        ])?;
        let [masked, visible] = self.objective.mask_weight;
        check_numbers(&[
            ("clip.norm", self.clip.norm, Range::AboveZero),
            ("ema.decay", self.ema.decay, Range::BelowOne),
            (
                "objective.auxiliary_weight",
                self.objective.auxiliary_weight,
                Range::AtLeastZero,
            ),
            ("objective.mask_weight", masked, Range::AtLeastZero),
            ("objective.mask_weight", visible, Range::AtLeastZero),
        ])?;
        let within = |part: &'static str| move |problem| format!("{part}.{problem}");
        self.learning_rate
            .check()
            .map_err(within("learning_rate"))?;
        self.optimizer.check().map_err(within("optimizer"))?;
        if let Some(end) = self.clip.end.filter(|_| self.recipe == Recipe::Corrected) {
            if end <= self.clip.start {
                return Err(format!("clip.end is {end}, expected above clip.start"));
            }
        }
        check_precision(self.precision)
    }
}

/// Whether training can compute in this format; the problem if not.
pub(super) fn check_precision(precision: Precision) -> Result<(), String> {
    match precision {
        Precision::F32 | Precision::Bf16 => Ok(()),
        Precision::F16 => {
            Err("precision is f16, expected f32 or bf16 (f16 would need loss scaling)".into())
        }
    }
}
