//! The zip format: a pickle named `data.pkl`, and one record for every storage.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use zip::read::ZipReadOptions;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::error::CheckpointError;
use super::gather::{Plain, RecordBytes, Sequential};
use super::parts::PartsReader;

/// Deflate can not shrink data more than this.
const DEFLATE_RATIO: u64 = 1032;

/// The end of a zip file: its directory's last record, with a comment of at most 64 KiB.
const DIRECTORY_END: u64 = 22 + (1 << 16);

/// The records of a checkpoint in zip format.
pub(super) struct ZipRecords {
    archive: Mutex<ZipArchive<BufReader<PartsReader>>>,
    /// Bytes of the whole archive.
    length: u64,
    /// The folder inside the archive that holds the checkpoint, with a final `/` or empty.
    prefix: String,
}

/// What the directory says about a record, checked against the archive.
struct Record {
    index: usize,
    stored: bool,
    size: u64,
}

impl ZipRecords {
    pub fn open(reader: PartsReader, path: &Path) -> Result<Self, CheckpointError> {
        let length = reader.length();
        let mut reader = BufReader::new(reader);
        let complete =
            has_directory_end(&mut reader, length).map_err(|source| CheckpointError::Io {
                path: path.into(),
                what: "the end of the archive".into(),
                source,
            })?;
        if !complete {
            return Err(CheckpointError::CutOff {
                path: path.into(),
                detail: format!(
                    "it begins as a zip archive, but its {length} bytes end without the archive's directory"
                ),
            });
        }
        let archive = ZipArchive::new(reader).map_err(|e| match e {
            ZipError::Io(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
                CheckpointError::Io {
                    path: path.into(),
                    what: "the zip directory".into(),
                    source,
                }
            }
            e => CheckpointError::BadRecord {
                path: path.into(),
                record: "zip directory".into(),
                found: e.to_string(),
                expected: "a whole zip archive".into(),
            },
        })?;
        let prefix = find_prefix(&archive, path)?;
        Ok(ZipRecords {
            archive: Mutex::new(archive),
            length,
            prefix,
        })
    }

    /// Name of a record inside the archive.
    pub fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Whether there is a record of this name under the checkpoint's folder.
    pub fn contains(&self, name: &str) -> bool {
        let archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
        let full = self.full_name(name);
        archive.index_for_name_raw(full.as_bytes()).is_some()
    }

    /// Hands a record's bytes to `read`, with their number (which, for a compressed record, is
    /// what the directory claims). Checksums are left out: PyTorch does not check them either, and
    /// can be told to write wrong ones.
    pub fn with_record<T>(
        &self,
        name: &str,
        path: &Path,
        read: impl FnOnce(&mut dyn RecordBytes, u64) -> Result<T, CheckpointError>,
    ) -> Result<T, CheckpointError> {
        let mut archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
        let full = self.full_name(name);
        let record = self.checked(&mut archive, &full, path)?;
        let bad = |e: ZipError| bad_record(path, &full, e.to_string(), "a readable record");
        if record.stored {
            let reader = archive.by_index_seek(record.index).map_err(bad)?;
            read(&mut Plain { reader, base: 0 }, record.size)
        } else {
            let options = ZipReadOptions::new().ignore_crc32(true);
            let reader = archive
                .by_index_with_options(record.index, options)
                .map_err(bad)?;
            read(&mut Sequential { reader, at: 0 }, record.size)
        }
    }

    fn checked(
        &self,
        archive: &mut ZipArchive<BufReader<PartsReader>>,
        full: &str,
        path: &Path,
    ) -> Result<Record, CheckpointError> {
        let bad = |found: String, expected: &str| bad_record(path, full, found, expected);
        let Some(index) = archive.index_for_name_raw(full.as_bytes()) else {
            return Err(bad("no such record".into(), "a record of this name"));
        };
        let entry = archive
            .by_index_raw(index)
            .map_err(|e| bad(e.to_string(), "a readable record"))?;
        let (size, packed) = (entry.size(), entry.compressed_size());
        let start = entry.data_start().unwrap_or(0);
        if entry.encrypted() {
            return Err(bad("an encrypted record".into(), "a plain one"));
        }
        if start
            .checked_add(packed)
            .is_none_or(|end| end > self.length)
        {
            return Err(bad(
                format!("{packed} bytes from byte {start} on"),
                &format!("a record inside the archive's {} bytes", self.length),
            ));
        }
        let stored = match entry.compression() {
            CompressionMethod::Stored => true,
            CompressionMethod::Deflated => false,
            method => {
                let found = format!("compression method {method}");
                return Err(bad(found, "a stored or deflated record"));
            }
        };
        let possible = if stored {
            size == packed
        } else {
            size / DEFLATE_RATIO <= packed
        };
        if !possible {
            return Err(bad(
                format!("a size of {size} bytes held in {packed}"),
                "sizes that fit each other",
            ));
        }
        Ok(Record {
            index,
            stored,
            size,
        })
    }
}

fn bad_record(path: &Path, record: &str, found: String, expected: &str) -> CheckpointError {
    CheckpointError::BadRecord {
        path: path.into(),
        record: record.into(),
        found,
        expected: expected.into(),
    }
}

/// Whether the signature that ends a zip archive is where it has to be.
fn has_directory_end<R: Read + Seek>(reader: &mut R, length: u64) -> io::Result<bool> {
    let mut tail = Vec::new();
    reader.seek(SeekFrom::Start(length.saturating_sub(DIRECTORY_END)))?;
    reader.take(DIRECTORY_END).read_to_end(&mut tail)?;
    reader.rewind()?;
    Ok(tail.windows(4).any(|four| four == b"PK\x05\x06"))
}

/// The folder of the outermost `data.pkl`. Its name is the file's name when it was saved, and an
/// archive that was packed again may have put it deeper.
fn find_prefix<R: Read + Seek>(
    archive: &ZipArchive<R>,
    path: &Path,
) -> Result<String, CheckpointError> {
    let names = || {
        let raw = archive.file_names_raw();
        raw.filter_map(|name| std::str::from_utf8(name).ok())
    };
    let prefixes = names().filter_map(|name| {
        let prefix = name.strip_suffix("data.pkl")?;
        (prefix.is_empty() || prefix.ends_with('/')).then_some(prefix)
    });
    if let Some(prefix) = prefixes.min_by_key(|prefix| prefix.matches('/').count()) {
        return Ok(prefix.to_string());
    }
    let old_script = names().any(|name| name.ends_with("/model.json"));
    if old_script {
        return Err(CheckpointError::Unsupported {
            path: path.into(),
            what: "a TorchScript archive from before PyTorch 1.4".into(),
            remedy: "load and save it again with a newer PyTorch",
        });
    }
    let held: Vec<String> = names()
        .take(4)
        .map(|name| format!("{:?}", name.chars().take(60).collect::<String>()))
        .collect();
    let found = if held.is_empty() {
        "an empty zip archive".to_string()
    } else {
        format!(
            "a zip archive without data.pkl, that holds {}{}; if a checkpoint is inside, extract it first",
            held.join(", "),
            if archive.len() > held.len() { ", ..." } else { "" }
        )
    };
    Err(CheckpointError::NotACheckpoint {
        path: path.into(),
        found,
    })
}
