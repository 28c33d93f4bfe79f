//! Discrete diffusion over image tokens: schedules, transition kernels, the
//! training objective and samplers.
//!
//! Letters: B batch, L tokens per image, K codes, M = K the mask token, T diffusion
//! steps, A positions redrawn in a step. Times t run 0…T−1 and mean "after t + 1
//! noising steps"; −1 is clean. ā, b̄, c̄ are the cumulative ᾱ, β̄, γ̄ of
//! arXiv 2111.14822 and a, b, c those between two times s < t.
//!
//! The paper's equations by file:
//!
//! - [`schedule`]: α, β, γ of one step, of many, and between any two times (eqs. 3, 4, 7, 8);
//! - [`forward`]: x_t ~ q(x_t | x_0) (eqs. 4 and 8);
//! - [`posterior`]: q(x_s | x_t, x_0) and the reverse step (eqs. 5 and 11);
//! - [`objective`], [`timesteps`]: what training minimises, and at which times (eqs. 9, 12);
//! - [`guidance`], [`purity`]: Improved VQ-Diffusion (arXiv 2205.16007); [`truncation`];
//! - [`sampler`]: runs of the reverse process, each a function of model, plan and noise;
//! - [`compat`]: the same steps as the two original implementations take them.

pub mod compat;
pub mod forward;
pub mod guidance;
pub mod noise;
pub mod objective;
pub mod posterior;
pub mod purity;
pub mod sampler;
pub mod schedule;
pub mod timesteps;
pub mod truncation;

pub use noise::{HostNoise, Noise};
pub use objective::{Objective, ObjectiveConfig};
pub use sampler::{RevealOrder, ReverseRule, SamplerConfig, SamplingPlan, Start, Times};
pub use schedule::{Schedule, Transition};

/// Stands for log 0 in predictions and posteriors, as in the originals.
pub(crate) const LOG_ZERO: f64 = -70.0;
