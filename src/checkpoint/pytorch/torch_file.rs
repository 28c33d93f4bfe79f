//! A PyTorch checkpoint file: its values, and its tensors on demand.

use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use super::dtype::DType;
use super::error::{CheckpointError, PickleError};
use super::gather::{gather, RecordBytes};
use super::legacy_format::LegacyStorages;
use super::parts::PartsReader;
use super::pickle::{Limits, NodeId, Pickle, PickleProgram};
use super::signature::{signature, Signature, HEAD};
use super::tensor_ref::{tensor, TensorProblem, TensorRef};
use super::zip_format::ZipRecords;

/// Largest tensor that is made of fewer bytes of storage than its own (by repeating elements):
/// enough for position indices and masks, too little to exhaust memory from a small file.
const MAX_EXPANDED: u64 = 256 << 20;

/// How a checkpoint file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `torch.save` since PyTorch 1.6.
    Zip,
    /// `torch.jit.save`.
    TorchScript,
    /// `torch.save` before PyTorch 1.6.
    Legacy,
}

/// An open checkpoint file.
///
/// The values (nested dicts down to tensor descriptions) are in memory from the start; tensor
/// elements are read from the file when asked for. Reading takes `&self` and may be done from
/// several threads, one at a time.
pub struct TorchFile {
    path: PathBuf,
    parts: Vec<PathBuf>,
    pickle: Pickle,
    root: NodeId,
    constants: Option<NodeId>,
    container: Container,
}

enum Container {
    Zip(ZipRecords),
    Legacy(LegacyStorages),
}

impl TorchFile {
    /// Opens a checkpoint, recognised by its content whatever its name.
    ///
    /// The path may also name a file that is split into parts; see [`PartsReader::open`].
    ///
    /// # Errors
    ///
    /// No such file, a missing part, something that is no checkpoint, a cut off or damaged one, one
    /// in big-endian order, or one beyond the default [`Limits`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        Self::open_with(path, Limits::default())
    }

    /// Opens a checkpoint with other limits; see [`TorchFile::open`].
    pub fn open_with(path: impl AsRef<Path>, limits: Limits) -> Result<Self, CheckpointError> {
        let path = path.as_ref();
        let reader = PartsReader::open(path)?;
        let parts: Vec<PathBuf> = reader.paths().map(PathBuf::from).collect();
        match Self::open_parts(path, parts.clone(), reader, limits) {
            // The names of parts do not tell how many there should be.
            Err(CheckpointError::CutOff { path, detail }) if parts.len() > 1 => {
                let detail = format!(
                    "{detail} (read as {} parts; is one missing at the end?)",
                    parts.len()
                );
                Err(CheckpointError::CutOff { path, detail })
            }
            opened => opened,
        }
    }

    fn open_parts(
        path: &Path,
        parts: Vec<PathBuf>,
        mut reader: PartsReader,
        limits: Limits,
    ) -> Result<Self, CheckpointError> {
        let io = |source| CheckpointError::Io {
            path: path.into(),
            what: "the first bytes".into(),
            source,
        };
        let mut head = Vec::new();
        let read = reader.by_ref().take(HEAD as u64).read_to_end(&mut head);
        read.and_then(|_| reader.rewind()).map_err(io)?;
        let mut pickle = Pickle::new();
        let mut constants = None;
        let (root, container) = match signature(&head) {
            Signature::Zip => {
                let records = ZipRecords::open(reader, path)?;
                check_byte_order(&records, path)?;
                let mut read =
                    |name, source| read_pickle(&records, path, name, source, limits, &mut pickle);
                let root = read("data.pkl", PickleProgram::Data)?;
                if records.contains("constants.pkl") {
                    constants = Some(read("constants.pkl", PickleProgram::Constants)?);
                }
                (root, Container::Zip(records))
            }
            Signature::Pickle => {
                let (storages, root) = LegacyStorages::open(reader, path, limits, &mut pickle)?;
                (root, Container::Legacy(storages))
            }
            Signature::CutOff => {
                return Err(CheckpointError::CutOff {
                    path: path.into(),
                    detail: format!("it has only {} bytes", head.len()),
                })
            }
            Signature::Foreign(found) => {
                return Err(CheckpointError::NotACheckpoint {
                    path: path.into(),
                    found,
                })
            }
        };
        Ok(TorchFile {
            path: path.into(),
            parts,
            pickle,
            root,
            constants,
            container,
        })
    }

    /// The path this was opened with.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files read, in order; more than one if the checkpoint is split.
    pub fn parts(&self) -> &[PathBuf] {
        &self.parts
    }

    /// How the file is laid out.
    pub fn format(&self) -> Format {
        match (&self.container, self.constants) {
            (Container::Legacy(_), _) => Format::Legacy,
            (Container::Zip(_), Some(_)) => Format::TorchScript,
            (Container::Zip(_), None) => Format::Zip,
        }
    }

    /// All values of the file.
    pub fn pickle(&self) -> &Pickle {
        &self.pickle
    }

    /// The saved value; of a TorchScript archive, the outermost module.
    pub fn root(&self) -> NodeId {
        self.root
    }

    /// The constants of a TorchScript archive, a tuple of tensors.
    pub fn constants(&self) -> Option<NodeId> {
        self.constants
    }

    /// The value under a string key: of a dict, or an attribute of an object such as a TorchScript
    /// module or a namespace. See [`Pickle::pairs`].
    pub fn get(&self, node: NodeId, key: &str) -> Option<NodeId> {
        self.pickle.get(node, key)
    }

    /// The values under string keys, in the order written. See [`Pickle::pairs`].
    pub fn entries(&self, node: NodeId) -> impl Iterator<Item = (&str, NodeId)> {
        self.pickle.entries(node)
    }

    /// The dense tensor that a node stands for, also as a parameter; `None` if the node stands for
    /// something that is no tensor.
    ///
    /// # Errors
    ///
    /// A tensor that is not dense or of a foreign element type, or one whose description is
    /// impossible, such as one that exceeds its storage.
    pub fn tensor(&self, node: NodeId) -> Result<Option<TensorRef>, CheckpointError> {
        tensor(&self.pickle, node).map_err(|problem| self.tensor_error(problem))
    }

    /// Reads a tensor's elements: contiguous, in row-major order, little-endian, `bool` as 0 or 1.
    ///
    /// Only the range of the storage that the tensor uses is read. Memory taken is the tensor's own
    /// size and little more, except for layouts whose elements overlap in steps other than whole
    /// repetitions (sliding windows), which also take the range they lie in.
    ///
    /// # Errors
    ///
    /// A description that does not fit its storage, a storage that is missing, damaged or of
    /// another size than described, a repeated tensor beyond 256 MiB, or input failing.
    pub fn read_tensor(&self, tensor: &TensorRef) -> Result<Vec<u8>, CheckpointError> {
        tensor
            .check()
            .map_err(|problem| self.tensor_error(problem))?;
        let bytes = tensor.byte_len().unwrap_or(u64::MAX);
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let storage = &tensor.storage;
        if bytes > storage.bytes.max(MAX_EXPANDED) {
            return Err(self.tensor_error(TensorProblem::Bad {
                found: format!("{bytes} bytes repeated from {}", storage.bytes),
                expected: format!("at most {MAX_EXPANDED} bytes of a repeated tensor"),
            }));
        }
        let read = |record: &str, bytes: &mut dyn RecordBytes, size: u64| {
            if size != storage.bytes {
                return Err(CheckpointError::BadRecord {
                    path: self.path.clone(),
                    record: record.into(),
                    found: format!("{size} bytes"),
                    expected: format!("{} bytes, as the checkpoint says", storage.bytes),
                });
            }
            gather(tensor, bytes).map_err(|e| record_error(&self.path, record, e))
        };
        let mut elements = match &self.container {
            Container::Zip(records) => {
                let name = match storage.source {
                    PickleProgram::Data => format!("data/{}", storage.key),
                    PickleProgram::Constants => format!("constants/{}", storage.key),
                };
                let full = records.full_name(&name);
                records.with_record(&name, &self.path, |b, size| read(&full, b, size))?
            }
            Container::Legacy(storages) => {
                let record = format!("storage {:?}", storage.key);
                storages.with_storage(&storage.key, &self.path, |b, size| read(&record, b, size))?
            }
        };
        if tensor.dtype == DType::Bool {
            // Any other value would be undefined behaviour for whoever takes these for bools.
            elements
                .iter_mut()
                .for_each(|byte| *byte = u8::from(*byte != 0));
        }
        Ok(elements)
    }

    fn tensor_error(&self, problem: TensorProblem) -> CheckpointError {
        let (path, entry) = (self.path.clone(), "a tensor".to_string());
        match problem {
            TensorProblem::Unsupported(what) => {
                CheckpointError::UnsupportedTensor { path, entry, what }
            }
            TensorProblem::Bad { found, expected } => CheckpointError::BadTensor {
                path,
                entry,
                found,
                expected,
            },
        }
    }
}

fn record_error(path: &Path, record: &str, source: io::Error) -> CheckpointError {
    if source.kind() == io::ErrorKind::UnexpectedEof {
        return CheckpointError::CutOff {
            path: path.into(),
            detail: format!("its bytes end inside {record}"),
        };
    }
    CheckpointError::Io {
        path: path.into(),
        what: record.into(),
        source,
    }
}

fn read_pickle(
    records: &ZipRecords,
    path: &Path,
    name: &str,
    source: PickleProgram,
    limits: Limits,
    pickle: &mut Pickle,
) -> Result<NodeId, CheckpointError> {
    let full = records.full_name(name);
    records.with_record(name, path, |bytes, size| {
        if size > limits.bytes {
            return Err(CheckpointError::BadRecord {
                path: path.into(),
                record: full.clone(),
                found: format!("{size} bytes"),
                expected: format!("at most {} bytes of values", limits.bytes),
            });
        }
        let bytes = bytes.read_from(0);
        let bytes = bytes.map_err(|e| record_error(path, &full, e))?;
        let mut bytes = BufReader::new(bytes);
        let root = pickle.read(&mut bytes, source, limits);
        root.map_err(|e| match e {
            PickleError::Io { source, .. } => record_error(path, &full, source),
            source => CheckpointError::Pickle {
                path: path.into(),
                record: full.clone(),
                source,
            },
        })
    })
}

/// Since PyTorch 2.1 a record tells the byte order; before, it was always the machine's own, which
/// was little-endian nearly everywhere.
fn check_byte_order(records: &ZipRecords, path: &Path) -> Result<(), CheckpointError> {
    if !records.contains("byteorder") {
        return Ok(());
    }
    let full = records.full_name("byteorder");
    let order = records.with_record("byteorder", path, |bytes, _| {
        let mut order = Vec::new();
        let read = bytes.read_from(0);
        let read = read.and_then(|bytes| bytes.take(16).read_to_end(&mut order));
        read.map_err(|e| record_error(path, &full, e))?;
        Ok(order)
    })?;
    match order.trim_ascii() {
        b"little" => Ok(()),
        b"big" => Err(CheckpointError::Unsupported {
            path: path.into(),
            what: "a checkpoint in big-endian byte order".into(),
            remedy: "load and save it again on a little-endian machine",
        }),
        other => Err(CheckpointError::BadRecord {
            path: path.into(),
            record: full,
            found: format!("{:?}", String::from_utf8_lossy(other)),
            expected: "\"little\" or \"big\"".into(),
        }),
    }
}
