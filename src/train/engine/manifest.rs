//! What a checkpoint folder says of itself: counters, the validation's result, and the
//! SHA-256 of its files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::data::Fingerprint;
use crate::files::{self, sha256_of_file, FileError};

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

/// Why a checkpoint folder and its manifest are not one.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file in the folder cannot be read.
    #[error("{name}: {source}")]
    File {
        name: String,
        source: std::io::Error,
    },

    #[error("{MANIFEST}: {0}")]
    Json(#[source] serde_json::Error),

    #[error("{MANIFEST}: format version {0}, expected {VERSION}")]
    Version(u32),

    #[error("{MANIFEST} names no {0}")]
    Unnamed(String),

    #[error("{name} has SHA-256 {found}, but {MANIFEST} says {expected}")]
    Hash {
        name: String,
        found: String,
        expected: String,
    },
}

impl ManifestError {
    fn file(name: &str, error: FileError) -> Self {
        ManifestError::File {
            name: name.to_string(),
            source: error.source,
        }
    }
}

impl Manifest {
    fn text(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Writes the manifest of a folder in the making.
    pub fn write(&self, folder: &Path) -> Result<(), ManifestError> {
        let text = self.text().map_err(ManifestError::Json)?;
        fs::write(folder.join(MANIFEST), text).map_err(|source| ManifestError::File {
            name: MANIFEST.to_string(),
            source,
        })
    }

    /// Takes the place of the manifest of the checkpoint `path`.
    pub fn replace(&self, path: &Path) -> Result<(), ManifestError> {
        let text = self.text().map_err(ManifestError::Json)?;
        let written = files::write(&path.join(MANIFEST), text);
        written.map_err(|e| ManifestError::file(MANIFEST, e))
    }
}

/// The SHA-256 of each of the files `names` in `folder`.
pub(super) fn hashes(
    folder: &Path,
    names: &[&str],
) -> Result<BTreeMap<String, String>, ManifestError> {
    let hash = |name: &&str| Ok((name.to_string(), hash(folder, name)?));
    names.iter().map(hash).collect()
}

/// The manifest of the checkpoint `path`.
fn hash(folder: &Path, name: &str) -> Result<String, ManifestError> {
    sha256_of_file(&folder.join(name)).map_err(|e| ManifestError::file(name, e))
}

pub(super) fn read(path: &Path) -> Result<Manifest, ManifestError> {
    let file = path.join(MANIFEST);
    let text = files::read_text(&file, MOST_BYTES).map_err(|e| ManifestError::file(MANIFEST, e))?;
    let manifest: Manifest = serde_json::from_str(&text).map_err(ManifestError::Json)?;
    if manifest.format_version != VERSION {
        return Err(ManifestError::Version(manifest.format_version));
    }
    Ok(manifest)
}

/// Whether the checkpoint at `path` is whole: its files, `needed` among them, have the
/// recorded hashes.
pub(super) fn verified(path: &Path, needed: &[&str]) -> Result<Manifest, ManifestError> {
    let manifest = read(path)?;
    for name in needed {
        if !manifest.files.contains_key(*name) {
            return Err(ManifestError::Unnamed(name.to_string()));
        }
    }
    for (name, expected) in &manifest.files {
        let found = hash(path, name)?;
        if found != *expected {
            return Err(ManifestError::Hash {
                name: name.clone(),
                found,
                expected: expected.clone(),
            });
        }
    }
    Ok(manifest)
}
