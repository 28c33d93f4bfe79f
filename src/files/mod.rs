//! Files and folders that appear whole or not at all, locks on folders, bounded reading,
//! hashes, and the one error of all of them.
//!
//! Network shares, WSL, overlay and FUSE mounts lack one thing or another: modes, symbolic
//! links, syncs of folders, locks. Written work is never given up for such a nicety.

mod folder_lock;
mod hash;
mod home;
mod link;
mod lock;
mod new;
mod read;

use std::io;
use std::path::{Path, PathBuf};

pub use folder_lock::FolderLock;
pub use hash::{hex, sha256, sha256_of_file};
pub use home::expand_home;
pub use link::replace_link;
pub use new::{remove_folder, remove_left_over, sync_folder, write, NewFile, NewFolder};
pub use read::{open, read, read_text};

/// What was being done with a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Read,
    Write,
    Remove,
    Link,
    Lock,
}

/// What went wrong with a file or folder.
#[derive(Debug)]
pub struct FileError {
    pub path: PathBuf,
    pub action: Action,
    pub source: io::Error,
}

impl FileError {
    /// A file in a workspace is named as the one that it becomes.
    pub fn new(path: impl AsRef<Path>, action: Action, source: io::Error) -> Self {
        FileError {
            path: new::destination(path.as_ref()),
            action,
            source,
        }
    }

    /// For `map_err` where `path` is read.
    pub fn reading(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| FileError::new(path, Action::Read, source)
    }

    /// For `map_err` where `path` is written.
    pub fn writing(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| FileError::new(path, Action::Write, source)
    }
}

impl std::fmt::Display for FileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let FileError { path, source, .. } = self;
        write!(f, "{}: ", path.display())?;
        // What this program says of the file is a whole sentence.
        if source.raw_os_error().is_some() {
            f.write_str(match self.action {
                Action::Read => "could not be read: ",
                Action::Write => "could not be written: ",
                Action::Remove => "could not be removed: ",
                Action::Link => "could not be linked: ",
                Action::Lock => "could not be locked: ",
            })?;
        }
        source.fmt(f)
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Whether the disk does not offer what was asked of it.
fn is_unsupported(error: &io::Error) -> bool {
    let codes = [
        libc::EPERM,
        libc::ENOTSUP,
        libc::EOPNOTSUPP,
        libc::ENOSYS,
        libc::EINVAL,
        libc::ENOLCK,
        libc::EBADF,
    ];
    error.raw_os_error().is_some_and(|c| codes.contains(&c))
}

/// `result`, where the disk may lack what was asked of it.
fn if_supported(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if is_unsupported(&error) => Ok(()),
        other => other,
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
