//! The format of PyTorch before 1.6: pickles one after the other, then the storages.
//!
//! In order: a magic number, a protocol version, facts about the writing system, the saved value,
//! the list of storage keys (all pickles of their own), and for every key a count of elements in 8
//! bytes and the elements.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::error::{CheckpointError, PickleError};
use super::gather::{Plain, RecordBytes};
use super::parts::PartsReader;
use super::pickle::{Limits, Node, NodeId, Pickle, PickleProgram};
use super::signature::LEGACY_MAGIC;
use super::tensor_ref::{storage_of, TensorProblem};

/// Version of the format, unchanged since it appeared.
const VERSION: i64 = 1001;

/// Where the storages of a file in the older format lie.
pub(super) struct LegacyStorages {
    reader: Mutex<BufReader<PartsReader>>,
    storages: HashMap<String, Place>,
}

/// Position and number of a storage's bytes.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: u64,
    bytes: u64,
}

/// The pickles of a file being opened.
struct Opening<'a> {
    path: &'a Path,
    length: u64,
    limits: Limits,
    pickle: &'a mut Pickle,
    reader: BufReader<PartsReader>,
}

impl LegacyStorages {
    /// Reads everything but the storages' elements; returns the saved value too.
    pub fn open(
        reader: PartsReader,
        path: &Path,
        limits: Limits,
        pickle: &mut Pickle,
    ) -> Result<(Self, NodeId), CheckpointError> {
        let length = reader.length();
        let mut opening = Opening {
            path,
            length,
            limits,
            pickle,
            reader: BufReader::new(reader),
        };
        opening.magic()?;
        opening.version()?;
        opening.byte_order()?;
        let root = opening.pickle("saved value")?;
        let keys = opening.pickle("list of storage keys")?;
        let storages = opening.storages(keys)?;
        let storages = LegacyStorages {
            reader: Mutex::new(opening.reader),
            storages,
        };
        Ok((storages, root))
    }

    /// Hands a storage's bytes to `read`, with their number.
    pub fn with_storage<T>(
        &self,
        key: &str,
        path: &Path,
        read: impl FnOnce(&mut dyn RecordBytes, u64) -> Result<T, CheckpointError>,
    ) -> Result<T, CheckpointError> {
        let Some(place) = self.storages.get(key) else {
            return Err(CheckpointError::BadRecord {
                path: path.into(),
                record: format!("storage {key:?}"),
                found: "no such storage".into(),
                expected: format!("one of the {} in the file", self.storages.len()),
            });
        };
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let mut record = Plain {
            reader: &mut *reader,
            base: place.start,
        };
        read(&mut record, place.bytes)
    }
}

impl Opening<'_> {
    fn pickle(&mut self, what: &str) -> Result<NodeId, CheckpointError> {
        let read = self
            .pickle
            .read(&mut self.reader, PickleProgram::Data, self.limits);
        read.map_err(|source| match source {
            PickleError::Truncated { .. } => CheckpointError::CutOff {
                path: self.path.into(),
                detail: format!("its {} bytes end inside the {what}", self.length),
            },
            source => CheckpointError::Pickle {
                path: self.path.into(),
                record: what.into(),
                source,
            },
        })
    }

    fn bad(&self, record: &str, found: String, expected: &str) -> CheckpointError {
        CheckpointError::BadRecord {
            path: self.path.into(),
            record: record.into(),
            found,
            expected: expected.into(),
        }
    }

    fn magic(&mut self) -> Result<(), CheckpointError> {
        let magic = self.pickle("magic number")?;
        match self.pickle.node(magic) {
            // The same number may be written with zeros behind its highest byte.
            Some(Node::BigInt(bytes))
                if bytes.starts_with(&LEGACY_MAGIC)
                    && bytes.iter().skip(LEGACY_MAGIC.len()).all(|&b| b == 0) =>
            {
                Ok(())
            }
            _ => Err(CheckpointError::NotACheckpoint {
                path: self.path.into(),
                found: "a pickle that torch.save did not write (the magic number is missing)"
                    .into(),
            }),
        }
    }

    fn version(&mut self) -> Result<(), CheckpointError> {
        let version = self.pickle("format version")?;
        match self.pickle.as_i64(version) {
            Some(VERSION) => Ok(()),
            version => {
                let found = version.map_or("no integer".into(), |v| v.to_string());
                Err(self.bad("format version", found, &VERSION.to_string()))
            }
        }
    }

    fn byte_order(&mut self) -> Result<(), CheckpointError> {
        let system = self.pickle("system facts")?;
        let little = self.pickle.get(system, "little_endian");
        match little.and_then(|id| self.pickle.as_bool(id)) {
            Some(false) => Err(CheckpointError::Unsupported {
                path: self.path.into(),
                what: "a checkpoint in big-endian byte order".into(),
                remedy: "load and save it again on a little-endian machine",
            }),
            _ => Ok(()),
        }
    }

    /// Finds every storage by walking over all of them, since each one's place follows from the
    /// sizes of those before it.
    fn storages(&mut self, keys: NodeId) -> Result<HashMap<String, Place>, CheckpointError> {
        let described = self.described()?;
        let record = "list of storage keys";
        if !matches!(self.pickle.node(keys), Some(Node::List(_))) {
            return Err(self.bad(record, "another value".into(), "a list of strings"));
        }
        let mut storages = HashMap::new();
        let mut at = self
            .reader
            .stream_position()
            .map_err(|e| self.io(record, e))?;
        for &id in self.pickle.items(keys) {
            let known = self.pickle.as_str(id);
            let known = known.and_then(|key| Some((key, described.get(key)?)));
            let Some((key, &(size, bytes))) = known else {
                let shown = self.pickle.as_str(id).unwrap_or("no string");
                let shown: String = shown.chars().take(40).collect();
                let found = format!("the key {shown:?}");
                return Err(self.bad(record, found, "keys that the saved value names"));
            };
            let name = || format!("storage {:?}", key.chars().take(40).collect::<String>());
            let mut count = [0; 8];
            self.reader
                .read_exact(&mut count)
                .map_err(|e| self.io(&name(), e))?;
            let count = i64::from_le_bytes(count);
            let held = u64::try_from(count).ok().and_then(|n| n.checked_mul(size));
            if held != Some(bytes) {
                let found = format!("{count} elements of {size} bytes");
                return Err(self.bad(&name(), found, &format!("{bytes} bytes")));
            }
            let start = at.saturating_add(8);
            at = start.saturating_add(bytes);
            if at > self.length {
                return Err(CheckpointError::CutOff {
                    path: self.path.into(),
                    detail: format!(
                        "{} needs bytes {start} to {at}, of {} that there are",
                        name(),
                        self.length
                    ),
                });
            }
            storages.insert(key.to_string(), Place { start, bytes });
            // Within the buffer this costs no system call.
            let step = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.reader
                .seek_relative(step)
                .map_err(|e| self.io(&name(), e))?;
        }
        Ok(storages)
    }

    /// Bytes per element and in all of every storage that the saved value names.
    fn described(&self) -> Result<HashMap<String, (u64, u64)>, CheckpointError> {
        let mut described = HashMap::new();
        for (id, node) in self.pickle.nodes() {
            if !matches!(node, Node::Persistent { .. }) || self.pickle.class_name(id).is_some() {
                continue;
            }
            let (element, storage, _) = storage_of(self.pickle, id).map_err(|e| match e {
                TensorProblem::Unsupported(what) => CheckpointError::UnsupportedTensor {
                    path: self.path.into(),
                    entry: "a tensor".into(),
                    what,
                },
                TensorProblem::Bad { found, expected } => self.bad("saved value", found, &expected),
            })?;
            let sizes = (element.size, storage.bytes);
            let before = described.insert(storage.key, sizes);
            if before.is_some_and(|before| before != sizes) {
                let found = format!("a storage with sizes {before:?} and {sizes:?}");
                return Err(self.bad("saved value", found, "one size for each storage"));
            }
        }
        Ok(described)
    }

    fn io(&self, what: &str, source: io::Error) -> CheckpointError {
        if source.kind() == io::ErrorKind::UnexpectedEof {
            return CheckpointError::CutOff {
                path: self.path.into(),
                detail: format!("its {} bytes end inside {what}", self.length),
            };
        }
        CheckpointError::Io {
            path: self.path.into(),
            what: what.into(),
            source,
        }
    }
}
