//! Locks of folders: one process at a time writes there.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use super::lock::{lock, Answer};
use super::{new, Action, FileError};

/// The file in a locked folder; it holds the process and the machine.
const NAME: &str = ".vqdiffusion.lock";

/// The right to write in a folder, until it is dropped or the process ends in any way.
#[derive(Debug)]
pub struct FolderLock {
    folder: PathBuf,
    path: PathBuf,
    _held: File,
}

impl FolderLock {
    /// Makes `folder` where it is missing, locks it, and removes what killed processes left
    /// half-written in it. On a disk without locks there is a warning.
    ///
    /// # Errors
    ///
    /// A folder that another process has locked, at once.
    pub fn take(folder: &Path) -> Result<Self, FileError> {
        let failed = |source| FileError::new(folder, Action::Lock, source);
        if std::fs::metadata(folder).is_ok_and(|there| !there.is_dir()) {
            let problem = "is no folder, expected one to write in";
            let error = io::Error::new(ErrorKind::NotADirectory, problem);
            return Err(failed(error));
        }
        std::fs::create_dir_all(folder).map_err(FileError::writing(folder))?;
        let path = folder.join(NAME);
        let mut held = loop {
            let (file, answer) = lock(&path).map_err(failed)?;
            match answer {
                Answer::Held if path.exists() => break file,
                // The process that held it removed it meanwhile.
                Answer::Held => continue,
                Answer::HeldElsewhere => return Err(failed(in_use(file))),
                Answer::Unsupported(why) => {
                    let folder = folder.display();
                    log::warn!(
                        "{folder}: this disk knows no locks ({why}); see to it that no other \
                         process writes there"
                    );
                    break file;
                }
            }
        };
        // Only for the message to others.
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let owner = format!("process {} on {}\n", std::process::id(), machine.trim());
        let _ = held
            .set_len(0)
            .and_then(|()| held.write_all(owner.as_bytes()));
        new::remove_left_over(folder);
        Ok(FolderLock {
            folder: folder.to_path_buf(),
            path,
            _held: held,
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // While it is held: whoever opened it before sees that it is gone.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn in_use(file: File) -> io::Error {
    let mut owner = String::new();
    let _ = file.take(200).read_to_string(&mut owner);
    let owner = match owner.trim() {
        "" => String::new(),
        owner => format!(" ({owner})"),
    };
    let problem =
        format!("another process{owner} is writing here; wait for its end or give another folder");
    io::Error::new(ErrorKind::ResourceBusy, problem)
}
