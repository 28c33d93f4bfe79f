//! The reverse process as the two original implementations run it: log-space posterior in
//! f32 over K + 1 classes, Gumbel-max draws, guidance, truncation and times of their own.
//! Token for token what they draw with the same noise.

pub mod diffusers;
mod log_schedule;
mod log_space;
pub mod official;

use tch::{Kind, Tensor};

use crate::diffusion::guidance::Prediction;
use crate::diffusion::noise::{Draw, Noise};
use crate::diffusion::sampler::{
    Denoise, Observe, PlannedStep, Query, Reporter, Reuse, Rule, SamplerError, SamplingPlan, Start,
    Stopped,
};
use crate::diffusion::schedule::Schedule;
use crate::diffusion::truncation::Truncation;

pub use log_schedule::LogSchedule;
pub use log_space::{gumbel_argmax, log_prediction};

/// What the originals do differently from each other.
pub struct Original {
    steps: fn(usize, usize) -> Result<Vec<PlannedStep>, SamplerError>,
    asks_null: fn(f64) -> bool,
    guidance: fn(&Prediction, f64) -> Tensor,
    /// → `[B, L, K + 1]`.
    truncation: fn(&Tensor, Truncation) -> Tensor,
    /// Whether p̂ itself is drawn from at time 0.
    draws_start: bool,
    /// Whether no call is made at time 0 where a table of counts reveals nothing there;
    /// one would draw every token anew.
    skips_idle_end: bool,
}

/// The official code.
pub const OFFICIAL: Original = Original {
    steps: official::steps,
    asks_null: official::asks_null,
    guidance: official::guidance,
    truncation: official::truncation,
    draws_start: false,
    skips_idle_end: true,
};

/// diffusers' `VQDiffusionPipeline`.
pub const DIFFUSERS: Original = Original {
    steps: diffusers::steps,
    asks_null: diffusers::asks_null,
    guidance: diffusers::guidance,
    truncation: diffusers::truncation,
    draws_start: true,
    skips_idle_end: false,
};

impl Original {
    /// log p_θ(x_{t−1} | x_t) of a step: `[B, L, K + 1]`.
    fn log_posterior(
        &self,
        logs: &LogSchedule,
        step: PlannedStep,
        log_p: Tensor,
        x: &Tensor,
    ) -> Tensor {
        if self.draws_start && step.from == 0 {
            return log_p;
        }
        let t = Tensor::full([x.size()[0]], step.from, (Kind::Int64, x.device()));
        logs.q_posterior(&log_p, x, &t)
    }
}

impl Rule for Original {
    fn steps(&self, steps: usize, plan: &SamplingPlan) -> Result<Vec<PlannedStep>, SamplerError> {
        (self.steps)(steps, plan.schedule.timesteps())
    }

    fn is_exact(&self) -> bool {
        false
    }

    fn asks_null(&self, guidance: f64) -> bool {
        (self.asks_null)(guidance)
    }

    fn mask_share(&self, _: &Schedule) -> f64 {
        1.0
    }

    /// The originals reveal fixed counts in the full sampler only.
    fn counts_by_time(
        &self,
        steps: usize,
        plan: &SamplingPlan,
        tokens: usize,
    ) -> Option<Vec<usize>> {
        let limit = plan.revealing?.tokens_per_evaluation;
        (steps >= plan.schedule.timesteps())
            .then(|| official::n_sample(steps, tokens, limit))
            .flatten()
    }

    /// In the full sampler, the only one where the original knows counts.
    fn skips_idle_end(&self, plan: &SamplingPlan) -> bool {
        self.skips_idle_end && plan.steps.len() == plan.schedule.timesteps()
    }

    fn p(&self, prediction: &Prediction, plan: &SamplingPlan) -> Tensor {
        self.log_p(prediction, plan).exp()
    }

    fn log_p(&self, prediction: &Prediction, plan: &SamplingPlan) -> Tensor {
        (self.truncation)(&(self.guidance)(prediction, plan.guidance), plan.truncation)
    }

    fn draw(&self, log_p: &Tensor, noise: &mut dyn Noise, call: usize) -> Tensor {
        let u = noise.uniform(call, Draw::Code, &log_p.size());
        gumbel_argmax(log_p, &u.to_device(log_p.device()).to_kind(Kind::Float))
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
        let logs = LogSchedule::new(&plan.schedule, x.device());
        let log_p = self.log_p(prediction, plan);
        self.draw(&self.log_posterior(&logs, step, log_p, x), noise, call)
    }

    /// Asks about every position at every step.
    fn sample(
        &self,
        plan: &SamplingPlan,
        start: Start,
        denoise: &mut Denoise,
        noise: &mut dyn Noise,
        observe: &mut Observe,
    ) -> Result<Tensor, Stopped> {
        let Start {
            tokens: mut x,
            kept,
        } = start;
        let logs = LogSchedule::new(&plan.schedule, x.device());
        let times = plan.times(x.device());
        let steps = plan.steps();
        let mut reporter = Reporter { observe, steps };
        for (i, &step) in steps.iter().enumerate() {
            let before = x.shallow_clone();
            let prediction = denoise(Query {
                x_t: &x,
                t: &times.narrow(0, i as i64, 1),
                positions: None,
                null: plan.asks_null(i),
                reuse: Reuse::Nothing,
            });
            let log_p = self.log_p(&prediction, plan);
            let next = self.draw(&self.log_posterior(&logs, step, log_p, &x), noise, i);
            x = match &kept {
                Some(kept) => x.where_self(kept, &next),
                None => next,
            };
            reporter.step(i, &before, &x, &|| Some(plan.entropy(&prediction)))?;
        }
        Ok(x)
    }
}
