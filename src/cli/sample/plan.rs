//! What a run will do, with every choice made.

use std::error::Error;
use std::path::Path;

use super::args::SampleArgs;
use super::edit_args::EditArgs;
use super::geneval::GenevalPrompts;
use super::subject::subjects;
use crate::model::ModelConfig;
use crate::pipeline::{ConditionError, OptionsError, PictureOptions, Record, RecordError, Request};
use crate::torch::device::Precision;

/// Pictures of one run: their names are checked before the first is made, and a grid
/// must fit the memory.
const MOST_PICTURES: u64 = 100_000;

/// What will be done, with every choice made.
pub struct SamplePlan {
    pub requests: Vec<Request>,
    pub options: PictureOptions,
    pub dtype: Precision,
    /// The weights that a repeated picture was made with.
    pub wanted_model: Option<String>,
}

impl SamplePlan {
    /// Whether `model` can do it.
    pub fn check(&self, model: &ModelConfig) -> Result<(), Box<dyn Error>> {
        match self.options.plan(model) {
            // Of another model, perhaps: its weights will tell.
            Err(_) if self.wanted_model.is_some() => return Ok(()),
            plan => plan.map_err(with_flags)?,
        };
        match &self.options.edit {
            Some(edit) => Ok(edit.canvas(model).map(|_| ())?),
            None => Ok(()),
        }
    }
}

/// The plan that the command line asks for.
pub fn planned(
    args: &SampleArgs,
    geneval: Option<&GenevalPrompts>,
    model: &ModelConfig,
    device: tch::Device,
) -> Result<SamplePlan, Box<dyn Error>> {
    let listed = geneval.map(GenevalPrompts::prompts);
    let subjects = subjects(args, listed, model)?;
    let options = args.sampler.options(model);
    let mut options = options
        .seed(args.seed)
        .count(args.count as usize)
        .batch_size(args.batch_size as usize);
    options.negative_prompt = args.edit.negative_prompt.clone();
    let pictures = subjects.len() as u64 * u64::from(args.count);
    if pictures > MOST_PICTURES {
        return Err(format!(
            "--count {} makes {pictures} pictures, expected at most {MOST_PICTURES} in a run",
            args.count
        )
        .into());
    }
    options.edit = args.edit.edit()?;
    Ok(SamplePlan {
        requests: options.requests(&subjects)?,
        options,
        dtype: args.sampler.dtype(device),
        wanted_model: None,
    })
}

/// The plan that made the picture in `png`; of a picture made from others, with the
/// files that `args` name again.
pub fn repeated(png: &Path, args: &EditArgs) -> Result<SamplePlan, Box<dyn Error>> {
    let record = Record::read(png)?;
    let files = (args.init_image.as_deref(), args.mask.as_deref());
    let edit = record.edit(files.0, files.1).map_err(|error| {
        let hint = match &error {
            RecordError::NeedsPicture { .. } => "; give it with --init-image",
            RecordError::NeedsNoPicture => ", so --init-image has no place",
            RecordError::NeedsMask { .. } => "; give it with --mask",
            RecordError::NeedsNoMask => ", so --mask has no place",
            RecordError::OtherPicture { .. } => "",
            _ => return error.to_string(),
        };
        format!("{}: {error}{hint}", png.display())
    })?;
    Ok(SamplePlan {
        options: record.options(edit),
        dtype: record.settings.dtype,
        requests: vec![record.request],
        wanted_model: Some(record.model_sha256),
    })
}

/// `error` with the flags that it is about.
fn with_flags(error: OptionsError) -> Box<dyn Error> {
    match error {
        OptionsError::Unconditional { guidance } => {
            format!("--guidance is {guidance}: {}", ConditionError::Guidance).into()
        }
        OptionsError::NullClass { guidance } => {
            format!("--guidance is {guidance}: {}", ConditionError::NullClass).into()
        }
        OptionsError::NegativePrompt => "--negative-prompt: the model reads no text".into(),
        OptionsError::NothingToLeadFrom { guidance } => format!(
            "--negative-prompt: guidance is {guidance}, which leads away from nothing; give \
             --guidance above 1"
        )
        .into(),
        error => error.into(),
    }
}
