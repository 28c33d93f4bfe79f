//! The reverse step as a three-way choice: given x̂_0 ~ p_θ(x̂_0 | x_t), draw
//! x_s ~ q(x_s | x_t, x̂_0) for any earlier time s (reference form: arXiv 2111.14822
//! eq. 4 with the strided kernel). Mixing over x̂_0 makes the two draws together
//! an exact sample of p_θ(x_s | x_t).

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

/// q(x_s | x_t, x̂_0) for one pair of times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReverseKernel {
    /// x_t is the mask.
    pub masked: Choice,
    /// x_t is a code other than x̂_0.
    pub differs: Choice,
    /// x_t is x̂_0; `take` is 0, since taking x̂_0 is staying.
    pub agrees: Choice,
}

impl ReverseKernel {
    /// The kernel from `t` back to `s` (−1 ≤ s < t ≤ T−1).
    pub fn new(schedule: &Schedule, t: i64, s: i64) -> Self {
        let (now, then) = (schedule.at(t), schedule.at(s));
        let codes = schedule.codes() as f64;
        // The noise that leads from s to t.
        let a = now.keep / then.keep;
        let c = 1.0 - (1.0 - now.mask) / (1.0 - then.mask);
        let kb = (now.uniform - a * then.uniform) / (1.0 - then.mask);
        let (b, b_then, b_now) = (kb / codes, then.uniform / codes, now.uniform / codes);

        let masked = if now.mask > 0.0 {
            normalised(then.mask, c * then.keep, c * then.uniform, now.mask)
        } else {
            Choice::STAY
        };
        let (differs, agrees) = if now.uniform > 0.0 {
            (
                normalised(a * b_then, b * then.keep, kb * b_then, b_now),
                normalised(
                    a * then.keep + a * b_then + b * then.keep,
                    0.0,
                    kb * b_then,
                    now.keep + b_now,
                ),
            )
        } else {
            // Without replacement a visible token is the original one; the
            // general form is 0/0 there.
            (Choice::STAY, Choice::STAY)
        };
        ReverseKernel {
            masked,
            differs,
            agrees,
        }
    }
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
