//! Reading files from outside: regular ones alone, and no more of them than fits.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::FileError;

/// Opens the regular file at `path`, or the one it links to.
///
/// # Errors
///
/// A path that does not exist or may not be read; a folder, pipe, socket or device, which
/// would block or never end.
pub fn open(path: &Path) -> Result<File, FileError> {
    let checked = || {
        only_regular(&std::fs::metadata(path)?)?;
        File::open(path)
    };
    checked().map_err(FileError::reading(path))
}

/// Refuses what is no regular file, in words.
pub(super) fn only_regular(metadata: &std::fs::Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    let (error, found) = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => (ErrorKind::IsADirectory, "folder"),
        () if kind.is_fifo() => (ErrorKind::InvalidInput, "pipe"),
        () if kind.is_socket() => (ErrorKind::InvalidInput, "socket"),
        () => (ErrorKind::InvalidInput, "device"),
    };
    let problem = format!("is a {found}, expected a file");
    Err(io::Error::new(error, problem))
}

/// Whether `path` is a pipe that the process was started with, such as a shell's `<(…)`:
/// somebody writes to it.
fn is_given_pipe(path: &Path) -> bool {
    let folders = ["/dev/fd", "/proc/self/fd"].map(Path::new);
    let given = path == Path::new("/dev/stdin")
        || path
            .parent()
            .is_some_and(|folder| folders.contains(&folder));
    given && std::fs::metadata(path).is_ok_and(|file| file.file_type().is_fifo())
}

/// The bytes of the regular file at `path`, at most `limit` of them; also of a pipe that
/// the process was started with.
///
/// # Errors
///
/// As [`open`], and a larger file.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let file = match is_given_pipe(path) {
        true => File::open(path).map_err(FileError::reading(path))?,
        false => open(path)?,
    };
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(FileError::reading(path))?;
    if bytes.len() as u64 > limit {
        let problem = format!("holds more than {limit} bytes");
        let error = io::Error::new(ErrorKind::FileTooLarge, problem);
        return Err(FileError::reading(path)(error));
    }
    Ok(bytes)
}

/// As [`read`], of a file in UTF-8.
pub fn read_text(path: &Path, limit: u64) -> Result<String, FileError> {
    String::from_utf8(read(path, limit)?).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let problem = format!("is not text in UTF-8 (byte {at})");
        FileError::reading(path)(io::Error::new(ErrorKind::InvalidData, problem))
    })
}
