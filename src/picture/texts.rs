//! The text chunks of PNG files.

use std::io::Cursor;
use std::path::Path;

use super::error::{PictureError, PictureProblem};
use super::limits::{MOST_BYTES, MOST_TEXT};
use crate::files;
use crate::guard::guarded;

/// The international text chunks of a PNG as (keyword, value).
///
/// # Errors
///
/// A file that is no whole PNG, and texts of more than 16 MiB in all.
pub fn read_png_texts(path: &Path) -> Result<Vec<(String, String)>, PictureError> {
    let read = || {
        let bytes = files::read(path, MOST_BYTES)?;
        guarded(|| texts(&bytes))?
    };
    read().map_err(|problem: PictureProblem| PictureError::new(path, problem))
}

fn texts(bytes: &[u8]) -> Result<Vec<(String, String)>, PictureProblem> {
    let limits = png::Limits { bytes: MOST_TEXT };
    let mut reader = png::Decoder::new_with_limits(Cursor::new(bytes), limits).read_info()?;
    reader.finish()?;
    let mut left = MOST_TEXT;
    let mut texts = Vec::new();
    for chunk in &reader.info().utf8_text {
        let mut chunk = chunk.clone();
        chunk.decompress_text_with_limit(left)?;
        let text = chunk.get_text()?;
        left = left
            .checked_sub(text.len())
            .ok_or(PictureProblem::LongTexts(MOST_TEXT))?;
        texts.push((chunk.keyword, text));
    }
    Ok(texts)
}
