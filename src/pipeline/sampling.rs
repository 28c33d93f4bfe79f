//! Runs of a whole model: from what pictures should show to their tokens.

use tch::Tensor;

use super::load::Pipeline;
use super::subject::{ConditionError, Subject};
use crate::diffusion::guidance::Prediction;
use crate::diffusion::sampler::fixed::{self, FixedSteps};
use crate::diffusion::sampler::{self, Observe, Query, Reuse, Stopped};
use crate::diffusion::{HostNoise, SamplingPlan, Start};
use crate::model::ModelConfig;
use crate::torch::runtime;
use crate::transformer::{Condition, KeptKeys};

/// What a run starts from besides noise, and what it leads away from.
#[derive(Default)]
pub struct Edits {
    pub origin: Option<Origin>,
    /// A text that takes the null condition's place in guidance.
    pub negative_prompt: Option<String>,
}

/// A picture to start from.
pub struct Origin {
    /// Its tokens, int64 `[1, L]` on the CPU ([`Pipeline::encode`]).
    pub tokens: Tensor,
    /// The tokens that may change, bool `[1, L]`; all when `None`.
    pub redrawn: Option<Tensor>,
}

/// Steps at fixed places in memory ([`FixedSteps`]) with the condition that they read, for
/// runs of one plan whose steps are alike ([`SamplingPlan::has_like_steps`]) and one number of pictures.
pub struct FixedRun {
    steps: FixedSteps,
    condition: Condition,
}

impl FixedRun {
    /// For conditions of as many rows as `condition` has; `steps` has made none yet.
    pub fn new(steps: FixedSteps, condition: &Condition) -> Self {
        FixedRun {
            steps,
            condition: condition.copy(),
        }
    }

    /// Whether it is for conditions of so many rows.
    pub fn suits(&self, condition: &Condition) -> bool {
        self.condition.rows() == condition.rows()
    }
}

/// Operations of an evaluation that are worth a thread: below, threads wait for each
/// other longer than they work.
const FLOPS_PER_THREAD: f64 = 2e9;

/// Threads to evaluate the denoiser of `model` with on the CPU, of those that libtorch
/// would use.
pub fn useful_threads(model: &ModelConfig) -> i32 {
    let evaluation = 2.0 * model.denoiser.flops(); // with guidance
    let useful = (evaluation / FLOPS_PER_THREAD).ceil();
    f64::from(runtime::threads()).min(useful) as i32
}

impl Pipeline {
    /// The denoiser's condition for `subjects`, with the null condition's rows behind
    /// them if `guidance` is on.
    pub fn condition(
        &self,
        subjects: &[Subject],
        guidance: bool,
    ) -> Result<Condition, ConditionError> {
        let _no_grad = tch::no_grad_guard();
        let null = guidance.then(|| self.conditioner().null()).transpose()?;
        self.condition_against(subjects, null.as_ref())
    }

    /// As [`condition`](Self::condition) for a run of `plan` with `edits`.
    pub fn edited_condition(
        &self,
        subjects: &[Subject],
        plan: &SamplingPlan,
        edits: &Edits,
    ) -> Result<Condition, ConditionError> {
        let _no_grad = tch::no_grad_guard();
        match &edits.negative_prompt {
            Some(negative) if plan.uses_guidance() => {
                let negative = Subject::Text(negative.clone());
                let null = self.conditioner().encode(std::slice::from_ref(&negative))?;
                self.condition_against(subjects, Some(&null))
            }
            _ => self.condition(subjects, plan.uses_guidance()),
        }
    }

    /// `null` is one row of y that guidance leads away from.
    fn condition_against(
        &self,
        subjects: &[Subject],
        null: Option<&Tensor>,
    ) -> Result<Condition, ConditionError> {
        let mut y = self.conditioner().encode(subjects)?; // [B, S, C] or [B]
        if let Some(null) = null {
            y = Tensor::cat(&[&y, &null.expand_as(&y)], 0); // [2B, S, C] or [2B]
        }
        Ok(self.denoiser().condition(&y))
    }

    /// Tokens of one batch: `[B, L]` int64 below K for B `seeds`, with a `condition` made
    /// for the same `plan` and `edits`.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if `observe` breaks.
    pub fn sample_batch(
        &self,
        plan: &SamplingPlan,
        seeds: &[u64],
        edits: &Edits,
        condition: &Condition,
        observe: &mut Observe,
    ) -> Result<Tensor, Stopped> {
        let start = self.start(plan, seeds, edits);
        let mut kept = None;
        let mut denoise = |query: Query| self.predict_reusing(query, condition, &mut kept);
        let mut noise = HostNoise::new(seeds);
        sampler::sample(plan, start, &mut denoise, &mut noise, observe)
    }

    /// As [`sample_batch`](Self::sample_batch), by the steps of `run`, which
    /// suits the condition: the same tokens, on a GPU with few calls.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if `observe` breaks.
    pub fn sample_batch_fixed(
        &self,
        run: &mut FixedRun,
        plan: &SamplingPlan,
        seeds: &[u64],
        edits: &Edits,
        condition: &Condition,
        observe: &mut Observe,
    ) -> Result<Tensor, Stopped> {
        let _no_grad = tch::no_grad_guard();
        run.condition.fill(condition);
        let (steps, condition) = (&mut run.steps, &run.condition);
        let start = self.start(plan, seeds, edits);
        let mut denoise = |query: Query| self.predict(query, condition);
        let mut noise = HostNoise::new(seeds);
        fixed::sample(plan, steps, start, &mut denoise, &mut noise, observe)
    }

    /// The state before the first step, one row per seed, on the model's device.
    pub fn start(&self, plan: &SamplingPlan, seeds: &[u64], edits: &Edits) -> Start {
        let batch = seeds.len() as i64;
        let mut noise = HostNoise::new(seeds);
        let start = match &edits.origin {
            None => sampler::start(plan, batch, &mut noise).into(),
            Some(origin) => {
                let rows = |x: &Tensor| x.expand([batch, -1], false); // [B, L]
                let redrawn = origin.redrawn.as_ref().map(rows);
                sampler::start_from(plan, &rows(&origin.tokens), redrawn.as_ref(), &mut noise)
            }
        };
        start.to_device(self.device())
    }

    /// What the network says at a `query`; a `condition` with the null condition's rows
    /// where the query asks for them.
    pub fn predict(&self, query: Query, condition: &Condition) -> Prediction {
        self.predict_reusing(query, condition, &mut None)
    }

    /// As [`predict`](Self::predict) in a run, whose local evaluations take over what the last
    /// full one `kept`.
    fn predict_reusing(
        &self,
        query: Query,
        condition: &Condition,
        kept: &mut Option<KeptKeys>,
    ) -> Prediction {
        let _no_grad = tch::no_grad_guard();
        let batch = query.x_t.size()[0];
        let first;
        let condition = match query.null || condition.rows() == batch {
            true => condition,
            false => {
                first = condition.first(batch);
                &first
            }
        };
        let Query {
            x_t, t, positions, ..
        } = query;
        let denoiser = self.denoiser();
        let logits = match (query.reuse, positions, kept.as_mut()) {
            (Reuse::Kept { group, first }, Some(positions), Some(kept)) => {
                let wanted = first..first + positions.size()[1];
                denoiser.forward_local(x_t, t, condition, group, wanted, kept)
            }
            (Reuse::Keep, ..) => {
                let (logits, keys) = denoiser.forward_keeping(x_t, t, condition, positions);
                *kept = Some(keys);
                logits
            }
            _ => {
                *kept = None;
                denoiser.forward(x_t, t, condition, positions)
            }
        };
        Prediction {
            conditional: logits.narrow(0, 0, batch),
            unconditional: query.null.then(|| logits.narrow(0, batch, batch)),
        }
    }
}
