//! What a run will do, with every choice made.

use std::error::Error;

use serde::{Deserialize, Serialize};

use super::edit::{self, Edit};
use super::subject::subjects;
use super::{Compat, SampleArgs};
use crate::codec::Rounding;
use crate::diffusion::purity::Revealing;
use crate::diffusion::sampler::SamplerError;
use crate::diffusion::truncation::Truncation;
use crate::diffusion::{ReverseRule, Sampler, SamplerConfig};
use crate::model::ModelConfig;
use crate::pipeline::{ConditionError, Request};
use crate::torch::device::Precision;
use crate::transformer::Conditioning;

/// Everything in a PNG that repeats it, besides prompt, seed and model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    pub sampler: SamplerConfig,
    pub rounding: Rounding,
    pub dtype: Precision,
}

/// Pictures of one run: their names are checked before the first is made, and a grid
/// must fit the memory.
const MOST_PICTURES: u64 = 100_000;

/// What will be done, with every choice made.
pub struct Plan {
    pub requests: Vec<Request>,
    pub options: Options,
    /// The picture to start from.
    pub edit: Option<Edit>,
    pub negative_prompt: Option<String>,
    /// The weights that a repeated picture was made with.
    pub wanted_model: Option<String>,
}

impl Plan {
    /// The run plan for `model`.
    pub fn sampler(&self, model: &ModelConfig) -> Result<Sampler, SamplerError> {
        let tokens = model.denoiser.tokens();
        let sampler = Sampler::new(&self.options.sampler, &model.schedule(), tokens)?;
        match &self.edit {
            Some(edit) => sampler.with_strength(edit.record.strength),
            None => Ok(sampler),
        }
    }
}

/// The plan that the command line asks for.
pub fn planned(
    args: &SampleArgs,
    model: &ModelConfig,
    device: tch::Device,
) -> Result<Plan, Box<dyn Error>> {
    let subjects = subjects(args, model)?;
    let pictures = subjects.len() as u64 * u64::from(args.count);
    if args.seed.checked_add(pictures).is_none() {
        return Err(format!(
            "seed is {}, which leaves no room for {pictures} pictures below 2^64",
            args.seed
        )
        .into());
    }
    if pictures > MOST_PICTURES {
        return Err(format!(
            "--count {} makes {pictures} pictures, expected at most {MOST_PICTURES} in a run",
            args.count
        )
        .into());
    }
    let requests = subjects
        .iter()
        .flat_map(|subject| std::iter::repeat_n(subject, args.count as usize))
        .enumerate()
        .map(|(i, subject)| Request {
            subject: subject.clone(),
            seed: args.seed + i as u64,
        })
        .collect();
    let options = options(args, model, device);
    let unconditional = model.denoiser.condition == Conditioning::Unconditional;
    if unconditional && options.sampler.uses_guidance() {
        let guidance = options.sampler.guidance;
        return Err(format!("--guidance is {guidance}: {}", ConditionError::Guidance).into());
    }
    let negative_prompt = args.edit.negative_prompt.clone();
    if negative_prompt.is_some() && model.text.is_none() {
        return Err("--negative-prompt: the model reads no text".into());
    }
    if negative_prompt.is_some() && !options.sampler.uses_guidance() {
        return Err(format!(
            "--negative-prompt: guidance is {}, which leads away from nothing; give --guidance \
             above 1",
            options.sampler.guidance
        )
        .into());
    }
    Ok(Plan {
        requests,
        options,
        edit: edit::planned(&args.edit, model)?,
        negative_prompt,
        wanted_model: None,
    })
}

fn options(args: &SampleArgs, model: &ModelConfig, device: tch::Device) -> Options {
    let usual = model.usual_guidance();
    let (rule, rounding, guidance) = match args.compat {
        None => (ReverseRule::Exact, Rounding::Nearest, usual),
        Some(Compat::Official) => (ReverseRule::Official, Rounding::Truncate, usual),
        Some(Compat::Diffusers) => {
            let guidance = if model.text.is_some() { 5.0 } else { usual };
            (ReverseRule::Diffusers, Rounding::Nearest, guidance)
        }
    };
    let guidance = args.guidance.unwrap_or(guidance);
    let rate = match args.compat {
        Some(Compat::Diffusers) => 1.0,
        _ => model.usual_truncation(guidance),
    };
    let truncation = match (args.top_k, args.truncation.unwrap_or(rate)) {
        (Some(k), _) => Truncation::TopK(k),
        // The official top1.0r drops codes by rounding alone; it is kept as it is.
        (None, 1.0) if rule != ReverseRule::Official => Truncation::Off,
        (None, rate) => Truncation::TopP(rate),
    };
    let revealing = (args.purity.is_some() || args.tokens_per_step.is_some()).then(|| Revealing {
        purity: args.purity,
        tokens_per_evaluation: args.tokens_per_step.unwrap_or(usize::MAX),
    });
    Options {
        sampler: SamplerConfig {
            steps: args.steps.unwrap_or(model.usual_steps()),
            guidance,
            truncation,
            revealing,
            rule,
        },
        rounding,
        dtype: args.dtype.unwrap_or_else(|| Precision::native(device)),
    }
}
