//! What can go wrong when a checkpoint is read.

use std::io;
use std::path::PathBuf;

use super::parts::PartsError;

/// Why a checkpoint, or one tensor of it, could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file, or one of the parts it is split into, could not be found or opened.
    #[error(transparent)]
    Parts(#[from] PartsError),

    /// Reading failed below this crate.
    #[error("{}: reading {what} failed: {source}", path.display())]
    Io {
        path: PathBuf,
        /// What was being read, such as `the record archive/data/0`.
        what: String,
        source: io::Error,
    },

    /// The content is recognisably something other than a PyTorch checkpoint.
    #[error("{}: not a PyTorch checkpoint: {found}", path.display())]
    NotACheckpoint {
        path: PathBuf,
        /// What the content looks like and, where one is known, the remedy.
        found: String,
    },

    /// The file stops before its content does.
    #[error("{}: the file is cut off: {detail}; copy or download it again", path.display())]
    CutOff { path: PathBuf, detail: String },

    /// A kind of checkpoint that exists but is not read here.
    #[error("{}: {what} is not supported; {remedy}", path.display())]
    Unsupported {
        path: PathBuf,
        what: String,
        remedy: &'static str,
    },

    /// A record (an entry of the archive or a section of the file) breaks its format.
    #[error("{}: {record}: found {found}, expected {expected}", path.display())]
    BadRecord {
        path: PathBuf,
        record: String,
        found: String,
        expected: String,
    },

    /// A pickle program inside the file can not be decoded.
    #[error("{}: {record}: {source}", path.display())]
    Pickle {
        path: PathBuf,
        record: String,
        source: PickleError,
    },

    /// A tensor is described in a way that can not be true.
    #[error("{}: {entry}: found {found}, expected {expected}", path.display())]
    BadTensor {
        path: PathBuf,
        /// The tensor's name, as far as it is known.
        entry: String,
        found: String,
        expected: String,
    },

    /// The tensor is of a kind that has no plain dense array behind it.
    #[error("{}: {entry}: {what} is not supported, only dense tensors of bool, integers up to 64 bits, float16, bfloat16, float32 and float64 are", path.display())]
    UnsupportedTensor {
        path: PathBuf,
        /// The tensor's name, as far as it is known.
        entry: String,
        what: String,
    },
}

impl CheckpointError {
    /// The same of the tensor called `name`.
    pub(in crate::checkpoint) fn in_entry(mut self, name: &str) -> Self {
        if let Self::BadTensor { entry, .. } | Self::UnsupportedTensor { entry, .. } = &mut self {
            // A name from a file may be of any length.
            *entry = name.chars().take(200).collect();
        }
        self
    }
}

/// Why a pickle program could not be decoded. Positions count bytes from the program's start.
#[derive(Debug, thiserror::Error)]
pub enum PickleError {
    /// The bytes end before the program's STOP.
    #[error("the pickle ends at byte {at}, inside {inside}")]
    Truncated { at: u64, inside: &'static str },

    /// A byte that is no instruction of protocols 0 to 5.
    #[error("found instruction {code:#04x} at byte {at} of the pickle, expected one of protocols 0 to 5")]
    UnknownInstruction { code: u8, at: u64 },

    /// An instruction met something it can not work on.
    #[error(
        "found {found} for instruction {code:#04x} at byte {at} of the pickle, expected {expected}"
    )]
    Malformed {
        code: u8,
        at: u64,
        found: String,
        expected: &'static str,
    },

    /// The program is longer than the reader's limit.
    #[error("the pickle is longer than {limit} {unit} (at byte {at}), the limit for one file")]
    TooLarge {
        limit: u64,
        unit: &'static str,
        at: u64,
    },

    /// Reading failed below this crate.
    #[error("reading the pickle failed at byte {at}: {source}")]
    Io { at: u64, source: io::Error },
}
