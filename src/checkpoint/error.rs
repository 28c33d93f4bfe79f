//! What can go wrong between a path and a model.

use std::path::PathBuf;

use super::hub::HubError;
use super::pytorch::CheckpointError;
use super::report::LoadReport;
use crate::clip::MergesError;
use crate::codec::image_codec::CodeMappingError;
use crate::config_error::ConfigError;
use crate::files::FileError;
use crate::yaml::LayersError;

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),

    #[error(transparent)]
    File(#[from] FileError),

    #[error(transparent)]
    Merges(#[from] MergesError),

    #[error("{}: {source}", path.display())]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },

    #[error("{}: not a readable safetensors file: header: {source}", path.display())]
    Header {
        path: PathBuf,
        source: serde_json::Error,
    },

    /// A configuration and the files that it is based on cannot be put together.
    #[error(transparent)]
    Layers(#[from] LayersError),

    /// The file as a whole is not what it should be.
    #[error("{}: {problem}", path.display())]
    Format { path: PathBuf, problem: String },

    /// The configuration in a file, or that its weights show, is not possible.
    #[error("{}: {source}", path.display())]
    Config { path: PathBuf, source: ConfigError },

    /// The code mapping in a file is none.
    #[error("{}: {key}: {source}", file.display())]
    CodeMapping {
        file: PathBuf,
        key: String,
        source: CodeMappingError,
    },

    /// One tensor of a file is not what it should be.
    #[error("{}: {key}: {problem}", file.display())]
    Tensor {
        file: PathBuf,
        key: String,
        problem: String,
    },

    /// A configuration file says one thing and the weights another.
    #[error("{}: {key} is {declared}, but {} holds {found}", config.display(), file.display())]
    Mismatch {
        config: PathBuf,
        key: String,
        declared: String,
        file: PathBuf,
        found: String,
    },

    /// An official configuration says what cannot be.
    #[error("{}: {source}", config.display())]
    Option {
        config: PathBuf,
        source: super::official::OptionError,
    },

    /// Something the checkpoint cannot hold was not given.
    #[error("{}: {what}; {remedy}", path.display())]
    Missing {
        path: PathBuf,
        what: String,
        remedy: String,
    },

    /// An option was given that has no effect on this checkpoint.
    #[error("{option}: {} {reason}", path.display())]
    Unused {
        option: String,
        path: PathBuf,
        reason: &'static str,
    },

    /// A model on the Hugging Face Hub cannot be had.
    #[error(transparent)]
    Hub(#[from] HubError),

    /// The weights do not fit the model.
    #[error("{0}")]
    Weights(Box<LoadReport>),
}

/// Why a model could not be written; what was there before is untouched.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    File(#[from] FileError),

    /// A weight that is copied could not be read.
    #[error(transparent)]
    Weight(Box<LoadError>),

    #[error("{}: could not be written: {source}", path.display())]
    Safetensors {
        path: PathBuf,
        source: safetensors::SafeTensorError,
    },

    #[error("{}: its header could not be written: {source}", path.display())]
    Header {
        path: PathBuf,
        source: serde_json::Error,
    },

    /// The model is not what a layout can hold.
    #[error("cannot be written in the {layout} layout: {problem}")]
    Unsupported {
        layout: &'static str,
        problem: String,
    },
}

impl From<LoadError> for WriteError {
    fn from(error: LoadError) -> Self {
        WriteError::Weight(Box::new(error))
    }
}
