//! Everything that a run changes, and one optimizer step on it.

use tch::{Kind, Tensor};

use super::config::TrainConfig;
use super::learning_rate::LearningRate;
use super::model::TrainingModel;
use super::optimizer::{clip, gradient_norm, Optimizer};
use super::parameters::Parameters;
use super::Recipe;
use crate::diffusion::timesteps::{Duplicates, TimestepSampler};
use crate::diffusion::Objective;

/// The state of a run: what a checkpoint holds.
pub struct RunState {
    /// The trained weights, leaf tensors in f32.
    pub parameters: Parameters,
    pub optimizer: Optimizer,
    /// Their moving average.
    pub ema: Parameters,
    pub learning_rate: LearningRate,
    pub times: TimestepSampler,
    /// Steps made, skipped ones included.
    pub step: u64,
    /// Global index of the next sample.
    pub samples: u64,
    /// Steps that were skipped because a number was not finite.
    pub skipped: u64,
}

/// What the network is shown of one batch, and what it should say.
pub struct Shown {
    pub x_0: Tensor, // [B, L]
    pub x_t: Tensor, // [B, L]
    pub t: Tensor,   // [B]
    pub p_t: Tensor, // [B]
    /// The condition, as [`TrainingModel::condition`] gives it.
    pub y: Tensor,
}

/// Outcome of a batch, on the device.
pub struct BatchOutcome {
    /// The part of the step's loss, a scalar.
    pub loss: Tensor,
    /// Main term of each sample, `[B]`: nats over all tokens.
    pub main: Tensor,
    /// Share of tokens whose likeliest code is the right one, a scalar.
    pub accuracy: Tensor,
}

/// Adds the gradients of one batch, of which `batches` make a step. With `recompute` the
/// backward pass evaluates the blocks once more instead of keeping their activations.
pub fn accumulate(
    model: &TrainingModel,
    objective: &Objective,
    shown: &Shown,
    batches: usize,
    recompute: bool,
) -> BatchOutcome {
    let Shown {
        x_0,
        x_t,
        t,
        p_t,
        y,
    } = shown;
    let denoiser = model.denoiser();
    let pass = recompute.then(|| denoiser.forward_sparing(x_t, t, y));
    let logits = match &pass {
        Some(pass) => pass.logits.shallow_clone(),
        None => model.logits(x_t, t, y),
    }; // [B, L, K]
    let terms = objective.terms(&logits, x_0, x_t, t, p_t);
    let loss = terms.total.mean(Kind::Float) / (x_0.size()[1] * batches as i64) as f64;
    loss.backward();
    if let Some(pass) = pass {
        denoiser.backward_through_blocks(pass, x_t, t, y);
    }
    let accuracy = tch::no_grad(|| {
        let right = logits.argmax(-1, false).eq_tensor(x_0);
        right.to_kind(Kind::Float).mean(Kind::Float)
    });
    BatchOutcome {
        loss: loss.detach(),
        main: terms.main.detach(),
        accuracy,
    }
}

impl RunState {
    /// A run's start from `parameters`, at the first sample.
    pub fn new(config: &TrainConfig, parameters: Parameters, timesteps: usize) -> Self {
        let official = config.recipe == Recipe::Official;
        let duplicates = match config.recipe {
            Recipe::Corrected => Duplicates::Mean,
            Recipe::Official => Duplicates::Last,
        };
        RunState {
            optimizer: Optimizer::new(&config.optimizer, &parameters),
            ema: parameters.copied(),
            parameters,
            learning_rate: LearningRate::new(&config.learning_rate, official),
            times: TimestepSampler::new(timesteps, duplicates),
            step: 0,
            samples: 0,
            skipped: 0,
        }
    }

    /// L2 norm of the gradient.
    pub fn gradient_norm(&self) -> f64 {
        gradient_norm(&self.parameters)
    }

    /// One step with the gradients at hand, whose L2 norm is `norm`: clipping, AdamW,
    /// learning rate, average, in the original's order. `loss` is the step's loss.
    pub fn update(&mut self, config: &TrainConfig, loss: f64, norm: f64) {
        if config.clip.applies(self.step, config.recipe) {
            clip(&self.parameters, norm, config.clip.norm);
        }
        self.optimizer
            .step(&self.parameters, self.learning_rate.rate);
        self.learning_rate.step(loss);
        self.step += 1;
        config.ema.update(&self.ema, &self.parameters, self.step);
    }
}
