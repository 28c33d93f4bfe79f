//! Links that change their target in one step.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::new::Workspace;
use super::{is_unsupported, Action, FileError};

static WARNED: AtomicBool = AtomicBool::new(false);

/// Makes `path` a link to its neighbour `target`, or removes the link. On a disk without
/// symbolic links there is one warning, and no link.
///
/// A folder of that name, where a copy followed the link, moves to `path` with `-copy` and,
/// if need be, a number behind it.
pub fn replace_link(path: &Path, target: Option<&OsStr>) -> Result<(), FileError> {
    replace(path, target).map_err(|source| FileError::new(path, Action::Link, source))
}

fn replace(path: &Path, target: Option<&OsStr>) -> io::Result<()> {
    let there = match path.symlink_metadata() {
        Ok(metadata) => Some(metadata.file_type()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    if there.is_some_and(|kind| kind.is_dir()) {
        set_aside(path)?;
    }
    let Some(target) = target else {
        return match there {
            Some(kind) if !kind.is_dir() => std::fs::remove_file(path),
            _ => Ok(()),
        };
    };
    let workspace = Workspace::beside(path)?;
    let link = workspace.at(path);
    match symlink(target, &link) {
        Ok(()) => std::fs::rename(link, path),
        Err(error) if is_unsupported(&error) => {
            if !WARNED.swap(true, Ordering::Relaxed) {
                let (path, target) = (path.display(), Path::new(target).display());
                log::warn!(
                    "{path}: this disk knows no links ({error}); name {target} itself instead"
                );
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn set_aside(path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let free = (1..)
        .map(|n| match n {
            1 => path.with_file_name(format!("{name}-copy")),
            n => path.with_file_name(format!("{name}-copy-{n}")),
        })
        .find(|path| path.symlink_metadata().is_err())
        .unwrap_or_default();
    log::warn!(
        "{}: is a folder where a link is expected; it is now {}",
        path.display(),
        free.display()
    );
    std::fs::rename(path, free)
}
