//! Where a run begins: anew, or from one of its checkpoints.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::checkpoint::newest;
use super::folder::saved_steps;
use super::set_aside::own_checkpoint;
use crate::files::{expand_home, FileError};
use crate::train::TrainError;

/// What a run goes on from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Resume {
    /// Nothing; a folder with checkpoints is refused.
    #[default]
    No,
    /// The newest checkpoint that is whole, or nothing where there is none.
    Auto,
    /// This checkpoint folder.
    From(PathBuf),
}

impl FromStr for Resume {
    type Err = FileError;

    /// `auto`, or a path.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Resume::Auto,
            path => Resume::From(expand_home(Path::new(path))?),
        })
    }
}

impl Resume {
    /// What a run in `folder` goes on from that its launcher has started anew: its newest
    /// checkpoint, or what it began with where it has none yet.
    ///
    /// # Errors
    ///
    /// A folder that cannot be read.
    pub fn again(self, folder: &Path, model: &str) -> Result<Self, TrainError> {
        Ok(match newest(folder, model)? {
            Some(_) => Resume::Auto,
            None => self,
        })
    }

    /// The checkpoint that the run in `folder`, whose model files have the name `model`, goes
    /// on from.
    ///
    /// # Errors
    ///
    /// A folder that cannot be read, checkpoints of another run, and checkpoints where none
    /// are to be followed.
    pub fn checkpoint(&self, folder: &Path, model: &str) -> Result<Option<PathBuf>, TrainError> {
        match self {
            Resume::Auto => Ok(newest(folder, model)?.map(|saved| saved.path)),
            Resume::From(path) => Ok(Some(own_checkpoint(folder, path)?)),
            Resume::No => match saved_steps(folder)?.pop() {
                None => Ok(None),
                Some(saved) => Err(TrainError::Exists { path: saved.path }),
            },
        }
    }
}
