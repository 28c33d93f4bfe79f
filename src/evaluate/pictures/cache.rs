//! Features kept by content: one file a network and preparation, one record a picture.
//!
//! ```text
//! header    64 bytes: "vqdiffusion features", the width, zeros
//! record    SHA-256 of the picture (32 bytes), its features (f32), CRC-32 of both
//! ```
//! Records are only ever added, whole, by the one process that holds the lock of the file;
//! others read. A damaged record counts as absent, and the picture is seen again.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::files::{sha256, FileError};

const MAGIC: &[u8; 20] = b"vqdiffusion features";
const HEADER: u64 = 64;
const HASH: usize = 32;
const CRC: usize = 4;

/// The SHA-256 of a picture's size and pixels.
pub type PictureHash = [u8; HASH];

/// The open file of one network.
pub struct FeatureCache {
    file: File,
    path: PathBuf,
    width: usize,
    /// Where in the file a picture's record is.
    places: HashMap<PictureHash, u64>,
    /// Where the next record goes; `None` where another process writes.
    end: Option<u64>,
}

impl FeatureCache {
    /// Opens or makes the file for the features of `width` numbers that `key` names, in
    /// `folder`.
    ///
    /// # Errors
    ///
    /// A folder that cannot be written, or a file there that is something else.
    pub fn open(folder: &Path, key: &str, width: usize) -> Result<Self, FileError> {
        std::fs::create_dir_all(folder).map_err(FileError::writing(folder))?;
        let path = folder.join(format!("{}.features", &sha256(key.as_bytes())[..32]));
        let writing = || FileError::writing(&path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(writing())?;
        // Where locks are not to be had, nobody writes: the cache is then of no use, but
        // never wrong.
        let owned = file.try_lock().is_ok();
        let mut cache = FeatureCache {
            file,
            path: path.clone(),
            width,
            places: HashMap::new(),
            end: None,
        };
        let length = cache.file.metadata().map_err(writing())?.len();
        let mut header = [0u8; HEADER as usize];
        header[..MAGIC.len()].copy_from_slice(MAGIC);
        header[MAGIC.len()..MAGIC.len() + 8].copy_from_slice(&(width as u64).to_le_bytes());
        if length < HEADER {
            if owned {
                cache.file.write_all_at(&header, 0).map_err(writing())?;
                cache.end = Some(HEADER);
            }
            return Ok(cache);
        }
        let mut found = [0u8; HEADER as usize];
        let reading = || FileError::reading(&path);
        cache.file.read_exact_at(&mut found, 0).map_err(reading())?;
        if found != header {
            let problem = "is no file of features of this network; remove it";
            let error = std::io::Error::new(std::io::ErrorKind::InvalidData, problem);
            return Err(reading()(error));
        }
        let records = (length - HEADER) / cache.record();
        for record in 0..records {
            let place = HEADER + record * cache.record();
            let mut hash = [0u8; HASH];
            cache
                .file
                .read_exact_at(&mut hash, place)
                .map_err(reading())?;
            cache.places.insert(hash, place);
        }
        if owned {
            // What a killed process left of a record is written over.
            cache.end = Some(HEADER + records * cache.record());
        }
        Ok(cache)
    }

    /// Bytes of a record.
    fn record(&self) -> u64 {
        (HASH + 4 * self.width + CRC) as u64
    }

    /// Whether there is a record of a picture.
    pub fn has(&self, hash: &PictureHash) -> bool {
        self.places.contains_key(hash)
    }

    /// The features of a picture, if they are known.
    pub fn get(&self, hash: &PictureHash) -> Option<Vec<f32>> {
        let place = *self.places.get(hash)?;
        let mut record = vec![0; self.record() as usize];
        self.file.read_exact_at(&mut record, place).ok()?;
        let (content, crc) = record.split_at(record.len() - CRC);
        if crc32(content).to_le_bytes() != crc || &content[..HASH] != hash {
            return None;
        }
        let numbers = content[HASH..].as_chunks::<4>().0.iter();
        Some(numbers.map(|&bytes| f32::from_le_bytes(bytes)).collect())
    }

    /// Keeps the `features` of a picture.
    ///
    /// # Errors
    ///
    /// A file that can no longer be written.
    pub fn put(&mut self, hash: PictureHash, features: &[f32]) -> Result<(), FileError> {
        let Some(end) = self.end else {
            return Ok(());
        };
        let mut record = Vec::with_capacity(self.record() as usize);
        record.extend(hash);
        features
            .iter()
            .for_each(|value| record.extend(value.to_le_bytes()));
        record.extend(crc32(&record).to_le_bytes());
        self.file
            .write_all_at(&record, end)
            .map_err(FileError::writing(&self.path))?;
        self.places.insert(hash, end);
        self.end = Some(end + self.record());
        Ok(())
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
