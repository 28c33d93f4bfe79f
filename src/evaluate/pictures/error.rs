//! What keeps pictures from being measured.

use std::path::PathBuf;

use crate::checkpoint::LoadError;
use crate::clip::TokenizerError;
use crate::files::FileError;
use crate::metrics::npz::NpzError;
use crate::metrics::MetricError;
use crate::picture::PictureError;

/// Why pictures cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum ComparisonError {
    #[error(transparent)]
    File(#[from] FileError),

    #[error(transparent)]
    Npz(#[from] NpzError),

    #[error(transparent)]
    Picture(#[from] PictureError),

    #[error(transparent)]
    Network(#[from] LoadError),

    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),

    #[error("{}: {source}", set.display())]
    Metric { set: PathBuf, source: MetricError },

    /// A set of pictures is not what it should be.
    #[error("{}: {problem}", set.display())]
    Set { set: PathBuf, problem: String },

    #[error(
        "{}: {name} has {} × {} pixels, but {first} has {} × {} (--crop scales all pictures \
         to one size and cuts out their centres)",
        set.display(), size[0], size[1], first_size[0], first_size[1]
    )]
    MixedSizes {
        set: PathBuf,
        first: String,
        first_size: [u32; 2],
        name: String,
        size: [u32; 2],
    },

    #[error("{}: {found} pictures, expected at least {least}", set.display())]
    TooFew {
        set: PathBuf,
        found: usize,
        least: usize,
    },

    /// A signal ended the work.
    #[error("stopped by a signal")]
    Stopped,
}
