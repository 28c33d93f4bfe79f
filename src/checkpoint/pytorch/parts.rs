//! A file that is split into parts (`x.pth_aa`, `x.pth_ab`, ...), read as one.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::files::{self, FileError};

/// Why the parts of a file could not be found or opened.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// Neither the file nor a first part of it exists.
    #[error("{}: no such file, nor a first part {}_aa or {}.aa", path.display(), path.display(), path.display())]
    NotFound { path: PathBuf },

    /// A part is absent though a later one exists.
    #[error("{}: this part is missing, though {} exists; all parts have to be in one folder", missing.display(), later.display())]
    MissingPart { missing: PathBuf, later: PathBuf },

    /// Two sets of parts fit the same name.
    #[error("{}: found both {} and {}, expected one set of parts; name the first part itself", path.display(), first.display(), second.display())]
    Ambiguous {
        path: PathBuf,
        first: PathBuf,
        second: PathBuf,
    },

    /// The file or a part of it is a folder, a pipe or another thing that is no file, or
    /// cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The parts of a file as one stream; a file in one piece has one part.
#[derive(Debug)]
pub struct PartsReader {
    parts: Vec<Part>,
    length: u64,
    at: u64,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    file: File,
    /// Position in the whole of the first byte, and of the one past the last.
    start: u64,
    end: u64,
    /// Where the file's own cursor stands.
    cursor: u64,
}

impl PartsReader {
    /// Opens a file, whole or in parts.
    ///
    /// `path` names a whole file; or a part, by a suffix of equally many (two to four) lower case
    /// letters after `_` or `.` (all its siblings are then read with it, from `aa` on); or the
    /// stem that such parts share, when no file of that name exists.
    ///
    /// # Errors
    ///
    /// No such file; a part missing before another one; two sets of parts; not a file; input or
    /// output failing. That the last part is missing can not be seen from the names.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, PartsError> {
        let mut parts: Vec<Part> = Vec::new();
        let mut length = 0u64;
        for path in find(path.as_ref())? {
            let file = files::open(&path)?;
            let meta = file.metadata().map_err(FileError::reading(&path))?;
            let start = length;
            length = start.saturating_add(meta.len());
            parts.push(Part {
                path,
                file,
                start,
                end: length,
                cursor: 0,
            });
        }
        Ok(PartsReader {
            parts,
            length,
            at: 0,
        })
    }

    /// Bytes of all parts together.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The files, in order.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().map(|part| part.path.as_path())
    }
}

impl Read for PartsReader {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let at = self.at;
        // The first part that ends behind the position holds it; empty parts never do.
        let index = self.parts.partition_point(|part| part.end <= at);
        let Some(part) = self.parts.get_mut(index) else {
            return Ok(0);
        };
        let own = at.saturating_sub(part.start);
        if part.cursor != own {
            part.cursor = part.file.seek(SeekFrom::Start(own))?;
        }
        // A part that grew since it was opened still ends where the next one begins.
        let room = usize::try_from(part.end - at).unwrap_or(usize::MAX);
        let room = room.min(to.len());
        let count = part.file.read(to.get_mut(..room).unwrap_or_default())?;
        if count == 0 && room > 0 {
            // A part that shrank must not be taken for the end of the whole.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        part.cursor += count as u64;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for PartsReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

/// A part's name: what all parts share (`x.pth_`), and its letters.
fn split_name(path: &Path) -> Option<(&str, &str)> {
    let name = path.file_name()?.to_str()?;
    let cut = name.rfind(['_', '.'])? + 1;
    let (stem, letters) = name.split_at_checked(cut)?;
    let fits = (2..=4).contains(&letters.len()) && letters.bytes().all(|b| b.is_ascii_lowercase());
    (fits && stem.len() > 1).then_some((stem, letters))
}

/// The files to read for a path, in order.
fn find(path: &Path) -> Result<Vec<PathBuf>, PartsError> {
    let exists = match fs::metadata(path) {
        Ok(_) => true,
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(source) => return Err(FileError::reading(path)(source).into()),
    };
    if let Some((stem, letters)) = split_name(path) {
        let parts = siblings(path, stem, letters.len())?;
        // A name like `model.ckpt` has letters behind a dot too, but is no part without an `aa`.
        let first = "a".repeat(letters.len());
        let is_set = letters == first || parts.iter().any(|(found, _)| *found == first);
        if is_set && !parts.is_empty() {
            return complete(path, stem, parts);
        }
    }
    if exists {
        return Ok(vec![path.into()]);
    }
    let mut sets = Vec::new();
    if let Some(name) = path.file_name().and_then(|n| n.to_str()) {
        for stem in [format!("{name}_"), format!("{name}.")] {
            for letters in 2..=4 {
                let parts = siblings(path, &stem, letters)?;
                // `x.pth` and `x.bak` beside each other do not make `x` a split file.
                let near =
                    |(found, _): &(String, PathBuf)| found.starts_with(&"a".repeat(letters - 1));
                if parts.first().is_some_and(near) {
                    sets.push((stem.clone(), parts));
                }
            }
        }
    }
    let mut sets = sets.into_iter();
    match (sets.next(), sets.next()) {
        (Some((stem, parts)), None) => complete(path, &stem, parts),
        (Some((first, _)), Some((second, _))) => Err(PartsError::Ambiguous {
            path: path.into(),
            first: path.with_file_name(first + "aa"),
            second: path.with_file_name(second + "aa"),
        }),
        _ => Err(PartsError::NotFound { path: path.into() }),
    }
}

/// All files beside `path` named `stem` and so many letters, sorted by the letters.
fn siblings(path: &Path, stem: &str, letters: usize) -> Result<Vec<(String, PathBuf)>, PartsError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // A file may be readable in a folder that can not be listed, or the folder be absent;
        // opening the file itself then tells what is wrong.
        Err(_) => return Ok(Vec::new()),
    };
    let mut found = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let Some((_, own)) = split_name(Path::new(&name)).filter(|(s, _)| *s == stem) else {
            continue;
        };
        if own.len() == letters {
            found.push((own.to_string(), path.with_file_name(&name)));
        }
    }
    found.sort();
    Ok(found)
}

/// Checks that parts follow each other without a gap.
fn complete(
    path: &Path,
    stem: &str,
    parts: Vec<(String, PathBuf)>,
) -> Result<Vec<PathBuf>, PartsError> {
    let mut expected = parts.first().map(|(first, _)| "a".repeat(first.len()));
    let mut files = Vec::new();
    for (letters, file) in parts {
        if expected.as_ref() != Some(&letters) {
            let missing = format!("{stem}{}", expected.unwrap_or_default());
            return Err(PartsError::MissingPart {
                missing: path.with_file_name(missing),
                later: file,
            });
        }
        expected = following(&letters);
        files.push(file);
    }
    Ok(files)
}

/// The letters after these: `ab` after `aa`, `ba` after `az`; none after `zz`.
fn following(letters: &str) -> Option<String> {
    let mut bytes = letters.as_bytes().to_vec();
    for byte in bytes.iter_mut().rev() {
        if *byte < b'z' {
            *byte += 1;
            return String::from_utf8(bytes).ok();
        }
        *byte = b'a';
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(folder.path().join(name), format!("<{name}>")).unwrap();
        }
        folder
    }

    fn text(folder: &tempfile::TempDir, name: &str) -> Result<String, String> {
        let mut parts = PartsReader::open(folder.path().join(name)).map_err(|e| e.to_string())?;
        let mut text = String::new();
        parts.read_to_string(&mut text).unwrap();
        Ok(text)
    }

    #[test]
    fn parts_are_joined_by_any_of_their_names() {
        let folder = folder_with(&[
            "x.pth_aa",
            "x.pth_ab",
            "x.pth_ac",
            "y.aa",
            "y.ab",
            "x.pth_abc",
        ]);
        let whole = "<x.pth_aa><x.pth_ab><x.pth_ac>";
        for name in ["x.pth_aa", "x.pth", "x.pth_ab"] {
            assert_eq!(text(&folder, name).as_deref(), Ok(whole));
        }
        assert_eq!(text(&folder, "y").as_deref(), Ok("<y.aa><y.ab>"));
    }

    #[test]
    fn a_whole_file_is_itself_even_beside_parts() {
        let folder = folder_with(&["x.ckpt", "x.ckpt_aa", "x.pth", "run_best", "run_last"]);
        assert_eq!(text(&folder, "x.ckpt").as_deref(), Ok("<x.ckpt>"));
        assert_eq!(text(&folder, "x.pth").as_deref(), Ok("<x.pth>"));
        assert_eq!(text(&folder, "run_best").as_deref(), Ok("<run_best>"));
        // `x` itself does not exist, and `x.ckpt` and `x.pth` are no parts of it.
        assert!(text(&folder, "x").unwrap_err().contains("no such file"));
        assert!(text(&folder, ".").unwrap_err().contains("a folder"));
    }

    #[test]
    fn a_gap_is_named() {
        let folder = folder_with(&["x_aa", "x_ac", "y_ab"]);
        for (name, missing) in [
            ("x_aa", "x_ab: "),
            ("x", "x_ab: "),
            ("y", "y_aa: "),
            ("y_aa", "y_aa: "),
        ] {
            let message = text(&folder, name).unwrap_err();
            assert!(message.contains(missing), "{message}");
            assert!(message.contains("missing"), "{message}");
        }
    }

    #[test]
    fn letters_carry() {
        assert_eq!(following("az").as_deref(), Some("ba"));
        assert_eq!(following("zz"), None);
    }

    #[test]
    fn seeking_crosses_parts() {
        let folder = folder_with(&["x_aa", "x_ab"]);
        let mut parts = PartsReader::open(folder.path().join("x_aa")).unwrap();
        assert_eq!(parts.length(), 12);
        parts.seek(SeekFrom::Start(4)).unwrap();
        let mut bytes = [0; 4];
        parts.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"a><x");
        parts.seek(SeekFrom::End(-2)).unwrap();
        assert_eq!(io::read_to_string(&mut parts).unwrap(), "b>");
        assert!(parts.seek(SeekFrom::End(-13)).is_err());
    }
}
