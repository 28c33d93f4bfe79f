//! AdamW over all parameters as one group, and the clipping of their gradients.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::parameters::Parameters;
use super::range::{check_numbers, Range};
use super::recipe::Recipe;
use crate::config_error::ConfigError;
use crate::torch::adamw::{fused_adamw, AdamWConstants, Slot};
use crate::torch::foreach;

/// AdamW with the original's constants; weight decay acts on every parameter, biases
/// and embeddings too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    pub betas: [f64; 2],
    pub weight_decay: f64,
    pub epsilon: f64,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        OptimizerConfig {
            betas: [0.9, 0.96],
            weight_decay: 0.045,
            epsilon: 1e-8,
        }
    }
}

impl OptimizerConfig {
    /// Whether the values are possible; the first that is not, by its key.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_numbers(&[
            ("betas", self.betas[0], Range::BelowOne),
            ("betas", self.betas[1], Range::BelowOne),
            ("weight_decay", self.weight_decay, Range::AtLeastZero),
            ("epsilon", self.epsilon, Range::AboveZero),
        ])
    }
}

/// The moments of AdamW.
pub struct Optimizer {
    constants: AdamWConstants,
    /// First moments.
    pub averages: Parameters,
    /// Second moments.
    pub square_averages: Parameters,
    /// Updates made.
    pub updates: u64,
}

impl Optimizer {
    pub fn new(config: &OptimizerConfig, parameters: &Parameters) -> Self {
        Optimizer {
            constants: AdamWConstants {
                betas: config.betas,
                weight_decay: config.weight_decay,
                epsilon: config.epsilon,
            },
            averages: parameters.zeros(),
            square_averages: parameters.zeros(),
            updates: 0,
        }
    }

    /// Updates those of `parameters` that have a gradient at this learning rate.
    pub fn step(&mut self, parameters: &Parameters, rate: f64) {
        self.updates += 1;
        let gradients: Vec<Tensor> = parameters.tensors.values().map(Tensor::grad).collect();
        let slots: Vec<Slot> = parameters
            .tensors
            .values()
            .zip(&gradients)
            .zip(self.averages.tensors.values())
            .zip(self.square_averages.tensors.values())
            .filter(|(((_, gradient), _), _)| gradient.defined())
            .map(|(((parameter, gradient), average), square_average)| Slot {
                parameter,
                gradient,
                average,
                square_average,
            })
            .collect();
        let Some(first) = slots.first() else { return };
        let step = Tensor::from(self.updates as f32).to_device(first.parameter.device());
        fused_adamw(&slots, &step, rate, &self.constants);
    }
}

/// Bound on the gradient's L2 norm over all parameters, in the steps start…end − 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GradientClipping {
    pub norm: f64,
    /// First step (from 0) that is clipped.
    #[serde(skip_serializing_if = "is_zero")]
    pub start: u64,
    /// First step that is not clipped any more; never if absent. The original has
    /// such a number (5000) and clips on regardless.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Default for GradientClipping {
    fn default() -> Self {
        GradientClipping {
            norm: 0.5,
            start: 0,
            end: None,
        }
    }
}

impl GradientClipping {
    /// Whether the gradient of the step `step` (from 0) is clipped.
    pub fn applies(&self, step: u64, recipe: Recipe) -> bool {
        let before_end = self.end.is_none_or(|end| step < end);
        match recipe {
            Recipe::Corrected => step >= self.start && before_end,
            Recipe::Official => step >= self.start || before_end,
        }
    }
}

/// L2 norm of all gradients together, of which there is at least one.
pub fn gradient_norm(parameters: &Parameters) -> f64 {
    let norm = foreach::norm(&parameters.gradients());
    norm.to_kind(Kind::Double).double_value(&[])
}

/// Scales all gradients by bound / (norm + 1e-6) if that is below 1, as PyTorch does.
pub fn clip(parameters: &Parameters, norm: f64, bound: f64) {
    let factor = bound / (norm + 1e-6);
    if factor < 1.0 {
        foreach::scale(&parameters.gradients(), factor);
    }
}
