//! Locks of files, known to the kernel, so that a killed process leaves none.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

use super::is_unsupported;

pub(super) enum Answer {
    Held,
    HeldElsewhere,
    Unsupported(io::Error),
}

/// Opens or makes the file at `path` and asks for its lock. Closing the file gives it back.
pub(super) fn lock(path: &Path) -> io::Result<(File, Answer)> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    let answer = match file.try_lock() {
        Ok(()) => Answer::Held,
        Err(TryLockError::WouldBlock) => Answer::HeldElsewhere,
        Err(TryLockError::Error(error)) if is_unsupported(&error) => Answer::Unsupported(error),
        Err(TryLockError::Error(error)) => return Err(error),
    };
    Ok((file, answer))
}
