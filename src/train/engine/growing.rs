//! Files that grow piece by piece through a run, whatever becomes of the disk meanwhile.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most bytes that wait for room on the disk.
const MOST_WAITING: usize = 64 << 20;

/// A file that is appended to. A piece that cannot be written is no reason to lose a run: it
/// waits in memory, with a warning, and is written before the next one. The file always ends
/// with a whole piece.
pub struct GrowingFile {
    path: PathBuf,
    file: Option<File>,
    /// What could not be written yet.
    waiting: Vec<u8>,
    /// Bytes that were given up.
    lost: u64,
    /// Whether the user was told that something waits.
    told: bool,
}

impl GrowingFile {
    /// The file `path`, which is made when something is written.
    pub fn new(path: PathBuf) -> Self {
        GrowingFile {
            path,
            file: None,
            waiting: Vec::new(),
            lost: 0,
            told: false,
        }
    }

    /// Opens the file, an empty one if there is none.
    ///
    /// # Errors
    ///
    /// As for opening and making files.
    pub fn open(&mut self) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)?;
        self.file = Some(file);
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a piece at the end.
    pub fn append(&mut self, piece: &[u8]) {
        self.waiting.extend(piece);
        match self.write_waiting() {
            Ok(()) if self.told => {
                log::warn!("{}: is written again", self.path.display());
                self.told = false;
            }
            Ok(()) => {}
            Err(error) => {
                if !self.told {
                    log::warn!(
                        "{}: {error}; the run goes on, and what is to be written waits in memory: \
                         make room on the disk",
                        self.path.display()
                    );
                    self.told = true;
                }
                if self.waiting.len() > MOST_WAITING {
                    self.lost += self.waiting.len() as u64;
                    self.waiting.clear();
                }
            }
        }
    }

    /// Tries once more to write what waits, and warns of what stays missing.
    pub fn finish(&mut self) {
        let written = self.write_waiting();
        if let Err(error) = written {
            self.lost += self.waiting.len() as u64;
            self.waiting.clear();
            log::warn!("{}: {error}", self.path.display());
        }
        if self.lost > 0 {
            log::warn!(
                "{}: the run's last {} bytes for it could not be written",
                self.path.display(),
                self.lost
            );
            self.lost = 0;
        }
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        if self
            .file
            .as_ref()
            .is_some_and(|file| self.was_replaced(file))
        {
            log::warn!(
                "{}: was removed or replaced while the run goes on; it begins anew",
                self.path.display()
            );
            self.file = None;
        }
        if self.file.is_none() {
            self.open()?;
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let end = file.seek(SeekFrom::End(0))?;
        if let Err(error) = file.write_all(&self.waiting) {
            // Half a piece may have been written.
            let _ = file.set_len(end);
            return Err(error);
        }
        self.waiting.clear();
        Ok(())
    }

    /// Whether the file's name now stands for another file, or for none.
    fn was_replaced(&self, file: &File) -> bool {
        match (file.metadata(), std::fs::metadata(&self.path)) {
            (Ok(ours), Ok(named)) => (ours.dev(), ours.ino()) != (named.dev(), named.ino()),
            (_, Err(error)) => error.kind() == io::ErrorKind::NotFound,
            (Err(_), _) => false,
        }
    }
}
