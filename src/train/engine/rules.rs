//! How the gradients of a step change the weights.

use serde::{Deserialize, Serialize};

use super::ema::EmaConfig;
use super::learning_rate::LearningRateConfig;
use super::optimizer::{GradientClipping, OptimizerConfig};

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

/// Clipping, AdamW, learning rate and average of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    pub optimizer: OptimizerConfig,
    pub learning_rate: LearningRateConfig,
    pub clip: GradientClipping,
    /// The moving average of the weights, if there is one.
    pub ema: Option<EmaConfig>,
    pub recipe: Recipe,
}
