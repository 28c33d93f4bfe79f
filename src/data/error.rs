//! What can go wrong between a data set and a batch.

use std::io;
use std::path::{Path, PathBuf};

use safetensors::tensor::Dtype;
use tch::Kind;

use crate::files::{Action, FileError};

/// Why a data set, a token cache or a batch could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error(transparent)]
    File(FileError),

    #[error("{}: no such file or folder", path.display())]
    Missing { path: PathBuf, source: io::Error },

    /// What was named as data is neither a data set nor a file of tokens.
    #[error(
        "{}: expected a folder, a list, a token cache or a safetensors file: {source}",
        path.display()
    )]
    NoTokens {
        path: PathBuf,
        source: safetensors::SafeTensorError,
    },

    /// A file is not what it should be.
    #[error("{}: {problem}", path.display())]
    Format { path: PathBuf, problem: String },

    /// The words of a file cannot be had.
    #[error("{}: {source}", path.display())]
    Text { path: PathBuf, source: TextError },

    /// The tensors of a file are no samples.
    #[error("{}: {source}", path.display())]
    SamplesFile { path: PathBuf, source: SamplesError },

    #[error(transparent)]
    Samples(#[from] SamplesError),

    /// Items cannot be used, and the run is strict.
    #[error("{}; strict reading stops there", listed(skipped))]
    Strict { skipped: Vec<Skipped> },

    /// Too many items of a data set cannot be used.
    #[error("{}: {problem}", path.display())]
    Unusable { path: PathBuf, problem: String },

    #[error("{0}")]
    Invalid(String),

    /// The thread that reads ahead did not go on to its end.
    #[error("pictures could not be read ahead: {0}")]
    Ahead(String),

    #[error("caption {caption:?}: {source}")]
    Caption {
        caption: String,
        source: crate::clip::TokenizerError,
    },
}

impl DataError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |source| FileError::reading(path)(source).into()
    }

    pub(super) fn format(path: &Path, problem: impl ToString) -> Self {
        DataError::Format {
            path: path.to_path_buf(),
            problem: problem.to_string(),
        }
    }
}

impl From<FileError> for DataError {
    fn from(error: FileError) -> Self {
        match error.source.kind() {
            io::ErrorKind::NotFound if error.action == Action::Read => DataError::Missing {
                path: error.path,
                source: error.source,
            },
            _ => DataError::File(error),
        }
    }
}

/// Why the words of a file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    #[error("{0}")]
    Unreadable(#[source] io::Error),

    /// The first byte that is not.
    #[error("not UTF-8 (byte {0})")]
    NotUtf8(usize),

    #[error("marked as UTF-16, but is not")]
    NotUtf16,

    #[error("holds no caption")]
    NoCaption,
}

/// Why tensors are no samples.
#[derive(Debug, thiserror::Error)]
pub enum SamplesError {
    #[error("has no tensor 'tokens'")]
    NoTokens,

    #[error("'{name}' is of {found}, expected int64")]
    Type { name: &'static str, found: Dtype },

    #[error(
        "'{name}' is {kind:?} of shape {size:?}, expected int64 with {rank} dimensions and \
         {count} rows"
    )]
    Shape {
        name: &'static str,
        kind: Kind,
        size: Vec<i64>,
        rank: usize,
        count: i64,
    },

    #[error("holds no samples")]
    Empty,
}

/// An item of a data set that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Skipped {
    /// The picture, or the place in the list that names it.
    pub what: String,
    pub reason: String,
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, self.reason)
    }
}

/// The first of `skipped`, and how many more there are.
fn listed(skipped: &[Skipped]) -> String {
    const SHOWN: usize = 10;
    let mut shown: Vec<String> = skipped.iter().take(SHOWN).map(Skipped::to_string).collect();
    if skipped.len() > SHOWN {
        shown.push(format!("{} more", skipped.len() - SHOWN));
    }
    shown.join("; ")
}
