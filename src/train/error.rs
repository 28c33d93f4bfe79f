//! What can end a training run.

use std::path::PathBuf;

use crate::checkpoint::LoadError;
use crate::clip::TokenizerError;
use crate::data::DataError;
use crate::files::FileError;

/// Why a run could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(transparent)]
    File(#[from] FileError),

    #[error(transparent)]
    Load(#[from] LoadError),

    #[error(transparent)]
    Data(#[from] DataError),

    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),

    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },

    /// A checkpoint folder is not what it should be.
    #[error("{}: {problem}", path.display())]
    Checkpoint { path: PathBuf, problem: String },

    /// Writing failed; what was there before is untouched.
    #[error("the checkpoint of step {step} could not be written, {kept}: {problem}")]
    Save {
        step: u64,
        kept: String,
        problem: String,
    },

    /// The data do not fit the model.
    #[error("{0}")]
    Mismatch(String),

    #[error(
        "the parameter {name} takes no part in the loss: it got no gradient in the first step"
    )]
    NoGradient { name: String },

    #[error(
        "the loss or its gradient was not finite in {count} steps in a row; the last was step \
         {step} with the samples {first} to {last} at the times {times:?}; the weights are those \
         of step {good}"
    )]
    NotFinite {
        count: u64,
        step: u64,
        first: u64,
        last: u64,
        times: Vec<i64>,
        good: u64,
    },
}

impl TrainError {
    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| TrainError::Io { path, source }
    }
}
