//! The text chunks of a picture that repeat it.

use std::error::Error;
use std::path::Path;

use super::plan::Plan;
use crate::picture::read_png_texts;
use crate::pipeline::Request;

/// Keywords of the PNG's text chunks.
pub mod chunk {
    pub const PROMPT: &str = "prompt";
    pub const SEED: &str = "seed";
    pub const OPTIONS: &str = "vqdiffusion";
    pub const MODEL: &str = "model-sha256";
}

/// The plan that made the picture in `png`.
pub fn repeated(png: &Path) -> Result<Plan, Box<dyn Error>> {
    let texts = read_png_texts(png)?;
    let text = |keyword: &str| {
        texts
            .iter()
            .find(|(k, _)| k == keyword)
            .map(|(_, value)| value.clone())
            .ok_or_else(|| {
                format!(
                    "{}: has no text chunk '{keyword}', so it was not made by this program",
                    png.display()
                )
            })
    };
    let seed = text(chunk::SEED)?;
    let seed = seed
        .parse()
        .map_err(|e| format!("{}: text chunk 'seed' is {seed:?}: {e}", png.display()))?;
    let options = serde_json::from_str(&text(chunk::OPTIONS)?)
        .map_err(|e| format!("{}: text chunk '{}': {e}", png.display(), chunk::OPTIONS))?;
    Ok(Plan {
        requests: vec![Request {
            prompt: text(chunk::PROMPT)?,
            seed,
        }],
        options,
        wanted_model: Some(text(chunk::MODEL)?),
    })
}
