//! Paths that begin with `~/`, which a shell leaves alone in `--out=~/x` and in files.

use std::io;
use std::path::{Path, PathBuf};

use super::{Action, FileError};

/// `path`, with the home folder in the place of a first part `~`.
///
/// # Errors
///
/// Such a path where no home folder is known.
pub fn expand_home(path: &Path) -> Result<PathBuf, FileError> {
    let Ok(rest) = path.strip_prefix("~") else {
        return Ok(path.to_path_buf());
    };
    match std::env::home_dir().filter(|home| !home.as_os_str().is_empty()) {
        Some(home) if rest.as_os_str().is_empty() => Ok(home),
        Some(home) => Ok(home.join(rest)),
        None => {
            let problem = "~ is not known (the variable HOME is not set)";
            let error = io::Error::new(io::ErrorKind::NotFound, problem);
            Err(FileError::new(path, Action::Read, error))
        }
    }
}
