//! Settings of a codec's training run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::torch::device::Precision;
use crate::train::learning_rate::{Course, LearningRateConfig};
use crate::train::optimizer::OptimizerConfig;

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

/// The codebook's training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CodebookConfig {
    /// Decay d of the running counts and sums.
    pub decay: f64,
    /// ε of the Laplace smoothing.
    pub epsilon: f64,
    /// Steps without quantization before the codebook starts from k-means.
    pub start: u64,
    /// An entry used less than this share of the mean moves to a vector of the batch;
    /// 0 leaves all where they are.
    pub revive_below: f64,
    /// Steps between such moves.
    pub revive_every: u64,
}

impl Default for CodebookConfig {
    fn default() -> Self {
        CodebookConfig {
            decay: 0.99,
            epsilon: 1e-5,
            start: 0,
            revive_below: 0.03,
            revive_every: 50,
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
    /// Pictures per step.
    pub batch_size: usize,
    /// Number format of activations; weights, codebook and loss are always f32.
    pub precision: Precision,
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
            precision: Precision::F32,
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
            },
            clip_norm: 1.0,
            log_every: 50,
            save_every: 1000,
            validation_pictures: 256,
        }
    }
}

impl CodecTrainConfig {
    /// Whether the values are possible; the first that is not, by its key.
    pub fn check(&self) -> Result<(), String> {
        let positive = [
            ("steps", self.steps),
            ("batch_size", self.batch_size as u64),
            ("codebook.revive_every", self.codebook.revive_every),
            ("log_every", self.log_every),
            ("save_every", self.save_every),
            ("validation_pictures", self.validation_pictures as u64),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("train.{key} is 0, expected at least 1"));
        }
        let above_zero = |x: f64| x > 0.0 && x.is_finite();
        let at_least_zero = |x: f64| x >= 0.0 && x.is_finite();
        let below_one = |x: f64| (0.0..1.0).contains(&x);
        let (book, rate, optimizer) = (&self.codebook, &self.learning_rate, &self.optimizer);
        let mut numbers = vec![
            (
                "commitment",
                self.commitment,
                at_least_zero(self.commitment),
                "at least 0",
            ),
            (
                "codebook.decay",
                book.decay,
                below_one(book.decay),
                "in 0 to below 1",
            ),
            (
                "codebook.epsilon",
                book.epsilon,
                above_zero(book.epsilon),
                "above 0",
            ),
            (
                "codebook.revive_below",
                book.revive_below,
                below_one(book.revive_below),
                "in 0 to below 1",
            ),
            (
                "learning_rate.start",
                rate.start,
                above_zero(rate.start),
                "above 0",
            ),
            (
                "learning_rate.peak",
                rate.peak,
                above_zero(rate.peak),
                "above 0",
            ),
            (
                "optimizer.betas",
                optimizer.betas[0].max(optimizer.betas[1]),
                optimizer.betas.into_iter().all(below_one),
                "in 0 to below 1",
            ),
            (
                "optimizer.weight_decay",
                optimizer.weight_decay,
                at_least_zero(optimizer.weight_decay),
                "at least 0",
            ),
            (
                "optimizer.epsilon",
                optimizer.epsilon,
                above_zero(optimizer.epsilon),
                "above 0",
            ),
            (
                "clip_norm",
                self.clip_norm,
                above_zero(self.clip_norm),
                "above 0",
            ),
        ];
        if let Course::Cosine { minimum, .. } = rate.course {
            numbers.push((
                "learning_rate.course.minimum",
                minimum,
                (0.0..=rate.peak).contains(&minimum),
                "0 to learning_rate.peak",
            ));
        }
        if let Some((key, value, _, expected)) = numbers.iter().find(|n| !n.2) {
            return Err(format!("train.{key} is {value}, expected {expected}"));
        }
        if self.precision == Precision::F16 {
            return Err(
                "train.precision is f16, expected f32 or bf16 (f16 would need loss scaling)".into(),
            );
        }
        if matches!(rate.course, Course::Plateau { .. }) {
            return Err(
                "train.learning_rate.course is plateau, expected constant or cosine".into(),
            );
        }
        Ok(())
    }
}
