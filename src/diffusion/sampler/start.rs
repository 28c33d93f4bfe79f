//! What a run starts from: nothing, or pictures of which a part may be kept.

use tch::{Device, Kind, Tensor};

use super::plan::SamplingPlan;
use super::run::Start;
use crate::diffusion::forward::q_sample;
use crate::diffusion::noise::{Draw, Noise};

/// x_T ~ p(x_T) (arXiv 2111.14822 section 4.1) for `batch` images, int64 `[B, L]` on the
/// CPU: each token the mask with probability c̄ / (K·b̄ + c̄), else a uniform code. The
/// originals' rules always start from masks.
pub fn start(plan: &SamplingPlan, batch: i64, noise: &mut dyn Noise) -> Tensor {
    let codes = plan.schedule.codes();
    let shape = [batch, plan.tokens()];
    let share = plan.rule.mask_share(&plan.schedule);
    if share == 1.0 {
        return Tensor::full(shape, codes, (Kind::Int64, Device::Cpu));
    }
    // One number decides both: the part above the mask's share is the code.
    let u = noise.uniform(0, Draw::Start, &shape);
    let code = (&u - share) / (1.0 - share).max(f64::MIN_POSITIVE) * codes as f64;
    let code = code.to_kind(Kind::Int64).clamp(0, codes - 1);
    code.masked_fill(&u.lt(share), codes)
}

/// The start of a run from pictures `x_0` int64 `[B, L]` on the CPU, of which the
/// tokens where `redrawn` (bool `[B, L]`; all when `None`) is false are kept. The
/// others are x_T ~ p(x_T), as in [`start`], or x_t ~ q(x_t | x_0) in a run of less than
/// full [strength](SamplingPlan::with_strength), t its first time.
pub fn start_from(
    plan: &SamplingPlan,
    x_0: &Tensor,
    redrawn: Option<&Tensor>,
    noise: &mut dyn Noise,
) -> Start {
    let noisy = if plan.partial {
        let t = plan.steps.first().map_or(-1, |step| step.network);
        let uniform = noise.uniform(0, Draw::Start, &x_0.size());
        q_sample(&plan.schedule, x_0, &[t], &uniform)
    } else {
        start(plan, x_0.size()[0], noise)
    };
    match redrawn {
        None => noisy.into(),
        Some(redrawn) => Start {
            tokens: noisy.where_self(redrawn, x_0),
            kept: Some(redrawn.logical_not()),
        },
    }
}
