//! What can end a training run.

use std::fmt;
use std::path::PathBuf;

use tch::Device;

use crate::checkpoint::{LoadError, WriteError};
use crate::clip::TokenizerError;
use crate::config_error::ConfigError;
use crate::data::DataError;
use crate::files::FileError;
use crate::ranks::RanksError;
use crate::torch::device::{DeviceChoice, DeviceError};
use crate::train::engine::manifest::ManifestError;

/// Why a checkpoint's folder could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error(transparent)]
    File(#[from] FileError),

    #[error(transparent)]
    Model(#[from] WriteError),

    #[error(transparent)]
    Manifest(#[from] ManifestError),

    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

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

    /// A checkpoint folder is not what it should be.
    #[error("{}: {problem}", path.display())]
    Checkpoint { path: PathBuf, problem: String },

    /// A checkpoint folder is not what its manifest says.
    #[error("{}: {source}", path.display())]
    Manifest {
        path: PathBuf,
        source: ManifestError,
    },

    /// A line of the log, or what a checkpoint keeps of it, is not JSON of its kind.
    #[error("{}: {source}", path.display())]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },

    /// Writing failed; what was there before is untouched.
    #[error("the checkpoint of step {step} could not be written, {kept}: {source}")]
    Save {
        step: u64,
        kept: String,
        source: SaveError,
    },

    /// A run is not continued or replaced by accident.
    #[error(
        "{} exists already; go on from it with --resume auto, or give another train.folder",
        path.display()
    )]
    Exists { path: PathBuf },

    #[error("{}: holds no run to resume", path.display())]
    NoRun { path: PathBuf },

    #[error(transparent)]
    Config(#[from] ConfigError),

    /// A setting has an impossible value.
    #[error("{key} is {found}, expected {expected}")]
    Value {
        key: &'static str,
        found: String,
        expected: String,
    },

    /// What a setting asks for cannot be done.
    #[error("{key}: {problem}")]
    Setting { key: &'static str, problem: String },

    #[error("{key} is missing: {what}")]
    Missing { key: String, what: String },

    #[error(
        "no model to train: give its shape under 'model', or a model file with \
         weights.init_from"
    )]
    NoModel,

    /// The experiment says one thing and a file another.
    #[error("{key} is {wanted}, but {} holds {found}{remedy}", path.display())]
    Differs {
        key: String,
        wanted: String,
        path: PathBuf,
        found: String,
        remedy: &'static str,
    },

    #[error("the model takes {what}, but the data hold none")]
    NoCondition { what: &'static str },

    #[error(transparent)]
    Memory(#[from] MemoryError),

    #[error(transparent)]
    Ranks(#[from] RanksError),

    #[error(transparent)]
    Device(#[from] DeviceError),

    #[error(
        "the parameter {name} takes no part in the loss: it got no gradient in the first step"
    )]
    NoGradient { name: String },

    #[error(
        "the loss or its gradient was not finite in {count} steps in a row; the last was step \
         {step} with the samples {first} to {last}{more}; the weights are those \
         of step {good}"
    )]
    NotFinite {
        count: u64,
        step: u64,
        first: u64,
        last: u64,
        /// What the task says of them.
        more: String,
        good: u64,
    },
}

const GIB: f64 = (1u64 << 30) as f64;

/// A run needs more memory than there is; all in bytes.
#[derive(Clone, Debug)]
pub struct MemoryError {
    /// For weights, gradients and moments.
    pub state: f64,
    pub batch: f64,
    pub available: f64,
    pub device: Device,
    /// Settings with which a batch needs less.
    pub remedies: Vec<&'static str>,
}

impl std::error::Error for MemoryError {}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the run needs about {:.1} GiB of memory ({:.1} for weights, gradients and moments, \
             {:.1} for a batch), but {:.1} GiB are available on {}",
            (self.state + self.batch) / GIB,
            self.state / GIB,
            self.batch / GIB,
            self.available / GIB,
            DeviceChoice(self.device)
        )?;
        match self.remedies.is_empty() {
            true => Ok(()),
            false => write!(
                f,
                "; for a batch less is needed with {}",
                self.remedies.join(", or ")
            ),
        }
    }
}
