//! Folders that commands write into.

use std::path::{Path, PathBuf};

/// Makes `folder`; refuses to replace any of `names` unless `overwrite`.
pub fn prepare(folder: &Path, names: &[PathBuf], overwrite: bool) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    match names.iter().find(|name| !overwrite && name.exists()) {
        None => Ok(()),
        Some(name) => Err(format!(
            "{}: exists already; give another folder, or --overwrite",
            name.display()
        )),
    }
}
