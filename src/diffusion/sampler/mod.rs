//! The reverse process from x_T to x_0 (arXiv 2111.14822, algorithm 2). A run is a pure
//! function of the network (a closure), a plan and noise: options make a [`SamplingPlan`]
//! ([`SamplerConfig::plan`]), which names the times ([`times`]), [`start`] draws x_T, and
//! [`sample`] leads it to x_0, by
//!
//! - [`exact`]: the paper's process at any times, asking only where tokens change
//!   ([`activity`]), which may be decided for all tokens together ([`order`]); its steps at
//!   places in memory that a GPU can record them at: [`fixed`];
//! - [`fixed_counts`]: so many tokens a step, with the purity prior;
//! - [`compat`](crate::diffusion::compat): an original implementation's steps.

pub mod activity;
mod error;
pub mod exact;
pub mod fixed;
pub mod fixed_counts;
mod options;
pub mod order;
mod plan;
mod run;
mod start;
pub mod times;

use tch::Tensor;

use crate::diffusion::noise::Noise;

pub use error::{SamplerError, Stopped};
pub use options::{ReverseRule, SamplerConfig};
pub use order::RevealOrder;
pub use plan::{Calls, Rule, SamplingPlan};
pub(in crate::diffusion) use run::Reporter;
pub use run::{Denoise, Observe, Progress, Query, Reuse, Start};
pub use start::{start, start_from};
pub use times::{PlannedStep, Times};

/// Runs the reverse process of `plan` from `start` (a tensor of tokens alone keeps none)
/// to x_0 int64 `[B, L]` below K. `observe` is shown every step.
///
/// # Errors
///
/// [`Stopped`] if `observe` breaks.
pub fn sample(
    plan: &SamplingPlan,
    start: impl Into<Start>,
    denoise: &mut Denoise,
    noise: &mut dyn Noise,
    observe: &mut Observe,
) -> Result<Tensor, Stopped> {
    let _no_grad = tch::no_grad_guard();
    let start = start.into();
    match plan.revealing {
        Some(revealing) => fixed_counts::sample(plan, revealing, start, denoise, noise, observe),
        None => plan.rule.sample(plan, start, denoise, noise, observe),
    }
}
