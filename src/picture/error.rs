//! Why a picture file could not be read or written.

use std::path::{Path, PathBuf};

use super::limits::{MOST_PIXELS, NARROWEST};
use crate::files::FileError;
use crate::guard::Panicked;

/// Why the picture at `path` could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct PictureError {
    pub path: PathBuf,
    #[source]
    pub problem: PictureProblem,
}

impl PictureError {
    pub(super) fn new(path: &Path, problem: impl Into<PictureProblem>) -> Self {
        PictureError {
            path: path.to_path_buf(),
            problem: problem.into(),
        }
    }
}

/// What is wrong with a picture, without its name.
#[derive(Debug, thiserror::Error)]
pub enum PictureProblem {
    /// The file could not be opened, read or written.
    #[error(transparent)]
    File(#[from] std::io::Error),
    #[error("the file is empty")]
    Empty,
    #[error("not a picture, expected PNG, JPEG, WebP or GIF")]
    NotAPicture,
    #[error("a {0} file, expected PNG, JPEG, WebP or GIF")]
    Format(String),
    #[error("the JPEG data end too early")]
    Truncated,
    #[error("{0} bits a channel, expected 8")]
    Bits(u8),
    #[error("16 bits of grey, expected 8: programs disagree on how they become 8")]
    DeepGrey,
    #[error("{0} colour components, expected 1, 3 or 4")]
    Components(u8),
    #[error("{0} by {1} pixels, expected at most {MOST_PIXELS} in all")]
    TooLarge(u32, u32),
    #[error("{0} by {1} pixels, expected sides up to {NARROWEST} times each other")]
    TooNarrow(u32, u32),
    #[error(transparent)]
    Decoder(#[from] image::ImageError),
    #[error(transparent)]
    Panicked(#[from] Panicked),
    #[error("not a readable PNG: {0}")]
    Png(#[from] png::DecodingError),
    #[error("the text chunks unpack to more than {0} bytes")]
    LongTexts(usize),
    #[error("could not be written: {0}")]
    Encoder(#[from] png::EncodingError),
}

impl From<FileError> for PictureProblem {
    fn from(error: FileError) -> Self {
        PictureProblem::File(error.source)
    }
}
