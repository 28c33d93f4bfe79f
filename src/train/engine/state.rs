//! What every run changes, and one optimizer step on it.

use super::learning_rate::LearningRate;
use super::muon::HiddenMatrices;
use super::optimizer::{clip, gradient_norm, Optimizer};
use super::parameters::Parameters;
use super::recipe::Recipe;
use super::rules::Rules;

/// Weights, moments, average and counters of a run.
pub struct RunState {
    /// The trained weights, leaf tensors in f32.
    pub parameters: Parameters,
    pub optimizer: Optimizer,
    /// Their moving average, where the run has one.
    pub ema: Option<Parameters>,
    pub learning_rate: LearningRate,
    /// Steps made, skipped ones included.
    pub step: u64,
    /// Global index of the next sample.
    pub samples: u64,
    /// Steps that were skipped because a number was not finite.
    pub skipped: u64,
}

impl RunState {
    /// A run's start from `parameters`, of which `matrices` tells the hidden ones, at the
    /// first sample.
    pub fn new(rules: &Rules, parameters: Parameters, matrices: HiddenMatrices) -> Self {
        RunState {
            optimizer: Optimizer::new(&rules.optimizer, &parameters, matrices),
            ema: rules.ema.as_ref().map(|_| parameters.copied()),
            parameters,
            learning_rate: LearningRate::new(
                &rules.learning_rate,
                rules.recipe == Recipe::Official,
            ),
            step: 0,
            samples: 0,
            skipped: 0,
        }
    }

    /// L2 norm of the gradient.
    pub fn gradient_norm(&self) -> f64 {
        gradient_norm(&self.parameters)
    }

    /// One step with the gradients at hand, whose L2 norm is `norm`: clipping,
    /// optimizer, learning rate, average, in the original's order. `loss` is the step's loss.
    pub fn update(&mut self, rules: &Rules, loss: f64, norm: f64) {
        if rules.clip.applies(self.step, rules.recipe) {
            clip(&self.parameters, norm, rules.clip.norm);
        }
        self.optimizer
            .step(&self.parameters, self.learning_rate.rate);
        self.learning_rate.step(loss);
        self.step += 1;
        if let (Some(rule), Some(ema)) = (&rules.ema, &self.ema) {
            rule.update(ema, &self.parameters, self.step);
        }
    }
}
