//! How the gradients of a step change the weights.

use super::ema::EmaConfig;
use super::learning_rate::LearningRateConfig;
use super::optimizer::{GradientClipping, OptimizerConfig};
use super::recipe::Recipe;

/// Clipping, optimizer, learning rate and average of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    pub optimizer: OptimizerConfig,
    pub learning_rate: LearningRateConfig,
    pub clip: GradientClipping,
    /// The moving average of the weights, if there is one.
    pub ema: Option<EmaConfig>,
    pub recipe: Recipe,
}
