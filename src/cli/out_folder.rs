//! Folders that commands write into.

use std::error::Error;
use std::path::{Path, PathBuf};

use crate::files::FileError;

/// Makes `folder`; refuses to replace any of `names` unless `overwrite`.
pub fn prepare(folder: &Path, names: &[PathBuf], overwrite: bool) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(folder).map_err(FileError::writing(folder))?;
    match overwrite {
        true => Ok(()),
        false => names.iter().try_for_each(|name| refuse_to_replace(name)),
    }
}

/// Refuses a name that is taken.
pub fn refuse_to_replace(name: &Path) -> Result<(), Box<dyn Error>> {
    match name.exists() {
        false => Ok(()),
        true => Err(format!(
            "{}: exists already; give another folder, or --overwrite",
            name.display()
        )
        .into()),
    }
}
