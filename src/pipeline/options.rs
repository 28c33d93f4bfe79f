//! Everything that decides how pictures are made, besides the model and what they show.

use serde::{Deserialize, Serialize};

use super::canvas::EditError;
use super::edit::Edit;
use super::subject::{ConditionError, Request, Subject};
use crate::codec::Rounding;
use crate::diffusion::purity::Revealing;
use crate::diffusion::sampler::SamplerError;
use crate::diffusion::truncation::Truncation;
use crate::diffusion::{RevealOrder, ReverseRule, SamplerConfig, SamplingPlan, Times};
use crate::model::ModelConfig;
use crate::torch::device::Precision;
use crate::transformer::Conditioning;

/// How pictures are made. [`PictureOptions::usual`] has the values that suit a model; the
/// methods change one each.
#[derive(Clone, Debug)]
pub struct PictureOptions {
    /// Seed of the first picture; picture i has seed + i.
    pub seed: u64,
    /// Pictures of each subject.
    pub count: usize,
    /// Pictures made and decoded together on a GPU, at least 1: it bounds the memory. On
    /// the CPU they are made one after the other.
    pub batch_size: usize,
    /// Reverse steps, 1 to T.
    pub steps: usize,
    /// Which times the steps visit.
    pub times: Times,
    /// Which masked tokens are revealed together.
    pub order: RevealOrder,
    /// Guidance scale; 1 is none.
    pub guidance: f64,
    /// Guidance only while the visible share of the tokens is between these two.
    pub guidance_span: Option<[f64; 2]>,
    /// Steps after each full evaluation of the network that are local, an approximation; 0 has
    /// none.
    pub local_steps: usize,
    /// Which codes may be drawn; what suits the guidance scale when `None`.
    pub truncation: Option<Truncation>,
    /// Fixed-count revealing instead of the schedule's own course.
    pub revealing: Option<Revealing>,
    /// Whose rules the reverse step follows.
    pub rule: ReverseRule,
    /// How channel values become 8 bits.
    pub rounding: Rounding,
    /// Number format of the codec's decoder.
    pub decoding: Precision,
    /// What the pictures should not show: its text takes the place of the null text in
    /// guidance.
    pub negative_prompt: Option<String>,
    /// The picture to start from.
    pub edit: Option<Edit>,
    /// Truncation rates that suit the model without guidance, and with it.
    usual_truncation: [f64; 2],
    /// The times of a recorded run.
    visited: Option<Vec<i64>>,
}

/// Everything in a PNG that repeats it, besides prompt, seed and model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureSettings {
    pub sampler: SamplerConfig,
    pub rounding: Rounding,
    pub dtype: Precision,
    /// Number format of the codec's decoder.
    #[serde(default = "usual_decoding", skip_serializing_if = "is_usual_decoding")]
    pub decoding: Precision,
    /// The times that were visited, falling: the plan itself, where the rule does not say
    /// it. Pictures of earlier versions have none; their plan follows from the options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Vec<i64>>,
}

fn usual_decoding() -> Precision {
    Precision::F32
}

fn is_usual_decoding(precision: &Precision) -> bool {
    *precision == usual_decoding()
}

/// Why pictures cannot be made with some options.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum OptionsError {
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error("guidance is {guidance}: {}", ConditionError::Guidance)]
    Unconditional { guidance: f64 },
    #[error("guidance is {guidance}: {}", ConditionError::NullClass)]
    NullClass { guidance: f64 },
    #[error("negative prompt: the model reads no text")]
    NegativePrompt,
    #[error("negative prompt: guidance is {guidance}, which leads away from nothing")]
    NothingToLeadFrom { guidance: f64 },
    #[error(
        "local steps is {local_steps}, expected 0: the model's feed-forward part or a norm mixes \
         positions, so no part of them can be evaluated alone"
    )]
    LocalSteps { local_steps: usize },
    #[error("seed is {seed}, which leaves no room for {pictures} pictures below 2^64")]
    Seed { seed: u64, pictures: u64 },
}

impl PictureOptions {
    /// What suits `model` ([`ModelConfig::usual_steps`] and its neighbours): one picture
    /// of each subject by the exact rule, from seed 0.
    pub fn usual(model: &ModelConfig) -> Self {
        PictureOptions {
            seed: 0,
            count: 1,
            batch_size: 8,
            steps: model.usual_steps(),
            times: model.usual_times(),
            order: model.usual_order(),
            guidance: model.usual_guidance(),
            guidance_span: model.usual_guidance_span(),
            local_steps: 0,
            truncation: None,
            revealing: None,
            rule: ReverseRule::Exact,
            rounding: Rounding::Nearest,
            decoding: usual_decoding(),
            negative_prompt: None,
            edit: None,
            usual_truncation: [model.usual_truncation(1.0), model.usual_truncation(2.0)],
            visited: None,
        }
    }

    /// What `settings` say.
    pub(super) fn of(settings: &PictureSettings) -> Self {
        let SamplerConfig {
            steps,
            times,
            order,
            guidance,
            guidance_span,
            local_steps,
            truncation,
            revealing,
            rule,
        } = settings.sampler.clone();
        PictureOptions {
            seed: 0,
            count: 1,
            batch_size: 1,
            steps,
            times,
            order,
            guidance,
            guidance_span,
            local_steps,
            truncation: Some(truncation),
            revealing,
            rule,
            rounding: settings.rounding,
            decoding: settings.decoding,
            negative_prompt: None,
            edit: None,
            usual_truncation: [1.0; 2],
            visited: settings.plan.clone(),
        }
    }

    /// Seed of the first picture; picture i has seed + i.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Pictures of each subject.
    pub fn count(mut self, count: usize) -> Self {
        self.count = count;
        self
    }

    /// Pictures made and decoded together on a GPU.
    pub fn batch_size(mut self, pictures: usize) -> Self {
        self.batch_size = pictures;
        self
    }

    /// Reverse steps, 1 to T.
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// Which times the steps visit.
    pub fn times(mut self, times: Times) -> Self {
        self.times = times;
        self
    }

    /// Which masked tokens are revealed together; any but the independent order is an
    /// approximation.
    pub fn order(mut self, order: RevealOrder) -> Self {
        self.order = order;
        self
    }

    /// Guidance scale; 1 is none.
    pub fn guidance(mut self, scale: f64) -> Self {
        self.guidance = scale;
        self
    }

    /// Guidance only while the visible share of the tokens is between these two.
    pub fn guidance_span(mut self, span: [f64; 2]) -> Self {
        self.guidance_span = Some(span);
        self
    }

    /// Evaluates so many steps after each full evaluation of the network at the positions of
    /// these steps alone, on the keys and values of the others as they were: faster, and an
    /// approximation.
    pub fn local_steps(mut self, steps: usize) -> Self {
        self.local_steps = steps;
        self
    }

    /// Which codes may be drawn.
    pub fn truncation(mut self, truncation: Truncation) -> Self {
        self.truncation = Some(truncation);
        self
    }

    /// Reveals a fixed number of tokens a step (high-quality inference), in an order of its own.
    pub fn revealing(mut self, revealing: Revealing) -> Self {
        self.revealing = Some(revealing);
        self.order = RevealOrder::Independent;
        self
    }

    /// Whose rules the reverse step follows. An original's has times of its own and
    /// guides throughout.
    pub fn rule(mut self, rule: ReverseRule) -> Self {
        self.rule = rule;
        if rule != ReverseRule::Exact {
            self.times = Times::Even;
            self.order = RevealOrder::Independent;
            self.guidance_span = None;
            self.local_steps = 0;
        }
        self
    }

    /// How channel values become 8 bits.
    pub fn rounding(mut self, rounding: Rounding) -> Self {
        self.rounding = rounding;
        self
    }

    /// Number format of the codec's decoder: bf16 takes half the time of f32 on CPUs that
    /// multiply it.
    pub fn decoding(mut self, precision: Precision) -> Self {
        self.decoding = precision;
        self
    }

    /// What the pictures should not show.
    pub fn negative_prompt(mut self, prompt: impl Into<String>) -> Self {
        self.negative_prompt = Some(prompt.into());
        self
    }

    /// Starts from a picture.
    pub fn edit(mut self, edit: Edit) -> Self {
        self.edit = Some(edit);
        self
    }

    /// The sampler's part, with every choice made.
    pub fn sampler(&self) -> SamplerConfig {
        let guided = usize::from(self.guidance != 1.0);
        let usual = Truncation::TopP(self.usual_truncation[guided]);
        let truncation = match self.truncation.unwrap_or(usual) {
            // The official top1.0r drops codes by rounding alone; it is kept as it is.
            Truncation::TopP(1.0) if self.rule != ReverseRule::Official => Truncation::Off,
            truncation => truncation,
        };
        SamplerConfig {
            steps: self.steps,
            times: self.times,
            order: self.order,
            guidance: self.guidance,
            guidance_span: self.guidance_span,
            local_steps: self.local_steps,
            truncation,
            revealing: self.revealing,
            rule: self.rule,
        }
    }

    /// What a picture made by a denoiser in `dtype` is repeated with.
    pub fn settings(&self, dtype: Precision) -> PictureSettings {
        PictureSettings {
            sampler: self.sampler(),
            rounding: self.rounding,
            decoding: self.decoding,
            dtype,
            plan: None,
        }
    }

    /// The run plan for `model`, if it can be sampled so.
    ///
    /// # Errors
    ///
    /// An option outside its range, guidance or a negative prompt that the model has no
    /// use for. What is asked of a picture to start from is checked by
    /// [`Edit::canvas`].
    pub fn plan(&self, model: &ModelConfig) -> Result<SamplingPlan, OptionsError> {
        let config = self.sampler();
        let guidance = config.guidance;
        let unconditional = model.denoiser.condition == Conditioning::Unconditional;
        if unconditional && config.uses_guidance() {
            return Err(OptionsError::Unconditional { guidance });
        }
        let condition = &model.denoiser.condition;
        let has_null = model.text.is_some() || condition.null_class().is_some();
        if !unconditional && !has_null && config.uses_guidance() {
            return Err(OptionsError::NullClass { guidance });
        }
        if self.negative_prompt.is_some() && model.text.is_none() {
            return Err(OptionsError::NegativePrompt);
        }
        if self.negative_prompt.is_some() && !config.uses_guidance() {
            return Err(OptionsError::NothingToLeadFrom { guidance });
        }
        let local_steps = self.local_steps;
        if local_steps > 0 && !model.denoiser.treats_tokens_alone() {
            return Err(OptionsError::LocalSteps { local_steps });
        }
        let plan = config.plan(&model.schedule(), model.denoiser.grid)?;
        let plan = match &self.edit {
            Some(edit) => plan.with_strength(edit.record().strength)?,
            None => plan,
        };
        Ok(match &self.visited {
            Some(times) => plan.with_visited(times)?,
            None => plan,
        })
    }

    /// `count` pictures of each of `subjects`, with seeds that count up.
    ///
    /// # Errors
    ///
    /// Seeds that would pass 2^64.
    pub fn requests<S>(&self, subjects: &[S]) -> Result<Vec<Request>, OptionsError>
    where
        S: Clone + Into<Subject>,
    {
        let pictures = (subjects.len() as u64).saturating_mul(self.count as u64);
        if self.seed.checked_add(pictures).is_none() {
            let seed = self.seed;
            return Err(OptionsError::Seed { seed, pictures });
        }
        let subjects = subjects.iter().cloned().map(Into::into);
        Ok(subjects
            .flat_map(|subject| std::iter::repeat_n(subject, self.count))
            .zip(0..)
            .map(|(subject, i)| Request {
                subject,
                seed: self.seed + i,
            })
            .collect())
    }
}
