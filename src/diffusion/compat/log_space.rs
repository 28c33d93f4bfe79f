//! Predictions and draws as the originals make them: log-probabilities of the K codes and
//! the mask in f32, `[B, L, K + 1]`, the mask last.

use tch::{Kind, Tensor};

use crate::diffusion::truncation::Truncation;
use crate::diffusion::LOG_ZERO;

/// log p(x̂_0) of raw `logits` `[B, L, K]` with the mask row −70: log-softmax in
/// f64, then f32, clamped to −70…0 → `[B, L, K + 1]`.
pub fn log_prediction(logits: &Tensor) -> Tensor {
    let log_p = logits.log_softmax(-1, Kind::Double).to_kind(Kind::Float);
    with_mask_row(&log_p).clamp(LOG_ZERO, 0.0)
}

/// The mask row −70 behind the K codes.
pub(super) fn with_mask_row(log_p: &Tensor) -> Tensor {
    log_p.pad([0, 1], "constant", LOG_ZERO)
}

/// Sets the codes that `truncation` drops to `floor`.
pub(super) fn drop_codes(log_p: &Tensor, truncation: Truncation, floor: f64) -> Tensor {
    let classes = log_p.size()[log_p.dim() - 1];
    let kept = match truncation {
        Truncation::Off => return log_p.shallow_clone(),
        Truncation::TopP(rate) => {
            let (sorted, order) = log_p.sort(-1, true);
            let mass = sorted.exp().cumsum(-1, Kind::Float);
            // A code stays iff the mass before it is below the rate; the first always.
            let before = mass
                .narrow(-1, 0, classes - 1)
                .pad([1, 0], "constant", -1.0);
            let kept = before.lt(rate).to_kind(Kind::Int64);
            kept.zeros_like().scatter(-1, &order, &kept)
        }
        Truncation::TopK(k) => {
            let (_, order) = log_p.topk(k.min(classes), -1, true, true);
            log_p
                .zeros_like()
                .to_kind(Kind::Int64)
                .scatter_value(-1, &order, 1)
        }
    };
    log_p.masked_fill(&kept.eq(0), floor)
}

/// argmax of log p + Gumbel noise of `uniform` (f32), which has the shape of
/// `log_p` `[…, N]` → int64 `[…]`.
pub fn gumbel_argmax(log_p: &Tensor, uniform: &Tensor) -> Tensor {
    // A number that f32 rounds to 1 would have noise 69, enough to draw any class.
    let uniform = uniform.clamp_max(1.0 - f64::from(f32::EPSILON) / 2.0);
    let gumbel = -((uniform + 1e-30).log().neg() + 1e-30).log();
    (log_p + gumbel).argmax(-1, false)
}
