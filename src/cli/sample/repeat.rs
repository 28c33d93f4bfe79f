//! The text chunks of a picture that repeat it.

use std::error::Error;
use std::num::ParseIntError;
use std::path::Path;

use super::plan::Plan;
use crate::picture::read_png_texts;
use crate::pipeline::{Request, Subject};

/// Keywords of the PNG's text chunks.
pub mod chunk {
    pub const PROMPT: &str = "prompt";
    pub const CLASS: &str = "class";
    pub const SEED: &str = "seed";
    pub const OPTIONS: &str = "vqdiffusion";
    pub const MODEL: &str = "model-sha256";
}

/// The chunk that tells what a picture was asked to show; none for "anything".
pub fn subject_chunk(subject: &Subject) -> Option<(&'static str, String)> {
    match subject {
        Subject::Text(prompt) => Some((chunk::PROMPT, prompt.clone())),
        Subject::Class(class) => Some((chunk::CLASS, class.to_string())),
        Subject::Anything => None,
    }
}

/// The plan that made the picture in `png`.
pub fn repeated(png: &Path) -> Result<Plan, Box<dyn Error>> {
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
    let options = serde_json::from_str(&text(chunk::OPTIONS)?)
        .map_err(|e| format!("{}: text chunk '{}': {e}", png.display(), chunk::OPTIONS))?;
    Ok(Plan {
        requests: vec![Request { subject, seed }],
        options,
        wanted_model: Some(text(chunk::MODEL)?),
    })
}
