//! What keeps a model from being measured.

use std::path::PathBuf;

use crate::config_error::ConfigError;
use crate::data::DataError;
use crate::evaluate::pictures::ComparisonError;
use crate::files::FileError;
use crate::picture::PictureError;
use crate::pipeline::{Error, OptionsError, SelectionError};
use crate::ranks::RanksError;

/// Why a model cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(transparent)]
    Comparison(#[from] ComparisonError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Picture(#[from] PictureError),
    #[error(transparent)]
    Pipeline(#[from] Error),
    #[error(transparent)]
    Selection(#[from] SelectionError),
    #[error(transparent)]
    Ranks(#[from] RanksError),
    /// A protocol that is no YAML or has unknown keys.
    #[error("{}: {problem}", path.display())]
    Format { path: PathBuf, problem: String },
    /// A value of the protocol that is impossible.
    #[error("{}: {source}", path.display())]
    Config { path: PathBuf, source: ConfigError },
    /// The real pictures are not those of the protocol.
    #[error(
        "{}: the list of real pictures has SHA-256 {found}, but the protocol has {wanted} \
         (reals.list_sha256); it is another list", path.display()
    )]
    OtherReals {
        path: PathBuf,
        wanted: String,
        found: String,
    },
    /// The folder holds the pictures of something else.
    #[error(
        "{}: holds the pictures of another run ({what} was {was}, is {is}); give another folder",
        path.display()
    )]
    OtherRun {
        path: PathBuf,
        what: &'static str,
        was: String,
        is: String,
    },
}

impl From<OptionsError> for ModelError {
    fn from(error: OptionsError) -> Self {
        ModelError::Pipeline(error.into())
    }
}

impl ModelError {
    /// Whether a signal ended the work.
    pub fn is_stop(&self) -> bool {
        matches!(self, ModelError::Comparison(ComparisonError::Stopped))
    }
}
