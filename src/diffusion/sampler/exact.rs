//! The exact reverse process at any times (arXiv 2111.14822, algorithm 2): draw x̂_0 by
//! inverse CDF, then the three-way choice of [`Posterior`], at just those positions that
//! the choice lets change ([`Activity`]).

use tch::{Device, Kind, Tensor};

use super::activity::{ActiveStep, Activity, Widths};
use super::error::{SamplerError, Stopped};
use super::plan::{Rule, SamplingPlan};
use super::run::{unasked, Denoise, Observe, Query, Reporter, Reuse, Start};
use super::times::PlannedStep;
use crate::diffusion::guidance::{entropy, Prediction};
use crate::diffusion::noise::{Draw, Noise};
use crate::diffusion::posterior::{
    bounds, inverse_cdf, reverse_step, reverse_step_within, Posterior, StepNoise,
};
use crate::diffusion::schedule::Schedule;

/// The rule of the paper: exact posteriors between any times.
pub struct Exact;

impl Rule for Exact {
    fn steps(&self, steps: usize, plan: &SamplingPlan) -> Result<Vec<PlannedStep>, SamplerError> {
        Ok(plan.times.of(steps, &plan.schedule))
    }

    fn is_exact(&self) -> bool {
        true
    }

    fn asks_null(&self, guidance: f64) -> bool {
        (guidance - 1.0).abs() >= 1e-3
    }

    fn mask_share(&self, schedule: &Schedule) -> f64 {
        let prior = schedule.at(schedule.timesteps() as i64 - 1);
        prior.mask / (prior.uniform + prior.mask)
    }

    fn counts_by_time(&self, _: usize, _: &SamplingPlan, _: usize) -> Option<Vec<usize>> {
        None
    }

    fn skips_idle_end(&self, _: &SamplingPlan) -> bool {
        false
    }

    fn p(&self, prediction: &Prediction, plan: &SamplingPlan) -> Tensor {
        let p = prediction.guided(plan.guidance).softmax(-1, Kind::Float);
        plan.truncation.apply(&p)
    }

    fn log_p(&self, prediction: &Prediction, plan: &SamplingPlan) -> Tensor {
        self.p(prediction, plan).log()
    }

    fn draw(&self, log_p: &Tensor, noise: &mut dyn Noise, call: usize) -> Tensor {
        let u = noise.uniform(call, Draw::Code, &log_p.size()[..2]);
        inverse_cdf(&log_p.exp(), &u.to_device(log_p.device()))
    }

    fn reverse(
        &self,
        plan: &SamplingPlan,
        step: PlannedStep,
        prediction: &Prediction,
        x: &Tensor,
        noise: &mut dyn Noise,
        call: usize,
    ) -> Tensor {
        let posterior = Posterior::new(&plan.schedule, step.to, step.from);
        let mut number = |draw| noise.uniform(call, draw, &x.size()).to_device(x.device());
        let noise = StepNoise {
            code: number(Draw::Code),
            choice: number(Draw::Choice),
            replacement: number(Draw::Replacement),
        };
        reverse_step(&posterior, &self.p(prediction, plan), x, &noise)
    }

    fn sample(
        &self,
        plan: &SamplingPlan,
        start: Start,
        denoise: &mut Denoise,
        noise: &mut dyn Noise,
        observe: &mut Observe,
    ) -> Result<Tensor, Stopped> {
        let widths = match start.tokens.device() {
            Device::Cpu => Widths::Own,
            _ => Widths::Few,
        };
        sample(plan, widths, start, denoise, noise, observe)
    }
}

/// The run from `start` to x_0 int64 `[B, L]`, redrawing only the positions that change;
/// `widths` does not change the tokens.
pub fn sample(
    plan: &SamplingPlan,
    widths: Widths,
    start: Start,
    denoise: &mut Denoise,
    noise: &mut dyn Noise,
    observe: &mut Observe,
) -> Result<Tensor, Stopped> {
    let mut redraw =
        |input: &StepInput, null: bool, reuse: Reuse| redraw(plan, input, null, reuse, denoise);
    run(plan, widths, start, &mut redraw, noise, observe)
}

/// What a step reads, on the device of the run.
pub struct StepInput {
    /// x_t int64 `[B, L]`.
    pub tokens: Tensor,
    /// The network's time, int64 `[1]`.
    pub t: Tensor,
    /// The positions to redraw, int64 `[B, A]`.
    pub positions: Tensor,
    /// Their numbers.
    pub noise: StepNoise,
    /// Of the posterior ([`bounds`]), f64 `[3, 2]`.
    pub bounds: Tensor,
}

/// What a step makes.
pub struct Redrawn {
    /// x_s int64 `[B, L]`.
    pub tokens: Tensor,
    /// The p(x̂_0) that it drew from, guided and truncated: f32 `[B, A, K]`.
    pub p: Tensor,
}

/// Makes one step, with the null condition or without.
pub(super) type Redraw<'a> = dyn FnMut(&StepInput, bool, Reuse) -> Redrawn + 'a;

/// One step: a function of `input`, and of what it reuses, which never looks at a value on
/// the host.
pub(super) fn redraw(
    plan: &SamplingPlan,
    input: &StepInput,
    null: bool,
    reuse: Reuse,
    denoise: &mut Denoise,
) -> Redrawn {
    let prediction = denoise(Query {
        x_t: &input.tokens,
        t: &input.t,
        positions: Some(&input.positions),
        null,
        reuse,
    });
    let p = plan.rule.p(&prediction, plan); // [B, A, K]
    let x_t = input.tokens.gather(1, &input.positions, false); // [B, A]
    let x_s = reverse_step_within(&input.bounds, &p, &x_t, &input.noise);
    Redrawn {
        tokens: input.tokens.scatter(1, &input.positions, &x_s),
        p,
    }
}

/// The run whose steps `redraw` makes.
pub(super) fn run(
    plan: &SamplingPlan,
    widths: Widths,
    start: Start,
    redraw: &mut Redraw,
    noise: &mut dyn Noise,
    observe: &mut Observe,
) -> Result<Tensor, Stopped> {
    let Start {
        tokens: mut x,
        kept,
    } = start;
    let device = x.device();
    let posteriors: Vec<_> = plan
        .steps
        .iter()
        .map(|s| Posterior::new(&plan.schedule, s.to, s.from))
        .collect();
    let masked = x.eq(plan.schedule.codes());
    let mut reveal = plan.order.reveal(plan.grid, masked.size()[0], noise);
    let activity = Activity::new(
        &posteriors,
        &masked,
        kept.as_ref(),
        reveal.as_mut(),
        noise,
        widths,
    );
    let (times, bounds) = (plan.times(device), bounds(&posteriors, device));
    let steps = &plan.steps;
    let mut reporter = Reporter { observe, steps };
    let local = plan.local();
    let mut group: Option<Group> = None;
    for i in 0..steps.len() {
        let before = x.shallow_clone();
        let mut asked = None;
        if let Some(ActiveStep { positions, noise }) = activity.at(i) {
            let first = group.as_ref().and_then(|group| group.first(i));
            if first.is_none() {
                group = Group::new(i, &local, &activity);
            }
            let reuse = match (&group, first) {
                (None, _) => Reuse::Nothing,
                (Some(_), None) => Reuse::Keep,
                (Some(group), Some(first)) => Reuse::Kept {
                    group: &group.positions,
                    first,
                },
            };
            let input = StepInput {
                tokens: x,
                t: times.narrow(0, i as i64, 1),
                positions: positions.shallow_clone(),
                noise: noise.shallow_clone(),
                bounds: bounds.get(i as i64),
            };
            let redrawn = redraw(&input, plan.asks_null(i), reuse);
            x = redrawn.tokens;
            asked = Some((positions, redrawn.p));
        }
        reporter.step(i, &before, &x, &|| {
            let (positions, p) = asked.as_ref()?;
            Some(unasked(&x).scatter(1, positions, &entropy(p)))
        })?;
    }
    Ok(x)
}

/// What a full evaluation and the local ones after it redraw.
struct Group {
    /// Of all of them side by side, int64 `[B, G]`.
    positions: Tensor,
    /// The local steps, each with the first of its columns.
    local: Vec<(usize, i64)>,
}

impl Group {
    /// That of the full evaluation at step `full`; none where no local one follows that
    /// redraws anything.
    fn new(full: usize, local: &[bool], activity: &Activity) -> Option<Self> {
        let following = (full + 1..local.len()).take_while(|&i| local[i]);
        let mut parts = vec![activity.at(full)?.positions.shallow_clone()];
        let mut group = Vec::new();
        let mut columns = parts[0].size()[1];
        for i in following {
            if let Some(step) = activity.at(i) {
                group.push((i, columns));
                columns += step.positions.size()[1];
                parts.push(step.positions.shallow_clone());
            }
        }
        (!group.is_empty()).then(|| Group {
            positions: Tensor::cat(&parts, 1),
            local: group,
        })
    }

    /// The first column of step `i`, if it is one of the local ones.
    fn first(&self, i: usize) -> Option<i64> {
        let found = self.local.iter().find(|(step, _)| *step == i);
        found.map(|&(_, first)| first)
    }
}
