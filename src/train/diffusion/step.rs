//! What the network is shown of a batch, and the gradients of it.

use tch::{Kind, Tensor};

use super::model::TrainingModel;
use crate::diffusion::Objective;
use crate::transformer::Dropout;

/// What the network is shown of one batch, and what it should say.
pub struct Shown {
    pub x_0: Tensor, // [B, L]
    pub x_t: Tensor, // [B, L]
    pub t: Tensor,   // [B]
    pub p_t: Tensor, // [B]
    /// The condition, as [`TrainingModel::condition`] gives it.
    pub y: Tensor,
    /// What is dropped, in training.
    pub dropout: Option<Dropout>,
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
        dropout,
    } = shown;
    let dropout = dropout.as_ref();
    let denoiser = model.denoiser();
    let pass = recompute.then(|| denoiser.forward_sparing(x_t, t, y, dropout));
    let logits = match &pass {
        Some(pass) => pass.logits.shallow_clone(),
        None => model.logits(x_t, t, y, dropout),
    }; // [B, L, K]
    let terms = objective.terms(&logits, x_0, x_t, t, p_t);
    let loss = terms.total.mean(Kind::Float) / (x_0.size()[1] * batches as i64) as f64;
    loss.backward();
    if let Some(pass) = pass {
        denoiser.backward_through_blocks(pass, x_t, t, y, dropout);
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
