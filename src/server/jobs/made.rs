//! A picture that a job made, with the way that its tokens took.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::picture::{png_bytes, PictureProblem, PARAMETERS};
use crate::pipeline::{MadePicture, PictureOptions};
use crate::server::id::random_id;
use crate::server::parameters::parameters;

/// The tokens that a step changed.
#[derive(Clone, Debug)]
pub struct Change {
    pub positions: Vec<usize>,
    pub codes: Vec<i64>,
}

/// A finished picture.
#[derive(Debug)]
pub struct Made {
    pub id: String,
    pub picture: MadePicture,
    /// What it was made with, the picture it started from included.
    pub options: PictureOptions,
    /// From all masks to the start, then by step.
    pub changes: Vec<Change>,
    /// Text positions that the prompt takes.
    pub prompt_tokens: usize,
    /// Seconds since 1970.
    pub created: u64,
    model: String,
    png: OnceLock<Vec<u8>>,
}

impl Made {
    pub fn new(
        picture: MadePicture,
        options: PictureOptions,
        changes: Vec<Change>,
        prompt_tokens: usize,
        model: &str,
    ) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Made {
            id: random_id(),
            picture,
            options,
            changes,
            prompt_tokens,
            created: since.map_or(0, |since| since.as_secs()),
            model: model.into(),
            png: OnceLock::new(),
        }
    }

    /// The picture's PNG with all that is known of it, for this program and for others.
    ///
    /// # Errors
    ///
    /// A prompt that no PNG can hold.
    pub fn png(&self) -> Result<&[u8], PictureProblem> {
        if let Some(png) = self.png.get() {
            return Ok(png);
        }
        let mut texts = self.picture.texts();
        texts.push((PARAMETERS, self.parameters()));
        let png = png_bytes(&self.picture.picture, &texts)?;
        Ok(self.png.get_or_init(|| png))
    }

    /// The settings as AUTOMATIC1111's programs write them.
    pub fn parameters(&self) -> String {
        let size = [self.picture.picture.width, self.picture.picture.height];
        parameters(&self.picture.record, &self.model, size)
    }

    /// Bytes that it takes in memory, about.
    pub fn bytes(&self) -> usize {
        let changed: usize = self.changes.iter().map(|c| 16 * c.codes.len() + 48).sum();
        2 * self.picture.picture.rgb.len() + 8 * self.picture.tokens.len() + changed
    }

    /// The tokens after each step, `masks` before the first; the picture of L tokens.
    pub fn states(&self, mask: i64) -> Vec<Vec<i64>> {
        let mut tokens = vec![mask; self.picture.tokens.len()];
        let mut states = Vec::with_capacity(self.changes.len());
        for change in &self.changes {
            for (&position, &code) in change.positions.iter().zip(&change.codes) {
                tokens[position] = code;
            }
            states.push(tokens.clone());
        }
        states.drain(..states.len().min(1)); // the start
        states
    }
}
