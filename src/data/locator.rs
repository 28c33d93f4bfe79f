//! Where the bytes of a picture lie: a file, or a part of a tar.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

use crate::files::{self, FileError};
use crate::picture::MOST_BYTES;

/// The place of a picture below the root of its data set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Locator {
    /// The path of a file.
    File(String),
    /// A member of a tar: `size` bytes from `offset` on.
    Part {
        /// The path of the tar.
        shard: String,
        /// The member's name.
        name: String,
        offset: u64,
        size: u64,
    },
}

impl Locator {
    /// The picture's bytes. A file whose name is written in another Unicode form on the
    /// disk (é as one character or as two) is found.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, ends before the part does, or holds more bytes than any
    /// picture.
    pub fn read(&self, root: &Path) -> Result<Vec<u8>, FileError> {
        match self {
            Locator::File(name) => {
                let path = found(root, name).unwrap_or_else(|| root.join(name));
                files::read(&path, MOST_BYTES)
            }
            Locator::Part {
                shard,
                offset,
                size,
                ..
            } => {
                let path = root.join(shard);
                let file = files::open(&path)?;
                let mut bytes = vec![0; (*size).min(MOST_BYTES) as usize];
                file.read_exact_at(&mut bytes, *offset)
                    .map_err(FileError::reading(&path))?;
                Ok(bytes)
            }
        }
    }
}

impl std::fmt::Display for Locator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Locator::File(name) => f.write_str(name),
            Locator::Part { shard, name, .. } => write!(f, "{shard}/{name}"),
        }
    }
}

impl From<String> for Locator {
    fn from(path: String) -> Self {
        Locator::File(path)
    }
}

impl From<&str> for Locator {
    fn from(path: &str) -> Self {
        Locator::File(path.into())
    }
}

/// The file or folder `name` below `root`, or the one whose name differs in the form of its
/// characters alone, each folder for itself.
pub fn found(root: &Path, name: &str) -> Option<PathBuf> {
    let path = root.join(name);
    if name.is_ascii() || path.exists() {
        return path.exists().then_some(path);
    }
    let mut found = root.to_path_buf();
    for part in name.split('/') {
        let forms = [part.to_string(), part.nfc().collect(), part.nfd().collect()];
        let mut paths = forms.iter().map(|form| found.join(form));
        found = paths.find(|path| path.exists())?;
    }
    Some(found)
}
