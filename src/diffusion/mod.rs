//! Discrete diffusion over image tokens: schedules, transition kernels, the
//! training objective and samplers.
//!
//! Letters: B batch, L tokens per image, K codes, M = K the mask token, T diffusion
//! steps, A positions redrawn in a step. Times t run 0…T−1 and mean "after t + 1
//! noising steps"; −1 is clean. ā, b̄, c̄ are the cumulative ᾱ, β̄, γ̄ of
//! arXiv 2111.14822 and a, b, c those between two times s < t.

mod dense;
pub mod exact;
pub mod forward;
pub mod guidance;
pub mod kernel;
pub mod noise;
pub mod objective;
mod options;
pub mod plan;
pub mod posterior;
pub mod purity;
pub mod sampler;
pub mod schedule;
mod start;
pub mod timesteps;
pub mod truncation;

pub use noise::{HostNoise, Noise};
pub use objective::{Objective, ObjectiveConfig};
pub use sampler::{ReverseRule, Sampler, SamplerConfig};
pub use schedule::{Schedule, Transition};
pub use start::Start;
