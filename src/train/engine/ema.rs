//! Exponential moving average of the weights.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::parameters::Parameters;
use crate::torch::foreach::lerp;

/// ema ← decay · ema + (1 − decay) · weights in every `every`-th step. The original's
/// rule is a decay of 0.99 every 25 steps (10 for FFHQ).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmaConfig {
    pub decay: f64,
    pub every: u64,
}

impl Default for EmaConfig {
    /// The original's average over the same span, updated in every step: 0.99^(1/25).
    fn default() -> Self {
        EmaConfig {
            decay: 0.9996,
            every: 1,
        }
    }
}

impl EmaConfig {
    /// Brings `average` up to date after `steps` steps.
    pub fn update(&self, average: &Parameters, weights: &Parameters, steps: u64) {
        if !steps.is_multiple_of(self.every) {
            return;
        }
        let averages: Vec<&Tensor> = average.tensors.values().collect();
        let weights: Vec<&Tensor> = weights.tensors.values().collect();
        lerp(&averages, &weights, 1.0 - self.decay);
    }
}
