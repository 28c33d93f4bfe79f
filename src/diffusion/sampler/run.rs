//! What a run is given and what it tells: the network as a closure, the state it starts
//! from, and its progress.

use std::ops::ControlFlow;

use tch::{Device, Kind, Tensor};

use super::error::Stopped;
use super::times::PlannedStep;
use crate::diffusion::guidance::Prediction;

/// What a run asks the network.
pub struct Query<'a> {
    /// Tokens int64 `[B, L]`, K for the mask.
    pub x_t: &'a Tensor,
    /// Their time, int64 `[1]` on the device of `x_t`.
    pub t: &'a Tensor,
    /// Where the prediction is wanted, int64 `[B, A]`: all L when `None`.
    pub positions: Option<&'a Tensor>,
    /// Whether the prediction of the null condition is wanted too.
    pub null: bool,
    pub reuse: Reuse<'a>,
}

/// What a network may take over from an earlier evaluation of the run.
#[derive(Clone, Copy)]
pub enum Reuse<'a> {
    /// Nothing.
    Nothing,
    /// Nothing, but its keys and values are wanted by those that follow.
    Keep,
    /// The keys and values last kept stand for all positions but those of the `group` int64
    /// `[B, G]`, which alone are evaluated. The positions asked about are its columns from
    /// `first` on.
    Kept { group: &'a Tensor, first: i64 },
}

/// Answers with the network's prediction at the positions asked about.
pub type Denoise<'a> = dyn FnMut(Query) -> Prediction + 'a;

/// Is shown every step; [`ControlFlow::Break`] ends the run there.
pub type Observe<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;

/// The state before the first step.
pub struct Start {
    /// Tokens at the time of the first step, int64 `[B, L]` on the model's device.
    pub tokens: Tensor,
    /// Tokens that never change, bool `[B, L]`; they must be below K.
    pub kept: Option<Tensor>,
}

impl From<Tensor> for Start {
    fn from(tokens: Tensor) -> Self {
        Start { tokens, kept: None }
    }
}

impl Start {
    pub fn to_device(&self, device: Device) -> Self {
        Start {
            tokens: self.tokens.to_device(device),
            kept: self.kept.as_ref().map(|kept| kept.to_device(device)),
        }
    }
}

/// Where a run is, after each step.
pub struct Progress<'a> {
    /// Steps done, 1…`steps`.
    pub done: usize,
    pub steps: usize,
    /// The step that was made.
    pub step: PlannedStep,
    /// x_s int64 `[B, L]` on the run's device, K for the mask.
    pub tokens: &'a Tensor,
    before: &'a Tensor,
    entropy: &'a dyn Fn() -> Option<Tensor>,
}

impl Progress<'_> {
    /// Where the step changed the token: bool `[B, L]` on the run's device.
    pub fn changed(&self) -> Tensor {
        self.tokens.ne_tensor(self.before)
    }

    /// Entropy in nats of the p(x̂_0) that the step drew from, guided and truncated: f32
    /// `[B, L]` on the run's device, NaN where the network was not asked. Of the first
    /// evaluation where a step has several. Computed when called.
    pub fn entropy(&self) -> Tensor {
        (self.entropy)().unwrap_or_else(|| unasked(self.tokens))
    }
}

/// The entropy where nothing was asked: NaN, f32 in the shape of `tokens`.
pub(super) fn unasked(tokens: &Tensor) -> Tensor {
    Tensor::full(tokens.size(), f64::NAN, (Kind::Float, tokens.device()))
}

/// Shows the run's progress to its observer.
pub(in crate::diffusion) struct Reporter<'a, 'b> {
    pub observe: &'a mut Observe<'b>,
    pub steps: &'a [PlannedStep],
}

impl Reporter<'_, '_> {
    /// After step `i`, which led from `before` to `tokens`; `entropy` `[B, L]` is asked
    /// for only if the observer is interested.
    pub fn step(
        &mut self,
        i: usize,
        before: &Tensor,
        tokens: &Tensor,
        entropy: &dyn Fn() -> Option<Tensor>,
    ) -> Result<(), Stopped> {
        let progress = Progress {
            done: i + 1,
            steps: self.steps.len(),
            step: self.steps[i],
            tokens,
            before,
            entropy,
        };
        match (self.observe)(progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Stopped),
        }
    }
}
