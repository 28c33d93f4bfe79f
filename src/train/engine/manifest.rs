//! What a checkpoint folder says of itself: counters, the validation's result, and the
//! SHA-256 of its files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::data::Fingerprint;
use crate::files::{self, sha256_of_file, FileError};
use crate::train::TrainError;

pub(super) const VERSION: u32 = 1;
const MANIFEST: &str = "manifest.json";
/// Size of a manifest, at most.
const MOST_BYTES: u64 = 1 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub format_version: u32,
    pub step: u64,
    pub samples: u64,
    pub updates: u64,
    pub skipped: u64,
    /// Result of the validation at this step, by the measure's name.
    pub validation: Option<BTreeMap<String, f64>>,
    /// Whether the step has a validation that the run was stopped in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub validation_due: bool,
    /// What was trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Fingerprint>,
    /// SHA-256 of each file.
    pub files: BTreeMap<String, String>,
}

impl Manifest {
    fn text(&self) -> Result<String, String> {
        let text = serde_json::to_string_pretty(self).map_err(|e| e.to_string())?;
        Ok(text + "\n")
    }

    /// Writes the manifest of a folder in the making.
    pub fn write(&self, folder: &Path) -> Result<(), String> {
        let file = folder.join(MANIFEST);
        fs::write(&file, self.text()?).map_err(|e| FileError::writing(&file)(e).to_string())
    }

    /// Takes the place of the manifest of the checkpoint `path`.
    pub fn replace(&self, path: &Path) -> Result<(), TrainError> {
        let file = path.join(MANIFEST);
        let text = self.text().map_err(|problem| TrainError::Checkpoint {
            path: file.clone(),
            problem,
        })?;
        Ok(files::write(&file, text)?)
    }
}

/// The SHA-256 of each of the files `names` in `folder`.
pub(super) fn hashes(folder: &Path, names: &[&str]) -> Result<BTreeMap<String, String>, String> {
    let hash = |name: &&str| {
        let hash =
            sha256_of_file(&folder.join(name)).map_err(|e| format!("{name}: {}", e.source))?;
        Ok((name.to_string(), hash))
    };
    names.iter().map(hash).collect()
}

/// The manifest of the checkpoint `path`.
pub(super) fn read(path: &Path) -> Result<Manifest, String> {
    let file = path.join(MANIFEST);
    let text =
        files::read_text(&file, MOST_BYTES).map_err(|e| format!("{MANIFEST}: {}", e.source))?;
    let manifest: Manifest = serde_json::from_str(&text).map_err(|e| format!("{MANIFEST}: {e}"))?;
    if manifest.format_version != VERSION {
        return Err(format!(
            "{MANIFEST}: format version {}, expected {VERSION}",
            manifest.format_version
        ));
    }
    Ok(manifest)
}

/// Whether the checkpoint at `path` is whole: its files, `needed` among them, have the
/// recorded hashes.
pub(super) fn verified(path: &Path, needed: &[&str]) -> Result<Manifest, String> {
    let manifest = read(path)?;
    for name in needed {
        if !manifest.files.contains_key(*name) {
            return Err(format!("{MANIFEST} names no {name}"));
        }
    }
    for (name, expected) in &manifest.files {
        let found =
            sha256_of_file(&path.join(name)).map_err(|e| format!("{name}: {}", e.source))?;
        if found != *expected {
            return Err(format!(
                "{name} has SHA-256 {found}, but {MANIFEST} says {expected}"
            ));
        }
    }
    Ok(manifest)
}
