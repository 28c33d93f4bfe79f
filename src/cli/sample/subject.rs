//! What the pictures should show, from the arguments and what the model takes.

use std::error::Error;
use std::path::Path;

use super::args::SampleArgs;
use crate::files;
use crate::model::ModelConfig;
use crate::pipeline::{class_named, ConditionError, Subject};
use crate::transformer::Conditioning;

/// Size of a file of prompts, at most.
const MOST_BYTES: u64 = 64 << 20;

/// The subjects that `args` name, or the prompts that are `listed` in their place; each to be
/// shown in `--count` pictures.
pub fn subjects(
    args: &SampleArgs,
    listed: Option<Vec<String>>,
    model: &ModelConfig,
) -> Result<Vec<Subject>, Box<dyn Error>> {
    let has_prompt = !args.prompt.is_empty() || args.prompts.is_some();
    let has_class = !args.class.is_empty();
    match model.denoiser.condition {
        Conditioning::Text { .. } if has_class => {
            Err("--class: the model takes a prompt, not a class".into())
        }
        Conditioning::Text { .. } if !has_prompt => Err(
            "no PROMPT: the model takes one, such as \"a bird\"; or give --prompts FILE or \
                 --from-image PNG"
                .into(),
        ),
        Conditioning::Text { .. } => {
            let prompts = listed.map_or_else(|| prompts(args), Ok)?;
            Ok(prompts.into_iter().map(Subject::Text).collect())
        }
        Conditioning::Class { classes, .. } if has_prompt => Err(format!(
            "the model takes a class (--class, 0 to {}), not a prompt",
            classes - 1
        )
        .into()),
        Conditioning::Class { classes, .. } if !has_class => Err(format!(
            "no class: the model takes one (--class, 0 to {})",
            classes - 1
        )
        .into()),
        Conditioning::Class { classes, .. } => {
            let subject = |class: &String| Ok(Subject::Class(class_index(class, classes)?));
            args.class.iter().map(subject).collect()
        }
        Conditioning::Unconditional if has_prompt || has_class => Err(
            "the model is unconditional: it takes neither prompt nor class; --count says how \
             many pictures"
                .into(),
        ),
        Conditioning::Unconditional => Ok(vec![Subject::Anything]),
    }
}

fn prompts(args: &SampleArgs) -> Result<Vec<String>, Box<dyn Error>> {
    let mut prompts = args.prompt.clone();
    if let Some(file) = &args.prompts {
        prompts.extend(lines(file)?);
    }
    Ok(prompts)
}

/// The lines of `file` that are not empty.
fn lines(file: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let text = files::read_text(file, MOST_BYTES)?;
    let lines: Vec<String> = text
        .trim_start_matches('\u{feff}')
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(String::from)
        .collect();
    match lines.is_empty() {
        true => Err(format!("{}: holds no prompt", file.display()).into()),
        false => Ok(lines),
    }
}

/// The class that an index or a name means.
fn class_index(class: &str, classes: i64) -> Result<i64, Box<dyn Error>> {
    match class.trim().parse() {
        Ok(index) if (0..classes).contains(&index) => Ok(index),
        Ok(class) => Err(ConditionError::Class { class, classes }.into()),
        Err(_) => Ok(class_named(class, classes)?),
    }
}
