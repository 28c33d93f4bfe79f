//! Guidance, truncation and times of diffusers' `VQDiffusionPipeline`.

use tch::{Kind, Tensor};

use super::log_space::{drop_codes, with_mask_row};
use crate::diffusion::guidance::Prediction;
use crate::diffusion::sampler::{PlannedStep, SamplerError};
use crate::diffusion::truncation::Truncation;
use crate::diffusion::LOG_ZERO;

/// Whether the null condition is asked about: above scale 1.
pub(super) fn asks_null(scale: f64) -> bool {
    scale > 1.0
}

/// Guidance as diffusers applies it: active above scale 1, not clamped → `[B, L, K]`.
pub fn guidance(prediction: &Prediction, scale: f64) -> Tensor {
    let log_softmax = |logits: &Tensor| logits.log_softmax(-1, Kind::Double).to_kind(Kind::Float);
    let conditional = log_softmax(&prediction.conditional);
    match &prediction.unconditional {
        Some(null) if asks_null(scale) => {
            let null = log_softmax(null);
            let mixed = &null + (conditional - &null) * scale;
            &mixed - mixed.logsumexp([-1], true)
        }
        _ => conditional,
    }
}

/// Truncation as diffusers applies it: over the K codes, then floored at −70, with
/// the mask row appended for [`q_posterior`](super::LogSchedule::q_posterior) → `[B, L, K + 1]`.
pub fn truncation(log_p: &Tensor, kind: Truncation) -> Tensor {
    let kept = drop_codes(log_p, kind, f64::NEG_INFINITY);
    with_mask_row(&kept.clamp_min(LOG_ZERO))
}

/// Times n − 1, …, 0 whatever T is: fewer steps start all masked at time n − 1.
pub(super) fn steps(steps: usize, _timesteps: usize) -> Result<Vec<PlannedStep>, SamplerError> {
    let step = |t| PlannedStep {
        network: t,
        from: t,
        to: t - 1,
    };
    Ok((0..steps as i64).rev().map(step).collect())
}
