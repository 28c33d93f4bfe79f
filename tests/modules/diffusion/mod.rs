//! The diffusion core: schedule, forward and reverse process, objective, samplers.

mod chain;
mod compat;
mod enumeration;
mod local;
mod noise;
mod objective;
mod order;
mod posterior;
mod purity;
mod run;
mod sampler;
mod schedule;
mod times;
mod truncation;

use vqdiffusion::diffusion::Transition;

/// The schedule the paper describes: γ̄ rises to 0.9 and K·β̄ to 0.1.
fn paper() -> Transition {
    Transition::MaskAndReplace {
        alpha: [0.99999, 0.000009],
        gamma: [0.000009, 0.9],
    }
}
