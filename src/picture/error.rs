//! Why a picture file could not be read or written.

use std::path::{Path, PathBuf};

use image::error::ImageFormatHint;
use image::ImageError;

use super::limits::{MOST_PIXELS, MOST_TEXT, NARROWEST};
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
    /// What the decoder says is for its authors: it is kept, and not shown.
    #[error("{}", of_decoder(.0))]
    Decoder(ImageError),
    #[error(transparent)]
    Panicked(#[from] Panicked),
    #[error("not a PNG")]
    NotAPng,
    /// As of the decoder.
    #[error("{}", of_png(.0))]
    Png(png::DecodingError),
    #[error("a text chunk is damaged, or the texts unpack to more than {MOST_TEXT} bytes")]
    Texts,
    #[error("could not be written: {0}")]
    Encoder(#[from] png::EncodingError),
}

impl From<FileError> for PictureProblem {
    fn from(error: FileError) -> Self {
        PictureProblem::File(error.source)
    }
}

impl From<ImageError> for PictureProblem {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::IoError(error) if error.raw_os_error().is_some() => error.into(),
            error => PictureProblem::Decoder(error),
        }
    }
}

impl From<png::DecodingError> for PictureProblem {
    fn from(error: png::DecodingError) -> Self {
        PictureProblem::Png(error)
    }
}

fn of_decoder(error: &ImageError) -> String {
    let of = |hint: ImageFormatHint| match hint {
        ImageFormatHint::Exact(format) => format!("{format:?}").to_uppercase(),
        _ => "picture's".into(),
    };
    match error {
        ImageError::IoError(_) => "the data end too early".into(),
        ImageError::Decoding(error) => format!("the {} data are damaged", of(error.format_hint())),
        ImageError::Unsupported(error) => {
            let format = of(error.format_hint());
            format!("the {format} data are of a kind that is not read")
        }
        ImageError::Limits(_) => "needs more memory than pictures may".into(),
        ImageError::Encoding(_) | ImageError::Parameter(_) => "could not be converted".into(),
    }
}

fn of_png(error: &png::DecodingError) -> &'static str {
    match error {
        png::DecodingError::IoError(_) => "the PNG data end too early",
        _ => "the PNG data are damaged",
    }
}
