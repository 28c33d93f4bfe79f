//! Files that appear whole or not at all: written under a temporary name in the
//! target's folder, synced, then renamed.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::{NamedTempFile, TempDir};

const PREFIX: &str = ".vqdiffusion-";

/// An empty temporary file beside `path`; removed if it is dropped uncommitted.
pub fn beside(path: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(PREFIX)
        // The user's umask decides, as for any file.
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(parent(path))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// An empty temporary folder beside `path`; removed if it is dropped uncommitted.
pub fn folder_beside(path: &Path) -> io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix(PREFIX)
        .permissions(std::fs::Permissions::from_mode(0o777))
        .tempdir_in(parent(path))
}

/// Syncs `folder` with all in it and gives it the name `path`. A folder that was there
/// moves aside first and is then removed.
pub fn commit_folder(folder: TempDir, path: &Path) -> io::Result<()> {
    sync_all(folder.path())?;
    let old = match path.exists() {
        true => {
            let aside = folder_beside(path)?;
            std::fs::rename(path, aside.path())?;
            Some(aside)
        }
        false => None,
    };
    if let Err(error) = std::fs::rename(folder.path(), path) {
        if let Some(aside) = old {
            std::fs::rename(aside.keep(), path)?;
        }
        return Err(error);
    }
    // Renamed away: there is nothing left to remove.
    let _ = folder.keep();
    std::fs::File::open(parent(path))?.sync_all()
}

fn sync_all(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => sync_all(&path)?,
            false => std::fs::File::open(&path)?.sync_all()?,
        }
    }
    std::fs::File::open(folder)?.sync_all()
}

/// Syncs `file` and gives it the name `path`, replacing what was there.
pub fn commit(file: NamedTempFile, path: &Path) -> io::Result<()> {
    // The file may have been replaced through its name: give it the permissions it
    // was made with, and sync through a fresh handle.
    let permissions = file.as_file().metadata()?.permissions();
    std::fs::set_permissions(file.path(), permissions)?;
    std::fs::File::open(file.path())?.sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}
