//! The text chunks of PNG files.

use std::io::Cursor;
use std::path::Path;

use super::error::{PictureError, PictureProblem};
use super::limits::{MOST_BYTES, MOST_TEXT};
use crate::files;
use crate::guard::guarded;

/// What every PNG begins with.
const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The text chunk in which many programs keep a picture's settings, AUTOMATIC1111's first.
pub const PARAMETERS: &str = "parameters";

/// The international text chunks of a PNG as (keyword, value), and [`PARAMETERS`] of either
/// kind.
///
/// # Errors
///
/// A file that is no whole PNG, and texts of more than 16 MiB in all.
pub fn read_png_texts(path: &Path) -> Result<Vec<(String, String)>, PictureError> {
    let read = || png_texts(&files::read(path, MOST_BYTES)?);
    read().map_err(|problem: PictureProblem| PictureError::new(path, problem))
}

/// As [`read_png_texts`], of a PNG's bytes.
pub fn png_texts(bytes: &[u8]) -> Result<Vec<(String, String)>, PictureProblem> {
    guarded(|| texts(bytes))?
}

fn texts(bytes: &[u8]) -> Result<Vec<(String, String)>, PictureProblem> {
    if bytes.is_empty() {
        return Err(PictureProblem::Empty);
    }
    if !bytes.starts_with(SIGNATURE) {
        return Err(PictureProblem::NotAPng);
    }
    let limits = png::Limits { bytes: MOST_TEXT };
    let mut reader = png::Decoder::new_with_limits(Cursor::new(bytes), limits).read_info()?;
    reader.finish()?;
    let mut left = MOST_TEXT;
    let mut texts = Vec::new();
    for chunk in &reader.info().utf8_text {
        let mut chunk = chunk.clone();
        let unpacked = chunk.decompress_text_with_limit(left);
        let text = unpacked.and_then(|()| chunk.get_text());
        let text = text.map_err(|_| PictureProblem::Texts)?;
        left = left.checked_sub(text.len()).ok_or(PictureProblem::Texts)?;
        texts.push((chunk.keyword, text));
    }
    let latin = reader.info().uncompressed_latin1_text.iter();
    let parameters = latin.filter(|chunk| chunk.keyword == PARAMETERS);
    texts.extend(parameters.map(|chunk| (chunk.keyword.clone(), chunk.text.clone())));
    Ok(texts)
}
