//! Settings of a codec's training run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config_error::ConfigError;
use crate::torch::device::Precision;
use crate::train::engine::learning_rate::{Course, LearningRateConfig};
use crate::train::engine::optimizer::{GradientClipping, OptimizerConfig, OptimizerKind};
use crate::train::engine::range::{
    check_counts, check_most, check_numbers, check_precision, check_samples, Range, MOST_STEPS,
    MOST_TOGETHER,
};
use crate::train::engine::settings::{CheckpointConfig, GradientFormat, Settings, SKIP_LIMIT};
use crate::train::engine::{Recipe, Rules};

/// What x̃ is compared with x by; x in −1…1, the mean over all values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reconstruction {
    /// |x − x̃|, as in the VQ-Diffusion paper.
    #[default]
    L1,
    /// (x − x̃)², which the signal-to-noise ratio is made of.
    L2,
}

/// What a run changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trained {
    /// Encoder, codebook and decoder.
    #[default]
    Whole,
    /// What lies behind the codes. Pictures keep their tokens, so that token caches and
    /// diffusion models over them stay valid; needs a codec to start from.
    Decoder,
}

/// The codebook's training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CodebookConfig {
    /// Decay d of the running counts and sums.
    pub decay: f64,
    /// ε of the Laplace smoothing.
    pub epsilon: f64,
    /// Steps without quantization before the codebook starts from k-means; a run that
    /// starts from a codec's weights has its codebook already.
    pub start: u64,
    /// An entry used less than this share of the mean moves to a vector of the batch;
    /// 0 leaves all where they are.
    pub revive_below: f64,
    /// Such moves are made in every step whose number this divides.
    pub revive_every: u64,
    /// Most entropy of the codes, in nats. Above it rare codes have a price
    /// ([`crate::codec::price`]), for which the last of the `embedding_width` channels is
    /// taken. Fewer nats lose detail, and leave less that a text must decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entropy: Option<f64>,
}

impl Default for CodebookConfig {
    fn default() -> Self {
        CodebookConfig {
            decay: 0.99,
            epsilon: 1e-5,
            start: 0,
            revive_below: 0.03,
            revive_every: 50,
            entropy: None,
        }
    }
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CodecTrainConfig {
    /// Folder of checkpoint and log.
    pub folder: PathBuf,
    /// Key of all random numbers.
    pub seed: u64,
    /// Optimizer steps of the whole run.
    pub steps: u64,
    /// Pictures that go through the network together; several processes divide a step of
    /// batch_size · accumulation pictures.
    pub batch_size: usize,
    /// Such batches per optimizer step.
    pub accumulation: usize,
    /// Number format in which several processes send each other their gradients.
    pub gradients: GradientFormat,
    /// Number format of activations; weights, codebook and loss are always f32.
    pub precision: Precision,
    pub trained: Trained,
    pub reconstruction: Reconstruction,
    /// Weight of the commitment mean (z − sg(e))².
    pub commitment: f64,
    pub codebook: CodebookConfig,
    pub learning_rate: LearningRateConfig,
    pub optimizer: OptimizerConfig,
    /// Bound on the gradient's L2 norm.
    pub clip_norm: f64,
    /// Steps between lines of the log.
    pub log_every: u64,
    /// Steps between validations and checkpoints.
    pub save_every: u64,
    /// Newest checkpoints that are kept, besides the best.
    pub keep: usize,
    /// Pictures that the validation looks at.
    pub validation_pictures: usize,
}

impl Default for CodecTrainConfig {
    fn default() -> Self {
        CodecTrainConfig {
            folder: "runs/codec".into(),
            seed: 0,
            steps: 20_000,
            batch_size: 32,
            accumulation: 1,
            gradients: GradientFormat::F32,
            precision: Precision::F32,
            trained: Trained::Whole,
            reconstruction: Reconstruction::L1,
            commitment: 0.25,
            codebook: CodebookConfig::default(),
            learning_rate: LearningRateConfig {
                start: 1e-5,
                peak: 4e-4,
                warmup: 200,
                course: Course::Cosine {
                    total: 20_000,
                    minimum: 1e-5,
                },
            },
            optimizer: OptimizerConfig {
                betas: [0.9, 0.99],
                weight_decay: 0.0,
                epsilon: 1e-8,
                ..OptimizerConfig::default()
            },
            clip_norm: 1.0,
            log_every: 50,
            save_every: 1000,
            keep: 2,
            validation_pictures: 256,
        }
    }
}

impl CodecTrainConfig {
    /// Pictures per optimizer step.
    pub fn effective_batch(&self) -> u64 {
        self.batch_size as u64 * self.accumulation as u64
    }

    /// How a step's gradients change the weights.
    pub fn rules(&self) -> Rules {
        Rules {
            optimizer: self.optimizer.clone(),
            learning_rate: self.learning_rate.over(self.steps),
            clip: GradientClipping {
                norm: self.clip_norm,
                start: 0,
                end: None,
            },
            ema: None,
            recipe: Recipe::Corrected,
        }
    }

    /// What the engine is told; `validates` says whether there are validation pictures.
    pub fn settings(&self, validates: bool) -> Settings {
        Settings {
            steps: self.steps,
            batch_size: self.batch_size,
            accumulation: self.accumulation,
            gradients: self.gradients,
            rules: self.rules(),
            skip_limit: SKIP_LIMIT,
            log_every: self.log_every,
            checkpoint: CheckpointConfig {
                every: self.save_every,
                keep: self.keep,
            },
            validation_every: if validates { self.save_every } else { 0 },
            preview_every: 0,
        }
    }

    /// Whether the values are possible; the first that is not, by its key.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_counts(&[
            ("steps", self.steps, MOST_STEPS),
            ("batch_size", self.batch_size as u64, MOST_TOGETHER),
            ("accumulation", self.accumulation as u64, MOST_TOGETHER),
            (
                "codebook.revive_every",
                self.codebook.revive_every,
                MOST_STEPS,
            ),
            ("log_every", self.log_every, MOST_STEPS),
            ("save_every", self.save_every, MOST_STEPS),
            ("keep", self.keep as u64, MOST_TOGETHER),
            (
                "validation_pictures",
                self.validation_pictures as u64,
                MOST_TOGETHER,
            ),
        ])?;
        check_most(&[("codebook.start", self.codebook.start, MOST_STEPS)])?;
        check_samples(self.steps, self.batch_size as u64, self.accumulation as u64)?;
        let book = &self.codebook;
        check_numbers(&[
            ("commitment", self.commitment, Range::AtLeastZero),
            ("codebook.decay", book.decay, Range::BelowOne),
            ("codebook.epsilon", book.epsilon, Range::AboveZero),
            ("codebook.revive_below", book.revive_below, Range::BelowOne),
            ("clip_norm", self.clip_norm, Range::AboveZero),
        ])?;
        if let Some(entropy) = book.entropy {
            check_numbers(&[("codebook.entropy", entropy, Range::AboveZero)])?;
        }
        let within = |part: &'static str| move |e: ConfigError| e.within(part);
        self.learning_rate
            .check()
            .map_err(within("learning_rate"))?;
        self.optimizer.check().map_err(within("optimizer"))?;
        if self.optimizer.kind == OptimizerKind::Muon {
            let expected = "adamw: a codec's weights are convolutions, and Muon is for matrices";
            return Err(ConfigError::value("optimizer.kind", "muon", expected));
        }
        if matches!(self.learning_rate.course, Course::Plateau { .. }) {
            let expected = "constant or cosine";
            return Err(ConfigError::value(
                "learning_rate.course",
                "plateau",
                expected,
            ));
        }
        check_precision(self.precision)
    }
}
