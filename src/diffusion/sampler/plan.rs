//! A run with every choice made, and what a rule decides about it.

use tch::{Device, Tensor};

use super::error::{SamplerError, Stopped};
use super::order::RevealOrder;
use super::run::{Denoise, Observe, Start};
use super::times::{stepping, PlannedStep, Times};
use crate::diffusion::guidance::{entropy, Prediction};
use crate::diffusion::noise::Noise;
use crate::diffusion::purity::{reveal_counts, Revealing};
use crate::diffusion::schedule::Schedule;
use crate::diffusion::truncation::Truncation;

/// Whose reverse process a run follows: the exact one or an original's.
pub trait Rule: Sync {
    /// The steps of a run of `steps` network evaluations, 1…T.
    fn steps(&self, steps: usize, plan: &SamplingPlan) -> Result<Vec<PlannedStep>, SamplerError>;

    /// Whether the paper's process is followed, which holds between any two times and with
    /// any prediction of x̂_0.
    fn is_exact(&self) -> bool;

    /// Whether guidance of scale w asks about the null condition at all.
    fn asks_null(&self, guidance: f64) -> bool;

    /// Share of masks in x_T; the rest are uniform codes.
    fn mask_share(&self, schedule: &Schedule) -> f64;

    /// Tokens that fixed-count mode reveals at each time index in runs of `steps` steps,
    /// where the rule has a table of its own.
    fn counts_by_time(
        &self,
        steps: usize,
        plan: &SamplingPlan,
        tokens: usize,
    ) -> Option<Vec<usize>>;

    /// Whether fixed-count mode makes no call at a last step that has nothing to reveal.
    fn skips_idle_end(&self, plan: &SamplingPlan) -> bool;

    /// p(x̂_0), guided and truncated but not renormalised: `[B, A, K]` or `[B, A, K + 1]`.
    fn p(&self, prediction: &Prediction, plan: &SamplingPlan) -> Tensor;

    /// log of [`p`](Self::p).
    fn log_p(&self, prediction: &Prediction, plan: &SamplingPlan) -> Tensor;

    /// A class of `log_p` `[B, L, N]` for every position → int64 `[B, L]`; `call` counts
    /// the network evaluations of the run.
    fn draw(&self, log_p: &Tensor, noise: &mut dyn Noise, call: usize) -> Tensor;

    /// One reverse step at all positions of `x` `[B, L]` → int64 `[B, L]`.
    fn reverse(
        &self,
        plan: &SamplingPlan,
        step: PlannedStep,
        prediction: &Prediction,
        x: &Tensor,
        noise: &mut dyn Noise,
        call: usize,
    ) -> Tensor;

    /// The whole run, where the schedule's course and not counts decides what is revealed.
    fn sample(
        &self,
        plan: &SamplingPlan,
        start: Start,
        denoise: &mut Denoise,
        noise: &mut dyn Noise,
        observe: &mut Observe,
    ) -> Result<Tensor, Stopped>;
}

/// A run with every choice made: with model and noise it decides the tokens.
pub struct SamplingPlan {
    pub(in crate::diffusion) rule: &'static dyn Rule,
    pub(in crate::diffusion) schedule: Schedule,
    pub(in crate::diffusion) steps: Vec<PlannedStep>,
    pub(in crate::diffusion) times: Times,
    pub(in crate::diffusion) order: RevealOrder,
    /// Guidance scale w.
    pub(in crate::diffusion) guidance: f64,
    /// Visible shares ā from which to which guidance is applied.
    pub(in crate::diffusion) guidance_span: [f64; 2],
    /// Steps after each full evaluation that are local.
    pub(in crate::diffusion) local_steps: usize,
    pub(in crate::diffusion) truncation: Truncation,
    pub(in crate::diffusion) revealing: Option<Revealing>,
    /// Tokens revealed at each step in fixed-count mode, in runs that keep no token.
    pub(in crate::diffusion) counts: Vec<usize>,
    /// Whether the first steps are left out.
    pub(in crate::diffusion) partial: bool,
    /// Rows and columns of the tokens.
    pub(in crate::diffusion) grid: [i64; 2],
}

/// Evaluations of the network, those under the null condition counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calls {
    /// At all positions.
    pub full: usize,
    /// At those of a group.
    pub local: usize,
}

impl SamplingPlan {
    /// Tokens L of a picture.
    pub(in crate::diffusion) fn tokens(&self) -> i64 {
        self.grid.iter().product()
    }

    /// The steps that a run makes.
    pub fn steps(&self) -> &[PlannedStep] {
        &self.steps
    }

    /// Whether all steps are full evaluations of the exact process
    /// ([`exact`](super::exact)): no original's rule, no fixed counts, no local steps.
    pub fn has_like_steps(&self) -> bool {
        self.rule.is_exact() && self.revealing.is_none() && !self.local().contains(&true)
    }

    /// Whether the network must also be asked about the null condition, at any step.
    pub fn uses_guidance(&self) -> bool {
        (0..self.steps.len()).any(|i| self.asks_null(i))
    }

    /// Whether step `i` asks the network about the null condition too.
    pub fn asks_null(&self, i: usize) -> bool {
        let [from, to] = self.guidance_span;
        let visible = self.schedule.at(self.steps[i].network).keep;
        self.rule.asks_null(self.guidance) && (from..=to).contains(&visible)
    }

    /// Which steps are evaluated at the positions of their group alone, on the keys and
    /// values of the last full evaluation. None of the first third: there every token tells
    /// all others much. A group does not go on where guidance begins or ends.
    pub fn local(&self) -> Vec<bool> {
        let first = self.steps.len().div_ceil(3);
        let mut since = 0;
        let local = (0..self.steps.len()).map(|i| {
            let alike = i > first && self.asks_null(i) == self.asks_null(i - 1);
            let local = alike && since < self.local_steps;
            since = if local { since + 1 } else { 0 };
            local
        });
        local.collect()
    }

    /// Evaluations of the network, where every step makes one.
    pub fn calls(&self) -> Calls {
        let mut calls = Calls { full: 0, local: 0 };
        for (i, local) in self.local().into_iter().enumerate() {
            let branches = 1 + usize::from(self.asks_null(i));
            match local {
                true => calls.local += branches,
                false => calls.full += branches,
            }
        }
        calls
    }

    /// The network's times of the run, falling.
    pub fn visited(&self) -> Vec<i64> {
        self.steps.iter().map(|step| step.network).collect()
    }

    /// The times to record with a picture, where options and rule do not settle them: those
    /// of the exact rule.
    pub fn recorded(&self) -> Option<Vec<i64>> {
        self.rule.is_exact().then(|| self.visited())
    }

    /// Replaces the times visited by these: a plan as it was
    /// [recorded](Self::recorded).
    ///
    /// # Errors
    ///
    /// Times that do not fall strictly within T−1…0, and another rule.
    pub fn with_visited(self, times: &[i64]) -> Result<Self, SamplerError> {
        let last = self.schedule.timesteps() as i64 - 1;
        let falls = times.windows(2).all(|pair| pair[0] > pair[1]);
        let inside = times.iter().all(|t| (0..=last).contains(t));
        if !(self.rule.is_exact() && falls && inside) {
            return Err(SamplerError::Option {
                option: "plan",
                found: format!("{times:?}"),
                expected: "falling times of the exact rule, from T - 1 at most to 0 at least",
            });
        }
        Ok(self.with_steps(stepping(times)))
    }

    /// Replaces the times visited. A number of steps does not name every plan of the
    /// official fast sampler (T = 10: skips 2 and 3 both make 4 steps).
    pub fn with_steps(mut self, steps: Vec<PlannedStep>) -> Self {
        self.steps = steps;
        self.counts = self.reveal_counts(self.tokens() as usize);
        self
    }

    /// Replaces the number of tokens revealed at each step (by time index, official
    /// `n_sample`) of fixed-count mode, in runs that keep no token.
    pub fn with_reveal_counts(mut self, by_time: &[usize]) -> Self {
        self.counts = self
            .steps
            .iter()
            .map(|step| by_time.get(step.from as usize).copied().unwrap_or(0))
            .collect();
        self
    }

    /// The last part of the run alone, at least one step unless `strength` is 0: of even
    /// times the last round(`strength` · steps) steps, of uneven ones those from the time
    /// on whose noised share is nearest `strength`. A run of less than 1 starts from a
    /// picture ([`start_from`](super::start_from)).
    ///
    /// # Errors
    ///
    /// A strength outside 0…1, or a part of a run that reveals fixed counts.
    pub fn with_strength(mut self, strength: f64) -> Result<Self, SamplerError> {
        if !(0.0..=1.0).contains(&strength) {
            return Err(SamplerError::Option {
                option: "strength",
                found: strength.to_string(),
                expected: "a number from 0 to 1",
            });
        }
        let steps = self.steps.len();
        let run = steps - self.times.skipped(strength, &self.steps, &self.schedule);
        if self.revealing.is_some() && run > 0 && run < steps {
            return Err(SamplerError::Option {
                option: "strength",
                found: strength.to_string(),
                expected: "0 or 1, since revealing fixed counts starts from masks alone",
            });
        }
        self.partial |= run < steps;
        self.steps.drain(..steps - run);
        self.counts.drain(..self.counts.len().min(steps - run));
        Ok(self)
    }

    /// Entropy in nats of the p(x̂_0) that codes are drawn from, guided and truncated:
    /// f32 `[B, A]`.
    pub fn entropy(&self, prediction: &Prediction) -> Tensor {
        entropy(&self.rule.p(prediction, self))
    }

    /// Tokens revealed at each step when `tokens` are to be; none without fixed counts.
    pub(in crate::diffusion) fn reveal_counts(&self, tokens: usize) -> Vec<usize> {
        if self.revealing.is_none() {
            return Vec::new();
        }
        match self.rule.counts_by_time(self.steps.len(), self, tokens) {
            Some(by_time) => {
                let count = |step: &PlannedStep| by_time[step.from as usize];
                self.steps.iter().map(count).collect()
            }
            None => {
                let visited = self.steps.iter().map(|s| s.network);
                let times: Vec<_> = visited.clone().zip(visited.skip(1).chain([-1])).collect();
                reveal_counts(&self.schedule, &times, tokens)
            }
        }
    }

    /// The network's times: int64 `[steps]` on `device`.
    pub(in crate::diffusion) fn times(&self, device: Device) -> Tensor {
        let times: Vec<i64> = self.steps.iter().map(|s| s.network).collect();
        Tensor::from_slice(&times).to_device(device)
    }
}
