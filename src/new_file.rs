//! Files that appear whole or not at all: written under a temporary name in the
//! target's folder, synced, then renamed.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::NamedTempFile;

/// An empty temporary file beside `path`; removed if it is dropped uncommitted.
pub fn beside(path: &Path) -> io::Result<NamedTempFile> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    tempfile::Builder::new()
        .prefix(".vqdiffusion-")
        // The user's umask decides, as for any file.
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(folder)
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
