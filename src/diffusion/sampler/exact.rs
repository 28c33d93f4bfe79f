//! The exact reverse process at any times (arXiv 2111.14822, algorithm 2): draw x̂_0 by
//! inverse CDF, then the three-way choice of [`Posterior`], at just those positions that
//! the choice lets change.
//!
//! Whether a position stays is decided by one uniform number against a threshold
//! that depends only on whether it is masked, and a masked position leaves the
//! mask exactly when it does not stay. So the positions to redraw at every step
//! are known before the network runs ([`Activity`]), and the network's last block
//! and head are needed at those alone.

use tch::{Device, Kind, Tensor};

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
use crate::torch::host::values;

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
    let activity = Activity::new(&posteriors, &masked, kept.as_ref(), noise, widths);
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

/// How many positions A the steps are evaluated at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Widths {
    /// As many as the step redraws.
    Own,
    /// The next of few sizes, so that a GPU's libraries plan for few shapes: 16, 24, 32,
    /// 48, 64, 96, …, at most L. A position asked about twice gives the same token.
    Few,
}

impl Widths {
    /// A for `active` of `length` positions.
    pub fn of(self, active: usize, length: usize) -> usize {
        match self {
            Widths::Own => active,
            Widths::Few => (4..)
                .flat_map(|k| [2usize << (k - 1), 3 << (k - 1)])
                .find(|&width| width >= active)
                .map_or(length, |width| width.min(length)),
        }
    }
}

/// What each step of a run redraws, and with which numbers: found from the noise alone,
/// and brought to the device at once.
pub struct Activity {
    /// None where no token changes.
    steps: Vec<Option<ActiveStep>>,
}

/// The part of the tokens that a step redraws.
pub struct ActiveStep {
    /// Positions int64 `[B, A]`. Rows with fewer than A of them are filled with the row's
    /// first one, or with a position that stays.
    pub positions: Tensor,
    /// The numbers of these positions, `[B, A]` each.
    pub noise: StepNoise,
}

impl Activity {
    /// `masked` bool `[B, L]`: where x_T is the mask, on the device of the run; positions
    /// that are `kept` bool `[B, L]` stay.
    pub fn new(
        posteriors: &[Posterior],
        masked: &Tensor,
        kept: Option<&Tensor>,
        noise: &mut dyn Noise,
        widths: Widths,
    ) -> Self {
        let (device, shape) = (masked.device(), masked.size());
        let (batch, length) = (shape[0], shape[1] as usize);
        let kept = kept.map(|kept| kept.to_device(Device::Cpu));
        let mut masked = values::<bool>(masked);
        let mut positions: Vec<i64> = Vec::new();
        let mut numbers: Vec<Tensor> = Vec::new();
        let mut sizes = Vec::with_capacity(posteriors.len());
        for (i, posterior) in posteriors.iter().enumerate() {
            let [code, choice, replacement] = [Draw::Code, Draw::Choice, Draw::Replacement]
                .map(|draw| noise.uniform(i, draw, &shape));
            // Below every threshold: a kept token stays.
            let choice = match &kept {
                Some(kept) => choice.masked_fill(kept, -1.0),
                None => choice,
            };
            let rows = active(posterior, &mut masked, &values::<f64>(&choice), length);
            let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
            let size = match longest {
                0 => 0,
                longest => widths.of(longest, length) as i64,
            };
            sizes.push(size);
            if size > 0 {
                let first = positions.len();
                positions.extend(rows.iter().flat_map(|row| filled(row, size as usize)));
                let at = Tensor::from_slice(&positions[first..]).view([batch, size]);
                let at_positions = |x: &Tensor| x.gather(1, &at, false).flatten(0, 1);
                numbers.extend([&code, &choice, &replacement].map(at_positions));
            }
        }
        if numbers.is_empty() {
            return Activity {
                steps: sizes.iter().map(|_| None).collect(),
            };
        }
        let positions = Tensor::from_slice(&positions).to_device(device);
        let numbers = Tensor::cat(&numbers, 0).to_device(device);
        let mut first = 0;
        let steps = sizes.into_iter().map(|size| {
            let part = |x: &Tensor, at: i64| x.narrow(0, at, batch * size).view([batch, size]);
            let active = (size > 0).then(|| ActiveStep {
                positions: part(&positions, first),
                noise: StepNoise {
                    code: part(&numbers, 3 * first),
                    choice: part(&numbers, 3 * first + batch * size),
                    replacement: part(&numbers, 3 * first + 2 * batch * size),
                },
            });
            first += batch * size;
            active
        });
        Activity {
            steps: steps.collect(),
        }
    }

    /// What step `i` redraws; `None` if nothing.
    pub fn at(&self, i: usize) -> Option<&ActiveStep> {
        self.steps[i].as_ref()
    }

    /// Steps that redraw anything: the network evaluations of the run.
    pub fn evaluations(&self) -> usize {
        self.steps.iter().flatten().count()
    }
}

/// The positions of every image that a step lets change, by its `choice` `[B · L]`; those
/// of them that were `masked` `[B · L]` are no longer.
fn active(
    posterior: &Posterior,
    masked: &mut [bool],
    choice: &[f64],
    length: usize,
) -> Vec<Vec<i64>> {
    let moves = |masked: &mut bool, u: f64| {
        let kind = if *masked {
            posterior.masked
        } else {
            posterior.differs
        };
        let moves = u >= kind.stay;
        *masked &= !moves;
        moves
    };
    masked
        .chunks_mut(length)
        .zip(choice.chunks(length))
        .map(|(masked, choice)| {
            let tokens = (0..).zip(masked).zip(choice);
            tokens
                .filter_map(|((position, masked), &u)| moves(masked, u).then_some(position))
                .collect()
        })
        .collect()
}

/// `row` filled up to `size` with its first entry (position 0 if it has none): redrawing
/// a position twice with the same numbers gives the same token.
fn filled(row: &[i64], size: usize) -> impl Iterator<Item = i64> + '_ {
    let filler = row.first().copied().unwrap_or(0);
    let fill = std::iter::repeat_n(filler, size - row.len());
    row.iter().copied().chain(fill)
}
