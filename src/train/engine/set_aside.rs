//! Going on from an older checkpoint than the newest: what came after it is set aside.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::folder::{saved_steps, RunFolder, SavedStep};
use super::log::{sheet_step, JSON_LINES};
use crate::files::{sync_folder, FileError};
use crate::train::TrainError;

const PREFIX: &str = "abandoned-";

/// What was set aside, and where it lies now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    pub folder: PathBuf,
    /// The steps of its checkpoints.
    pub steps: Vec<u64>,
}

impl fmt::Display for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<String> = self.steps.iter().map(u64::to_string).collect();
        write!(
            f,
            "the newer checkpoints of steps {}, with the log so far: {}",
            steps.join(", "),
            self.folder.display()
        )
    }
}

/// The checkpoint `path` as one of the run in `folder`, or of another run where that
/// folder holds none yet.
///
/// # Errors
///
/// A path that does not exist, and one from elsewhere where the folder holds a run.
pub fn own_checkpoint(folder: &Path, path: &Path) -> Result<PathBuf, TrainError> {
    let real = fs::canonicalize(path).map_err(FileError::reading(path))?;
    let saved = saved_steps(folder)?;
    let own = |s: &SavedStep| fs::canonicalize(&s.path).is_ok_and(|own| own == real);
    match saved.iter().find(|s| own(s)) {
        Some(own) => Ok(own.path.clone()),
        None if saved.is_empty() => Ok(path.to_path_buf()),
        None => Err(TrainError::Checkpoint {
            path: path.to_path_buf(),
            problem: format!(
                "is not a checkpoint of the run in {}; give another train.folder to go on \
                 from it there",
                folder.display()
            ),
        }),
    }
}

impl RunFolder {
    /// Moves the checkpoints and sample sheets that are newer than `step` to a folder
    /// `abandoned-N` of their own, with a copy of the log as it is; `last` and `best` then
    /// name checkpoints that stay. Nothing happens where no checkpoint is newer.
    ///
    /// # Errors
    ///
    /// Files that cannot be moved.
    pub fn set_aside_after(&self, step: u64) -> Result<Option<SetAside>, TrainError> {
        let (kept, newer): (Vec<_>, Vec<_>) = saved_steps(&self.path)?
            .into_iter()
            .partition(|s| s.step <= step);
        if newer.is_empty() {
            return Ok(None);
        }
        let steps = newer.iter().map(|s| s.step).collect();
        let folder =
            move_to_new_folder(&self.path, step, &newer).map_err(FileError::writing(&self.path))?;
        self.name_last_and_best(&kept)?;
        Ok(Some(SetAside { folder, steps }))
    }
}

fn move_to_new_folder(folder: &Path, step: u64, newer: &[SavedStep]) -> io::Result<PathBuf> {
    let aside = (1..)
        .map(|n| folder.join(format!("{PREFIX}{n}")))
        .find(|path| !path.exists())
        .unwrap_or_default();
    fs::create_dir(&aside)?;
    let log = folder.join(JSON_LINES);
    if log.exists() {
        fs::copy(log, aside.join(JSON_LINES))?;
    }
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if sheet_step(&name).is_some_and(|of| of > step) {
            fs::rename(folder.join(&name), aside.join(&name))?;
        }
    }
    // The newest first: what is left of an interrupted move is a run like any other.
    for saved in newer.iter().rev() {
        let name = saved.path.file_name().unwrap_or_default();
        fs::rename(&saved.path, aside.join(name))?;
    }
    sync_folder(&aside)?;
    sync_folder(folder)?;
    Ok(aside)
}
