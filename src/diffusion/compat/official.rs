//! Guidance, truncation, times and counts of the official code.

use tch::Tensor;

use super::log_space::{drop_codes, log_prediction, with_mask_row};
use crate::diffusion::guidance::Prediction;
use crate::diffusion::sampler::{PlannedStep, SamplerError};
use crate::diffusion::truncation::Truncation;
use crate::diffusion::LOG_ZERO;

/// Whether the null condition is asked about: not within 1e-3 of scale 1.
pub(super) fn asks_null(scale: f64) -> bool {
    (scale - 1.0).abs() >= 1e-3
}

/// Guidance as the official code applies it: on clamped log-probabilities, with
/// renormalisation, skipped within 1e-3 of scale 1 → `[B, L, K + 1]`.
pub fn guidance(prediction: &Prediction, scale: f64) -> Tensor {
    let conditional = log_prediction(&prediction.conditional);
    match &prediction.unconditional {
        Some(null) if asks_null(scale) => {
            let codes = conditional.size()[2] - 1;
            let (c, u) = (
                conditional.narrow(-1, 0, codes),
                log_prediction(null).narrow(-1, 0, codes),
            );
            let mixed = &u + (c - &u) * scale;
            let log_p = &mixed - mixed.logsumexp([-1], true);
            with_mask_row(&log_p.clamp(LOG_ZERO, 0.0))
        }
        _ => conditional,
    }
}

/// Truncation as the official code applies it, decided on f32 cumulative sums
/// over the sorted row; the other entries become −70: `[…, K + 1]` → the same.
pub fn truncation(log_p: &Tensor, kind: Truncation) -> Tensor {
    drop_codes(log_p, kind, LOG_ZERO)
}

/// The official fast sampler `timeX` with skip = X − 1 that makes this many steps.
pub(super) fn steps(steps: usize, timesteps: usize) -> Result<Vec<PlannedStep>, SamplerError> {
    (0..timesteps as i64)
        .map(|skip| times(skip, timesteps as i64))
        .find(|plan| plan.len() == steps)
        .ok_or_else(|| {
            let mut lengths: Vec<_> = (0..timesteps as i64)
                .map(|skip| times(skip, timesteps as i64).len())
                .collect();
            lengths.dedup();
            SamplerError::NotOfficial {
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
pub fn times(skip: i64, timesteps: i64) -> Vec<PlannedStep> {
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

/// The official tables `n_sample` by time index, made for 1024 tokens;
/// `tokens_per_evaluation` is `prior_ps`. `None` where the original has no table.
pub fn n_sample(
    timesteps: usize,
    tokens: usize,
    tokens_per_evaluation: usize,
) -> Option<Vec<usize>> {
    if tokens != 1024 {
        return None;
    }
    let spread = |first: &[usize], middle: &[usize], repeats: usize, last: &[usize]| {
        let mut counts = first.to_vec();
        counts.extend(middle.iter().copied().cycle().take(middle.len() * repeats));
        counts.extend(last);
        counts
    };
    match timesteps {
        100 if tokens_per_evaluation > 10 => Some(spread(&[1, 10], &[11, 10, 10], 32, &[11, 11])),
        100 => Some(spread(&[1, 6], &[11, 10, 10], 32, &[11, 15])),
        50 => Some(spread(&[10], &[21, 20], 24, &[30])),
        25 => Some(spread(&[21], &[41], 23, &[60])),
        10 => Some(spread(&[69], &[102], 8, &[139])),
        _ => None,
    }
}
