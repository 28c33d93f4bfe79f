//! New files and folders: made in a hidden workspace beside their place, synced, renamed.
//!
//! ```text
//! .vqdiffusion-812-0/lock     locked by the process that writes
//! .vqdiffusion-812-0/NAME     becomes ./NAME
//! ```
//! A workspace whose lock can be had belongs to no living process: the next one that writes
//! into the folder removes it.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

use super::lock::{lock, Answer};
use super::read::only_regular;
use super::{if_supported, is_unsupported, parent, Action, FileError};

const PREFIX: &str = ".vqdiffusion-";
const LOCK: &str = "lock";
/// In a workspace, what stood at the place of the new folder.
const REPLACED: &str = "replaced";

/// Writes `bytes` as a whole file.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), FileError> {
    let mut file = NewFile::beside(path)?;
    file.write_all(bytes.as_ref())
        .map_err(FileError::writing(path))?;
    file.commit()
}

/// A file that gets its name, or replaces the one there, when it is committed; dropped
/// before, nothing is left of it.
#[derive(Debug)]
pub struct NewFile {
    workspace: Workspace,
    file: File,
    path: PathBuf,
}

impl NewFile {
    /// An empty file for the place `path`.
    ///
    /// # Errors
    ///
    /// A place where no file can be: in a missing folder, or where a folder, pipe or device is.
    pub fn beside(path: &Path) -> Result<Self, FileError> {
        let make = || {
            match fs::metadata(path) {
                Ok(there) => only_regular(&there)?,
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
            let workspace = Workspace::beside(path)?;
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(workspace.at(path))?;
            Ok(NewFile {
                workspace,
                file,
                path: path.to_path_buf(),
            })
        };
        make().map_err(FileError::writing(path))
    }

    /// Where the file is until it is committed, for those who write by path: they may
    /// replace it.
    pub fn temporary(&self) -> PathBuf {
        self.workspace.at(&self.path)
    }

    /// The open file.
    pub fn as_file(&self) -> &File {
        &self.file
    }

    /// Syncs the file and gives it its name.
    pub fn commit(self) -> Result<(), FileError> {
        let publish = || {
            self.workspace.finish(&self.temporary())?;
            fs::rename(self.temporary(), &self.path)?;
            sync_folder(parent(&self.path))
        };
        publish().map_err(FileError::writing(&self.path))
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A folder that gets its name, or replaces the one there, when it is committed; dropped
/// before, nothing is left of it.
#[derive(Debug)]
pub struct NewFolder {
    workspace: Workspace,
    path: PathBuf,
}

impl NewFolder {
    /// An empty folder for the place `path`.
    pub fn beside(path: &Path) -> Result<Self, FileError> {
        let make = || {
            let workspace = Workspace::beside(path)?;
            fs::create_dir(workspace.at(path))?;
            Ok(NewFolder {
                workspace,
                path: path.to_path_buf(),
            })
        };
        make().map_err(FileError::writing(path))
    }

    /// Where the folder is until it is committed.
    pub fn temporary(&self) -> PathBuf {
        self.workspace.at(&self.path)
    }

    /// Syncs the folder with all in it and gives it its name. A folder that was there is
    /// removed then.
    pub fn commit(self) -> Result<(), FileError> {
        let publish = || {
            let new = self.temporary();
            self.workspace.finish(&new)?;
            if self.path.symlink_metadata().is_ok() {
                replace_folder(&new, &self.path, &self.workspace.folder.join(REPLACED))?;
            } else {
                fs::rename(new, &self.path)?;
            }
            sync_folder(parent(&self.path))
        };
        publish().map_err(FileError::writing(&self.path))
    }
}

/// Puts the folder `new` in the place of `old`, in one step where the disk can do that.
/// What was there is then at `new`, or in the folder `aside`.
fn replace_folder(new: &Path, old: &Path, aside: &Path) -> io::Result<()> {
    match exchange(new, old) {
        Err(error) if is_unsupported(&error) => {}
        done => return done,
    }
    fs::create_dir(aside)?;
    let aside = aside.join(old.file_name().unwrap_or_default());
    fs::rename(old, &aside)?;
    fs::rename(new, old).inspect_err(|_| {
        // A start after this one does it if this cannot.
        let _ = fs::rename(&aside, old);
    })
}

fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    let [a, b] = [a, b].map(|path| CString::new(path.as_os_str().as_bytes()));
    let (a, b) = (a?, b?);
    // SAFETY: both are C strings that live until the call is over.
    let code = unsafe {
        libc::renameat2(
            libc::AT_FDCWD,
            a.as_ptr(),
            libc::AT_FDCWD,
            b.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    match code {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Removes the folder at `path`, if there is one, so that it is never seen in parts.
pub fn remove_folder(path: &Path) -> Result<(), FileError> {
    let remove = || {
        if path.symlink_metadata().is_err() {
            return Ok(());
        }
        let workspace = Workspace::beside(path)?;
        fs::rename(path, workspace.at(path))?;
        fs::remove_dir_all(&workspace.folder)
    };
    remove().map_err(|source| FileError::new(path, Action::Remove, source))
}

/// Writes the names in `folder` to the disk, where it does that for folders.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // A folder in which one may write need not be readable.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        other => if_supported(other),
    }
}

/// A locked hidden folder beside a file's place, removed when it is dropped.
#[derive(Debug)]
pub(super) struct Workspace {
    folder: PathBuf,
    lock: File,
}

impl Workspace {
    pub fn beside(path: &Path) -> io::Result<Self> {
        if path.file_name().is_none() {
            let problem = "names no file or folder that could be made";
            return Err(io::Error::new(ErrorKind::InvalidInput, problem));
        }
        let parent = parent(path);
        remove_once(parent);
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let folder = parent.join(format!("{PREFIX}{}-{n}", std::process::id()));
            match fs::create_dir(&folder) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e),
            }
            let place = folder.join(LOCK);
            match lock(&place) {
                Ok((lock, Answer::Held | Answer::Unsupported(_))) if place.exists() => {
                    return Ok(Workspace { folder, lock });
                }
                // Another process took it for a left-over one before it was locked.
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => {
                    let _ = fs::remove_dir(folder);
                    return Err(e);
                }
            }
        }
    }

    /// The place in it of what will be at `path`.
    pub fn at(&self, path: &Path) -> PathBuf {
        self.folder.join(path.file_name().unwrap_or_default())
    }

    /// Syncs the file or folder at `path` with all in it, whose files get the permissions
    /// that the user's umask wants, whoever wrote them.
    fn finish(&self, path: &Path) -> io::Result<()> {
        let usual = self.lock.metadata()?.permissions().mode() & 0o777;
        finish(path, usual)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn finish(path: &Path, usual: u32) -> io::Result<()> {
    let metadata = path.symlink_metadata()?;
    if metadata.is_symlink() {
        return Ok(());
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            finish(&entry?.path(), usual)?;
        }
        return sync_folder(path);
    }
    if metadata.permissions().mode() & 0o777 != usual {
        if_supported(fs::set_permissions(path, Permissions::from_mode(usual)))?;
    }
    if_supported(File::open(path)?.sync_all())
}

/// The place that what is at `path` has, or will have when it leaves its workspace.
pub(super) fn destination(path: &Path) -> PathBuf {
    let hidden = |part: &Component| part.as_os_str().as_bytes().starts_with(PREFIX.as_bytes());
    path.components().filter(|part| !hidden(part)).collect()
}

/// Removes left-over workspaces the first time that this process writes into `folder`.
fn remove_once(folder: &Path) {
    static SEEN: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);
    let mut seen = SEEN.lock().unwrap_or_else(|e| e.into_inner());
    if seen.get_or_insert_default().insert(folder.to_path_buf()) {
        remove_left_over(folder);
    }
}

/// Removes what killed processes left half-written in `folder`; a folder that one of them
/// had put aside for a new one that never came gets its name back.
pub fn remove_left_over(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.as_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        if let Err(error) = remove_if_left_over(&entry.path()) {
            log::debug!("{}: left there: {error}", entry.path().display());
        }
    }
}

fn remove_if_left_over(path: &Path) -> io::Result<()> {
    let kind = path.symlink_metadata()?.file_type();
    if kind.is_symlink() {
        return fs::remove_file(path);
    }
    let is_folder = kind.is_dir();
    let place = match is_folder {
        true => path.join(LOCK),
        false => path.to_path_buf(),
    };
    let (_lock, Answer::Held) = lock(&place)? else {
        return Ok(());
    };
    if !is_folder {
        return fs::remove_file(path);
    }
    if let Ok(replaced) = fs::read_dir(path.join(REPLACED)) {
        for entry in replaced.flatten() {
            restore(&entry.path(), &parent(path).join(entry.file_name()))?;
        }
    }
    fs::remove_dir_all(path)
}

fn restore(from: &Path, to: &Path) -> io::Result<()> {
    match to.symlink_metadata() {
        Err(e) if e.kind() == ErrorKind::NotFound => fs::rename(from, to),
        _ => Ok(()),
    }
}
