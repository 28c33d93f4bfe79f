//! What can go wrong while pictures are measured.

use std::path::PathBuf;

use crate::data::DataError;
use crate::files::FileError;
use crate::picture::PictureError;
use crate::pipeline;

/// Why something cannot be measured, or its report not be written.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    #[error(transparent)]
    Picture(#[from] PictureError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} and {} have the same name, by which results are told apart", first.display(), second.display())]
    SameName { first: PathBuf, second: PathBuf },
    #[error("seed is {seed}, expected room above it for {place} more")]
    Seed { seed: u64, place: usize },
}
