//! The folder of a run: its checkpoints, and the names `last` and `best` of two of them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::manifest;
use super::settings::CheckpointConfig;
use super::task::{Better, Measure};
use crate::files::{self, remove_folder, replace_link, FileError, FolderLock, NewFolder};
use crate::train::error::{SaveError, TrainError};

const PREFIX: &str = "step-";
/// The configuration that the run was started with last, whole.
const EXPERIMENT: &str = "experiment.yaml";

/// A checkpoint on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedStep {
    pub path: PathBuf,
    pub step: u64,
}

/// The checkpoints in a run's folder, oldest first.
///
/// # Errors
///
/// A folder that cannot be read; one that is not there has none.
pub fn saved_steps(folder: &Path) -> Result<Vec<SavedStep>, TrainError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(FileError::reading(folder)(e).into()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(FileError::reading(folder))?;
        let name = entry.file_name();
        let step = name.to_str().and_then(|n| n.strip_prefix(PREFIX));
        if let Some(step) = step.and_then(|digits| digits.parse().ok()) {
            let path = entry.path();
            found.push(SavedStep { path, step });
        }
    }
    found.sort_by_key(|s| s.step);
    Ok(found)
}

/// The folder of a run whose best checkpoint is chosen by `measure`. No other process writes
/// into it until this is dropped.
#[derive(Debug)]
pub struct RunFolder {
    pub path: PathBuf,
    measure: Measure,
    lock: Option<FolderLock>,
    /// Whether there was no such folder before.
    made: bool,
}

impl RunFolder {
    /// Makes the folder where it is missing, locks it, removes what a killed process left
    /// half-written, and names the newest checkpoint `last` and the best `best`.
    ///
    /// # Errors
    ///
    /// A folder that another process writes into, or that cannot be written.
    pub fn open(path: &Path, measure: Measure) -> Result<Self, TrainError> {
        let made = !path.exists();
        let folder = RunFolder {
            path: path.to_path_buf(),
            measure,
            lock: Some(FolderLock::take(path)?),
            made,
        };
        folder.name_last_and_best(&saved_steps(path)?)?;
        Ok(folder)
    }

    /// The folder for a process that only reads in it; another one holds it.
    pub fn of_another(path: &Path, measure: Measure) -> Self {
        RunFolder {
            path: path.to_path_buf(),
            measure,
            lock: None,
            made: false,
        }
    }

    /// Gives the name of `step` to a folder that `fill` fills, when it is whole, and removes
    /// the checkpoints not kept.
    ///
    /// # Errors
    ///
    /// What could not be written; checkpoints already there are untouched then.
    pub fn save(
        &self,
        step: u64,
        keep: &CheckpointConfig,
        fill: impl FnOnce(&Path) -> Result<(), SaveError>,
    ) -> Result<SavedStep, TrainError> {
        let saved = self.at_step(step);
        self.publish(&saved.path, fill).map_err(|source| {
            // What is there now: the folder may have been removed meanwhile.
            let before = saved_steps(&self.path).unwrap_or_default();
            TrainError::Save {
                step,
                kept: before.last().map_or_else(
                    || "there is none before it".into(),
                    |s| format!("{} stays the last one", s.path.display()),
                ),
                source,
            }
        })?;
        self.prune(keep)?;
        Ok(saved)
    }

    /// Keeps the `experiment` of the run as YAML: all that it needs to go on, whatever becomes
    /// of the files that it was put together from.
    pub fn record(&self, experiment: &str) -> Result<(), FileError> {
        files::write(&self.path.join(EXPERIMENT), experiment)
    }

    /// The checkpoint of `step`, whether or not it is there.
    pub(super) fn at_step(&self, step: u64) -> SavedStep {
        let path = self.path.join(format!("{PREFIX}{step:08}"));
        SavedStep { path, step }
    }

    /// Adds the result of a validation to the checkpoint `saved`.
    pub(super) fn add_validation(&self, saved: &SavedStep, value: f64) -> Result<(), TrainError> {
        let failed = |source| TrainError::Manifest {
            path: saved.path.clone(),
            source,
        };
        let mut manifest = manifest::read(&saved.path).map_err(failed)?;
        manifest.validation = Some(BTreeMap::from([(self.measure.name.to_string(), value)]));
        manifest.validation_due = false;
        manifest.replace(&saved.path).map_err(failed)?;
        self.name_last_and_best(&saved_steps(&self.path)?)?;
        Ok(())
    }

    fn publish(
        &self,
        path: &Path,
        fill: impl FnOnce(&Path) -> Result<(), SaveError>,
    ) -> Result<(), SaveError> {
        fs::create_dir_all(&self.path).map_err(FileError::writing(&self.path))?;
        let new = NewFolder::beside(path)?;
        fill(&new.temporary())?;
        Ok(new.commit()?)
    }

    /// Keeps the newest checkpoints and the best.
    fn prune(&self, keep: &CheckpointConfig) -> Result<(), TrainError> {
        let saved = saved_steps(&self.path)?;
        let best = self.name_last_and_best(&saved)?;
        let old = saved.len().saturating_sub(keep.keep);
        for saved in &saved[..old] {
            if Some(saved) != best {
                remove_folder(&saved.path)?;
            }
        }
        Ok(())
    }

    /// Links `last` to the newest of the checkpoints `saved` and `best` to the one with the
    /// best validation, which is returned; without any such there is no such link.
    pub(super) fn name_last_and_best<'a>(
        &self,
        saved: &'a [SavedStep],
    ) -> Result<Option<&'a SavedStep>, FileError> {
        let value = |s: &SavedStep| {
            let validation: BTreeMap<String, f64> = manifest::read(&s.path).ok()?.validation?;
            let value = validation.get(self.measure.name).copied()?;
            Some(match self.measure.better {
                Better::Lower => value,
                Better::Higher => -value,
            })
        };
        let best = saved
            .iter()
            .filter_map(|s| Some((value(s)?, s)))
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, s)| s);
        let name = |s: &'a SavedStep| s.path.file_name();
        replace_link(&self.path.join("last"), saved.last().and_then(name))?;
        replace_link(&self.path.join("best"), best.and_then(name))?;
        Ok(best)
    }
}

impl Drop for RunFolder {
    /// A folder that was made for a run which came to nothing goes again.
    fn drop(&mut self) {
        drop(self.lock.take());
        if self.made {
            let _ = fs::remove_dir(&self.path); // if it is empty
        }
    }
}
