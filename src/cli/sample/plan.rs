//! What a run will do, with every choice made.

use std::error::Error;

use super::edit::{self, Edit};
use super::subject::subjects;
use super::SampleArgs;
use crate::cli::sampler_args::Options;
use crate::diffusion::sampler::SamplerError;
use crate::diffusion::SamplingPlan;
use crate::model::ModelConfig;
use crate::pipeline::{ConditionError, Request};
use crate::transformer::Conditioning;

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
    pub fn sampler(&self, model: &ModelConfig) -> Result<SamplingPlan, SamplerError> {
        let tokens = model.denoiser.tokens();
        let plan = self.options.sampler.plan(&model.schedule(), tokens)?;
        match &self.edit {
            Some(edit) => plan.with_strength(edit.record.strength),
            None => Ok(plan),
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
    let options = args.sampler.options(model, device);
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
