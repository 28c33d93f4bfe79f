//! The posterior q(x_s | x_t, x_0) (arXiv 2111.14822 eq. 5, for any earlier time s), and
//! the reverse step p_θ(x_s | x_t) = Σ_k p_θ(x̂_0 = k | x_t) q(x_s | x_t, k) (eq. 11) as
//! two draws: x̂_0 ~ p_θ(x̂_0 | x_t), then x_s ~ q(x_s | x_t, x̂_0). Mixing over x̂_0 makes
//! the two together an exact sample.
//!
//! Given x̂_0, a token can do three things: stay what it is at t, become x̂_0, or become
//! any of the K codes alike. With ā, b̄, c̄ of s and a, b, c from s to t:
//!
//! | case           | stay at x_t           | take x̂_0 | uniform over K codes | divided by      |
//! |----------------|-----------------------|----------|----------------------|-----------------|
//! | x_t = M        | c̄_s                   | c ā_s    | K c b̄_s              | c̄_t             |
//! | x_t = i ≠ x̂_0  | a b̄_s                 | b ā_s    | K b b̄_s              | b̄_t             |
//! | x_t = i = x̂_0  | a ā_s + a b̄_s + b ā_s | –        | K b b̄_s              | ā_t + b̄_t       |
//!
//! The mask stays with c̄_s / c̄_t whatever x̂_0 is, and a visible token never turns into
//! the mask.

use tch::{Device, Kind, Tensor};

use super::schedule::Schedule;

/// Probabilities of the outcomes for a position whose current token is of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// x_s = x_t.
    pub stay: f64,
    /// x_s = x̂_0.
    pub take: f64,
    /// x_s uniform over the K codes.
    pub uniform: f64,
}

/// q(x_s | x_t, x̂_0) for one pair of times: the rows of the table above.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Posterior {
    /// x_t is the mask.
    pub masked: Choice,
    /// x_t is a code other than x̂_0.
    pub differs: Choice,
    /// x_t is x̂_0; `take` is 0, since taking x̂_0 is staying.
    pub agrees: Choice,
}

impl Posterior {
    /// The posterior of time `s` seen from `t` (−1 ≤ s < t ≤ T−1).
    pub fn new(schedule: &Schedule, s: i64, t: i64) -> Self {
        let (then, now, step) = (schedule.at(s), schedule.at(t), schedule.between(s, t));
        let codes = schedule.codes() as f64;
        let (a, b, c) = (step.keep, step.uniform / codes, step.mask);
        let (b_then, b_now) = (then.uniform / codes, now.uniform / codes);

        let masked = if now.mask > 0.0 {
            normalised(then.mask, c * then.keep, c * then.uniform, now.mask)
        } else {
            Choice::STAY
        };
        let (differs, agrees) = if now.uniform > 0.0 {
            (
                normalised(a * b_then, b * then.keep, step.uniform * b_then, b_now),
                normalised(
                    a * then.keep + a * b_then + b * then.keep,
                    0.0,
                    step.uniform * b_then,
                    now.keep + b_now,
                ),
            )
        } else {
            // Without replacement a visible token is the original one; the
            // general form is 0/0 there.
            (Choice::STAY, Choice::STAY)
        };
        Posterior {
            masked,
            differs,
            agrees,
        }
    }

    /// Of each row of the table the bounds between staying, taking x̂_0 and replacement
    /// along the unit interval.
    fn bounds(&self) -> [f64; 6] {
        let [masked, differs, agrees] =
            [self.masked, self.differs, self.agrees].map(|c| [c.stay, c.stay + c.take]);
        [
            masked[0], masked[1], differs[0], differs[1], agrees[0], agrees[1],
        ]
    }
}

/// The bounds of `posteriors` on `device`, where [`reverse_step_within`] reads them: f64
/// `[steps, 3, 2]`.
pub fn bounds(posteriors: &[Posterior], device: Device) -> Tensor {
    let all: Vec<f64> = posteriors.iter().flat_map(Posterior::bounds).collect();
    Tensor::from_slice(&all).view([-1, 3, 2]).to_device(device)
}

impl Choice {
    const STAY: Choice = Choice {
        stay: 1.0,
        take: 0.0,
        uniform: 0.0,
    };
}

fn normalised(stay: f64, take: f64, uniform: f64, total: f64) -> Choice {
    Choice {
        stay: stay / total,
        take: take / total,
        uniform: uniform / total,
    }
}

/// The uniform numbers in [0, 1) of one reverse step: f64 `[B, A]` each.
pub struct StepNoise {
    /// Which code x̂_0 is.
    pub code: Tensor,
    /// Whether the token stays, becomes x̂_0 or is replaced.
    pub choice: Tensor,
    /// Which code replaces it.
    pub replacement: Tensor,
}

impl StepNoise {
    /// The same tensors.
    pub fn shallow_clone(&self) -> Self {
        StepNoise {
            code: self.code.shallow_clone(),
            choice: self.choice.shallow_clone(),
            replacement: self.replacement.shallow_clone(),
        }
    }
}

/// x_s ~ p_θ(x_s | x_t) (eq. 11) position by position: `p` `[B, A, K]` the guided and
/// truncated p(x̂_0), not necessarily normalised; `x_t` int64 `[B, A]` with mask K →
/// int64 `[B, A]`.
pub fn reverse_step(posterior: &Posterior, p: &Tensor, x_t: &Tensor, noise: &StepNoise) -> Tensor {
    let bounds = bounds(std::slice::from_ref(posterior), p.device());
    reverse_step_within(&bounds.get(0), p, x_t, noise)
}

/// As [`reverse_step`] for the posterior with these `bounds`, f64 `[3, 2]` ([`bounds`]): all
/// that it depends on are tensors.
pub fn reverse_step_within(bounds: &Tensor, p: &Tensor, x_t: &Tensor, noise: &StepNoise) -> Tensor {
    let codes = p.size()[2];
    let start = inverse_cdf(p, &noise.code); // x̂_0 [B, A]
    let replacement = (&noise.replacement * codes as f64).to_kind(Kind::Int64);
    let choose = |row: i64| {
        // stay | x̂_0 | replacement, in this order along the unit interval
        let below = |i: i64| noise.choice.lt_tensor(&bounds.get(row).get(i));
        let moved = start.where_self(&below(1), &replacement);
        x_t.where_self(&below(0), &moved)
    };
    let [masked, differs, agrees] = [0, 1, 2].map(choose);
    let visible = agrees.where_self(&start.eq_tensor(x_t), &differs);
    masked.where_self(&x_t.eq(codes), &visible)
}

/// Index of the code where the cumulated probability passes u:
/// `p` `[B, A, K]` (not necessarily normalised), `uniform` f64 `[B, A]` in [0, 1)
/// → int64 `[B, A]`. A code of probability 0 is never drawn.
pub fn inverse_cdf(p: &Tensor, uniform: &Tensor) -> Tensor {
    let cdf = p.cumsum(-1, Kind::Double); // [B, A, K]
    let total = cdf.slice(-1, -1, None, 1); // [B, A, 1]
    let target = uniform.unsqueeze(-1) * total; // [B, A, 1]
    let codes = cdf.size()[2];
    target
        .searchsorted(&cdf, false, true, "right", None::<&Tensor>)
        .clamp_max(codes - 1)
        .squeeze_dim(-1)
}
