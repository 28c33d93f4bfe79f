//! High-quality inference (arXiv 2205.16007, section 3.2): each step reveals a fixed
//! number of masked tokens, in as many evaluations as wanted, the purest predictions
//! first. The formulas are in [`purity`]. The last step is an ordinary one.

use tch::{Device, Kind, Tensor};

use super::error::Stopped;
use super::plan::SamplingPlan;
use super::run::{Denoise, Observe, Query, Reporter, Reuse, Start};
use crate::diffusion::guidance::Prediction;
use crate::diffusion::noise::{Draw, Noise};
use crate::diffusion::purity::{self, Revealing};

/// The run from `start` to x_0 int64 `[B, L]`.
pub fn sample(
    plan: &SamplingPlan,
    revealing: Revealing,
    start: Start,
    denoise: &mut Denoise,
    noise: &mut dyn Noise,
    observe: &mut Observe,
) -> Result<Tensor, Stopped> {
    let Start {
        tokens: mut x,
        kept,
    } = start;
    let codes = plan.schedule.codes();
    let counts = match &kept {
        None => plan.counts.clone(),
        Some(kept) => plan.reveal_counts(most_true(&kept.logical_not())),
    };
    // Masked tokens of the image that has most: every evaluation takes as many from each.
    let mut open = most_true(&x.eq(codes));
    let times = plan.times(x.device());
    let mut ask = |i: usize, x: &Tensor| {
        denoise(Query {
            x_t: x,
            t: &times.narrow(0, i as i64, 1),
            positions: None,
            null: plan.asks_null(i),
            reuse: Reuse::Nothing,
        })
    };
    let steps = &plan.steps;
    let mut reporter = Reporter { observe, steps };
    let mut calls = 0;
    for (i, &step) in steps.iter().enumerate() {
        let before = x.shallow_clone();
        let mut first: Option<Prediction> = None;
        if step.to >= 0 {
            let evaluations = purity::evaluations(counts[i], revealing.tokens_per_evaluation);
            for count in evaluations {
                let call = calls;
                calls += 1;
                if open == 0 {
                    continue;
                }
                open = open.saturating_sub(count);
                let prediction = ask(i, &x);
                x = reveal(plan, revealing, &prediction, &x, count, noise, call);
                first.get_or_insert(prediction);
            }
        } else if counts[i] > 0 || open > 0 || !plan.rule.skips_idle_end(plan) {
            let prediction = ask(i, &x);
            let next = plan.rule.reverse(plan, step, &prediction, &x, noise, calls);
            calls += 1;
            x = match &kept {
                Some(kept) => x.where_self(kept, &next),
                None => next,
            };
            first = Some(prediction);
        }
        reporter.step(i, &before, &x, &|| first.as_ref().map(|p| plan.entropy(p)))?;
    }
    Ok(x)
}

/// `x` `[B, L]` with `count` masked tokens of each image revealed: candidates drawn
/// everywhere enter at the positions that purity chooses.
fn reveal(
    plan: &SamplingPlan,
    revealing: Revealing,
    prediction: &Prediction,
    x: &Tensor,
    count: usize,
    noise: &mut dyn Noise,
    call: usize,
) -> Tensor {
    let masked = x.eq(plan.schedule.codes()); // [B, L]
    let log_p = plan.rule.log_p(prediction, plan); // [B, L, N]
    let scores = purity::scores(&log_p, revealing.purity); // [B, L]
    let sharpened = match revealing.purity {
        Some(r) if r > 0.0 => purity::sharpen(&log_p, &scores, r),
        _ => log_p,
    };
    let candidates = plan.rule.draw(&sharpened, noise, call); // [B, L]
    let exponential = noise.exponential(call, Draw::Position, &x.size());
    let exponential = exponential.to_device(x.device());
    let count = (count as i64).min(plan.tokens());
    let at = purity::choose_positions(&scores, &masked, &exponential, count); // [B, count]
                                                                              // An image with fewer masked positions than that keeps the others.
    let revealed = candidates.where_self(&masked, x);
    x.scatter(1, &at, &revealed.gather(1, &at, false))
}

/// Largest number of true entries of a row of `x` bool `[B, L]`.
fn most_true(x: &Tensor) -> usize {
    let counts = x.sum_dim_intlist(-1, false, Kind::Int64);
    counts.max().to_device(Device::Cpu).int64_value(&[]) as usize
}
