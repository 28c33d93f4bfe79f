//! The text chunks of a picture that repeat it.

use std::error::Error;
use std::num::ParseIntError;
use std::path::Path;

use super::edit::{self, EditArgs};
use super::plan::Plan;
use crate::model::ModelConfig;
use crate::picture::read_png_texts;
use crate::pipeline::{Request, Subject};

/// Keywords of the PNG's text chunks.
pub mod chunk {
    pub const PROMPT: &str = "prompt";
    pub const CLASS: &str = "class";
    pub const SEED: &str = "seed";
    pub const OPTIONS: &str = "vqdiffusion";
    pub const MODEL: &str = "model-sha256";
    pub const EDIT: &str = "edit";
    pub const NEGATIVE_PROMPT: &str = "negative-prompt";
}

/// The chunk that tells what a picture was asked to show; none for "anything".
fn subject_chunk(subject: &Subject) -> Option<(&'static str, String)> {
    match subject {
        Subject::Text(prompt) => Some((chunk::PROMPT, prompt.clone())),
        Subject::Class(class) => Some((chunk::CLASS, class.to_string())),
        Subject::Anything => None,
    }
}

/// All chunks of the picture of `request`.
pub fn chunks(
    plan: &Plan,
    request: &Request,
    fingerprint: &str,
) -> Result<Vec<(&'static str, String)>, serde_json::Error> {
    let mut texts = Vec::from_iter(subject_chunk(&request.subject));
    texts.extend([
        (chunk::SEED, request.seed.to_string()),
        (chunk::OPTIONS, serde_json::to_string(&plan.options)?),
        (chunk::MODEL, fingerprint.to_string()),
    ]);
    if let Some(edit) = &plan.edit {
        texts.push((chunk::EDIT, serde_json::to_string(&edit.record)?));
    }
    if let Some(negative) = &plan.negative_prompt {
        texts.push((chunk::NEGATIVE_PROMPT, negative.clone()));
    }
    Ok(texts)
}

/// The plan that made the picture in `png`; of a picture made from others, with the
/// files that `args` name again.
pub fn repeated(png: &Path, args: &EditArgs, model: &ModelConfig) -> Result<Plan, Box<dyn Error>> {
    let texts = read_png_texts(png)?;
    let find = |keyword: &str| {
        let mut found = texts.iter().filter(|(k, _)| k == keyword);
        found.next().map(|(_, value)| value.clone())
    };
    let text = |keyword: &str| {
        find(keyword).ok_or_else(|| {
            format!(
                "{}: has no text chunk '{keyword}', so it was not made by this program",
                png.display()
            )
        })
    };
    let unreadable = |keyword: &str, value: &str, problem: ParseIntError| {
        format!(
            "{}: text chunk '{keyword}' is {value:?}: {problem}",
            png.display()
        )
    };
    let seed = text(chunk::SEED)?;
    let seed = seed
        .parse()
        .map_err(|e| unreadable(chunk::SEED, &seed, e))?;
    let subject = match (find(chunk::PROMPT), find(chunk::CLASS)) {
        (Some(prompt), _) => Subject::Text(prompt),
        (None, Some(class)) => {
            let index = class.parse();
            Subject::Class(index.map_err(|e| unreadable(chunk::CLASS, &class, e))?)
        }
        (None, None) => Subject::Anything,
    };
    let unfit = |keyword: &str, problem: serde_json::Error| {
        format!("{}: text chunk '{keyword}': {problem}", png.display())
    };
    let options =
        serde_json::from_str(&text(chunk::OPTIONS)?).map_err(|e| unfit(chunk::OPTIONS, e))?;
    let record = find(chunk::EDIT)
        .map(|text| serde_json::from_str(&text).map_err(|e| unfit(chunk::EDIT, e)))
        .transpose()?;
    Ok(Plan {
        requests: vec![Request { subject, seed }],
        options,
        edit: edit::repeated(args, record, png, model)?,
        negative_prompt: find(chunk::NEGATIVE_PROMPT),
        wanted_model: Some(text(chunk::MODEL)?),
    })
}
