//! Why a model on the Hugging Face Hub cannot be had.

use std::path::PathBuf;

use hf_hub::api::sync::ApiError;

use crate::files::FileError;

/// A name that is no path of this machine, and why it names no model either.
#[derive(Debug, thiserror::Error)]
#[error("{name}: no such file or folder; on the Hugging Face Hub: {source}")]
pub struct HubError {
    /// With its revision, if that is not `main`.
    pub name: String,
    pub source: HubProblem,
}

/// What is wrong with a model's cache, or was said by the hub.
#[derive(Debug, thiserror::Error)]
pub enum HubProblem {
    #[error(transparent)]
    File(#[from] FileError),

    /// A branch whose file names no commit.
    #[error("{}: holds no commit", .0.display())]
    NoCommit(PathBuf),

    /// Nothing says which of several snapshots is meant.
    #[error(
        "{} has no refs/main and several snapshots; name one as @{}",
        folder.display(),
        commits.join(" or @")
    )]
    NoMain {
        folder: PathBuf,
        commits: Vec<String>,
    },

    /// A shortened commit that is that of several.
    #[error("the commit may be {}", .0.join(" or "))]
    Ambiguous(Vec<String>),

    #[error("{variable} is set, and the cache {} lacks its {lacks}", cache.display())]
    Offline {
        variable: &'static str,
        cache: PathBuf,
        lacks: String,
    },

    #[error("has no {0}, so it is no diffusers pipeline")]
    NoPipeline(&'static str),

    #[error("{action}: {source}{hint}")]
    Request {
        action: String,
        source: Box<ApiError>,
        hint: &'static str,
    },
}
