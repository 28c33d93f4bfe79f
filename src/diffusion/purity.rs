//! Fixed-count revealing with the purity prior: high-quality inference of
//! Improved VQ-Diffusion (arXiv 2205.16007, section 3.2).
//!
//! q(x_s = M | x_t = M, x_0) does not depend on x_0 or the position, so *which*
//! masked positions are revealed at a step is free: this mode reveals a fixed
//! number, preferring positions whose prediction is pure.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::schedule::Schedule;
use super::LOG_ZERO;

/// How masked positions are revealed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revealing {
    /// `Some(r)`: positions are drawn in proportion to their purity max_k p̂_k and
    /// the prediction is sharpened to p̂^(1 + r·purity) (official `prior_rule` 2 with
    /// `prior_weight` r ≥ 0); `None`: all masked positions alike (`prior_rule` 1).
    pub purity: Option<f64>,
    /// At most this many tokens an evaluation (official `prior_ps`).
    pub tokens_per_evaluation: usize,
}

impl Revealing {
    /// What is asked for by a purity weight, a limit of tokens, or both; `None` by neither.
    pub fn asked(purity: Option<f64>, tokens: Option<usize>) -> Option<Self> {
        (purity.is_some() || tokens.is_some()).then(|| Revealing {
            purity,
            tokens_per_evaluation: tokens.unwrap_or(usize::MAX),
        })
    }
}

/// How many tokens each step of a plan reveals, for any T and L: the course of the
/// expected number of masked tokens, L·c̄, rounded. `times` are the (from, to)
/// pairs of times that follow each other; the last step, to −1, reveals what is left by its own rule.
pub fn reveal_counts(schedule: &Schedule, times: &[(i64, i64)], tokens: usize) -> Vec<usize> {
    let first = times
        .first()
        .map_or(1.0, |&(from, _)| schedule.at(from).mask);
    let masked_at = |t: i64| (tokens as f64 * schedule.at(t).mask / first).round() as usize;
    times
        .iter()
        .map(|&(from, to)| masked_at(from).saturating_sub(masked_at(to)))
        .collect()
}

/// max_k p̂_k of every position, relative to the image's largest: `log_p`
/// `[B, L, N]` → `[B, L]` in 0…1. All ones without purity.
pub fn scores(log_p: &Tensor, purity: Option<f64>) -> Tensor {
    let largest = log_p.amax([-1], false).exp().clamp(0.0, 1.0); // [B, L]
    match purity {
        Some(_) => &largest / (largest.amax([-1], true) + 1e-10),
        None => largest.ones_like(),
    }
}

/// p̂^(1 + r·score), renormalised, as logs clamped to −70…0: `log_p` `[B, L, N]`,
/// `scores` `[B, L]`.
pub fn sharpen(log_p: &Tensor, scores: &Tensor, weight: f64) -> Tensor {
    let exponent = (scores * weight + 1.0).unsqueeze(-1); // [B, L, 1]
    (exponent * log_p)
        .softmax(-1, None::<Kind>)
        .log()
        .clamp(LOG_ZERO, 0.0)
}

/// How many of the `missing` tokens one evaluation reveals: at most `limit`, but a
/// single leftover is taken along.
pub fn batch_of(missing: usize, limit: usize) -> usize {
    let count = missing.min(limit);
    if missing - count == 1 {
        missing
    } else {
        count
    }
}

/// How many tokens each evaluation of a step reveals that has `missing` to reveal.
pub fn evaluations(mut missing: usize, limit: usize) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let count = batch_of(missing, limit);
        missing -= count;
        (count > 0).then_some(count)
    })
}

/// `count` masked positions of each image, without replacement and in proportion
/// to their scores: the largest of score / e, `exponential` e ~ Exp(1) `[B, L]`.
/// `scores` `[B, L]`, `masked` bool `[B, L]` → int64 `[B, count]`, best first.
pub fn choose_positions(
    scores: &Tensor,
    masked: &Tensor,
    exponential: &Tensor,
    count: i64,
) -> Tensor {
    // Scores that vanish everywhere count as equal.
    let vanish = scores.sum(Kind::Float).lt(1e-6).to_kind(Kind::Float);
    let scores = scores + vanish;
    // Below every masked position, even one of score 0 (and no 0 / 0).
    let keys = (scores / exponential).masked_fill(&masked.logical_not(), -1.0);
    let (_, positions) = keys.topk(count, -1, true, true);
    positions
}
