//! Which times a sampler visits.

use super::sampler::ReverseRule;

/// One network evaluation and the reverse step it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedStep {
    /// Time index given to the network.
    pub network: i64,
    /// The reverse kernel goes from this time …
    pub from: i64,
    /// … back to this one (−1 is clean).
    pub to: i64,
}

/// Why no plan has the wanted number of steps.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum PlanError {
    #[error("steps is {steps}, expected 1 to {timesteps}")]
    OutOfRange { steps: usize, timesteps: usize },
    #[error(
        "steps is {steps}, which the official rule cannot make of {timesteps} timesteps; \
         it can make {allowed}"
    )]
    NotOfficial {
        steps: usize,
        timesteps: usize,
        allowed: String,
    },
}

/// The steps of a run of `steps` network evaluations over `timesteps` times.
pub fn plan(
    rule: ReverseRule,
    steps: usize,
    timesteps: usize,
) -> Result<Vec<PlannedStep>, PlanError> {
    if steps == 0 || steps > timesteps {
        return Err(PlanError::OutOfRange { steps, timesteps });
    }
    match rule {
        ReverseRule::Exact => Ok(even(steps, timesteps)),
        ReverseRule::Official => official(steps, timesteps),
        ReverseRule::Diffusers => Ok((0..steps as i64)
            .rev()
            .map(|t| PlannedStep {
                network: t,
                from: t,
                to: t - 1,
            })
            .collect()),
    }
}

/// Times t_i = ⌈T(n − i)/n⌉ − 1, each stepping to the next and the last to clean.
fn even(steps: usize, timesteps: usize) -> Vec<PlannedStep> {
    let time = |i: usize| (timesteps * (steps - i)).div_ceil(steps) as i64 - 1;
    (0..steps)
        .map(|i| PlannedStep {
            network: time(i),
            from: time(i),
            to: if i + 1 == steps { -1 } else { time(i + 1) },
        })
        .collect()
}

/// The official fast sampler `timeX` with skip = X − 1 that makes this many steps.
fn official(steps: usize, timesteps: usize) -> Result<Vec<PlannedStep>, PlanError> {
    (0..timesteps as i64)
        .map(|skip| official_times(skip, timesteps as i64))
        .find(|plan| plan.len() == steps)
        .ok_or_else(|| {
            let mut lengths: Vec<_> = (0..timesteps as i64)
                .map(|skip| official_times(skip, timesteps as i64).len())
                .collect();
            lengths.dedup();
            PlanError::NotOfficial {
                steps,
                timesteps,
                allowed: lengths
                    .iter()
                    .map(usize::to_string)
                    .collect::<Vec<_>>()
                    .join(", "),
            }
        })
}

/// Times T−1, T−2−skip, … with 0 at the end. The posterior is the one-step kernel
/// at d − skip although the tokens are those of time d: the original's rule, which
/// leaves too many tokens masked until the last step.
pub fn official_times(skip: i64, timesteps: i64) -> Vec<PlannedStep> {
    let mut times: Vec<i64> = (0..timesteps).rev().step_by(skip as usize + 1).collect();
    if times.last() != Some(&0) {
        times.push(0);
    }
    times
        .into_iter()
        .map(|d| {
            let from = if d > skip { d - skip } else { d };
            PlannedStep {
                network: d,
                from,
                to: from - 1,
            }
        })
        .collect()
}
