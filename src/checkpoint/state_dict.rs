//! Named tensors of a file, read one by one, whatever the file's format.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::tensor::Metadata;
use tch::{Kind, Tensor};

use super::error::LoadError;
use super::pytorch::{kind, DType, TensorRef, TorchFile};
use crate::files::{self, FileError};
use crate::memory;

/// Where an entry's bytes are.
#[derive(Clone)]
pub enum Source {
    /// A tensor of a PyTorch file.
    Torch(Arc<TorchFile>, TensorRef),
    /// A byte range of a safetensors file.
    Safetensors(Arc<File>, Range<usize>),
    /// Other entries, one after the other.
    Joined(Vec<Entry>),
    /// A byte range of another entry.
    Part(Box<Entry>, Range<usize>),
    /// Another entry in this one's number format.
    Cast(Box<Entry>),
    Memory(Arc<[u8]>),
}

/// One tensor of a file.
#[derive(Clone)]
pub struct Entry {
    pub dtype: DType,
    pub shape: Vec<i64>,
    /// The file and the name there, for messages.
    pub file: PathBuf,
    pub key: String,
    pub source: Source,
}

impl Entry {
    /// Number of elements.
    pub fn numel(&self) -> i64 {
        self.shape.iter().product()
    }

    /// Contiguous little-endian bytes.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, more bytes than there is memory for.
    pub fn bytes(&self) -> Result<Vec<u8>, LoadError> {
        self.check_memory()?;
        match &self.source {
            Source::Torch(file, tensor) => Ok(file
                .read_tensor(tensor)
                .map_err(|e| e.in_entry(&self.key))?),
            Source::Safetensors(file, range) => {
                let mut bytes = vec![0; range.len()];
                file.read_exact_at(&mut bytes, range.start as u64)
                    .map_err(FileError::reading(&self.file))?;
                Ok(bytes)
            }
            Source::Joined(parts) => {
                let mut bytes = Vec::with_capacity(self.numel() as usize * self.dtype.size());
                for part in parts {
                    bytes.extend(part.bytes()?);
                }
                Ok(bytes)
            }
            Source::Part(whole, range) => Ok(whole.bytes()?[range.clone()].to_vec()),
            Source::Cast(inner) => self.cast_bytes(inner),
            Source::Memory(bytes) => Ok(bytes.to_vec()),
        }
    }

    /// Refuses a large tensor for which there is no memory: whatever allocates beyond it is
    /// ended by the system without a word.
    fn check_memory(&self) -> Result<(), LoadError> {
        const LARGE: u64 = 64 << 20;
        let wanted = self
            .shape
            .iter()
            .try_fold(self.dtype.size() as u64, |bytes, &n| {
                bytes.checked_mul(u64::try_from(n).ok()?)
            });
        let wanted = wanted.unwrap_or(u64::MAX);
        if wanted <= LARGE {
            return Ok(());
        }
        match memory::available() {
            Some(available) if wanted > available => Err(LoadError::Tensor {
                file: self.file.clone(),
                key: self.key.clone(),
                problem: format!(
                    "its {wanted} bytes do not fit into memory, of which {available} are free"
                ),
            }),
            _ => Ok(()),
        }
    }

    /// The tensor on the CPU in its stored kind, from its bytes.
    pub fn tensor(&self, bytes: &[u8]) -> Result<Tensor, LoadError> {
        let kind = kind_of(self.dtype).ok_or_else(|| LoadError::Tensor {
            file: self.file.clone(),
            key: self.key.clone(),
            problem: format!(
                "its number format {} has no counterpart here",
                self.dtype.name()
            ),
        })?;
        Tensor::f_from_data_size(bytes, &self.shape, kind).map_err(|e| LoadError::Tensor {
            file: self.file.clone(),
            key: self.key.clone(),
            problem: e.to_string(),
        })
    }

    /// Reads the tensor.
    pub fn read(&self) -> Result<Tensor, LoadError> {
        self.tensor(&self.bytes()?)
    }
}

/// Tensors by their canonical name (see [`super::official`]).
#[derive(Clone, Default)]
pub struct StateDict {
    entries: BTreeMap<String, Entry>,
}

impl StateDict {
    pub fn insert(&mut self, name: impl Into<String>, entry: Entry) {
        self.entries.insert(name.into(), entry);
    }

    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The shape of `name`, if it is there.
    pub fn shape(&self, name: &str) -> Option<&[i64]> {
        self.get(name).map(|e| e.shape.as_slice())
    }

    /// The same names with other entries.
    pub fn map(&self, change: impl Fn(&Entry) -> Entry) -> Self {
        let changed = self
            .entries
            .iter()
            .map(|(name, e)| (name.clone(), change(e)));
        StateDict {
            entries: changed.collect(),
        }
    }

    /// Names and entries in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries
            .iter()
            .map(|(name, entry)| (name.as_str(), entry))
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many consecutive indices i = 0, 1 … have a name starting with `prefix`,
    /// i and a dot.
    pub fn count_indexed(&self, prefix: &str) -> i64 {
        (0..)
            .take_while(|i| {
                let start = format!("{prefix}{i}.");
                self.entries
                    .range(start.clone()..)
                    .next()
                    .is_some_and(|(name, _)| name.starts_with(&start))
            })
            .count() as i64
    }

    /// Whether any name starts with `prefix`.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.entries
            .range(prefix.to_string()..)
            .next()
            .is_some_and(|(name, _)| name.starts_with(prefix))
    }
}

/// All tensors of a safetensors file with the metadata of its header. The file is not
/// mapped: not every disk can, and read pages would count as this process's memory.
pub fn read_safetensors(path: &Path) -> Result<(StateDict, BTreeMap<String, String>), LoadError> {
    let io = |source| FileError::reading(path)(source);
    let format = |problem: String| LoadError::Format {
        path: path.to_path_buf(),
        problem,
    };
    let mut file = files::open(path)?;
    let length = file.metadata().map_err(io)?.len();
    let mut head = Vec::new();
    (&mut file).take(HEAD).read_to_end(&mut head).map_err(io)?;
    let size = match head.first_chunk() {
        Some(size) if head.get(8) == Some(&b'{') => u64::from_le_bytes(*size),
        _ => u64::MAX,
    };
    let data_start = size.saturating_add(8);
    if size > MAX_HEADER {
        let found = kind(&head);
        return Err(format(format!("not a safetensors file: {found}")));
    }
    let cut_off = |needed: u64| {
        format(format!(
            "the file is cut off: it has {length} bytes, and its header says {needed}; copy or \
             download it again"
        ))
    };
    if data_start > length {
        return Err(cut_off(data_start));
    }
    let mut header = Vec::new();
    file.seek(SeekFrom::Start(8)).map_err(io)?;
    let read = (&mut file).take(size).read_to_end(&mut header);
    read.map_err(io)?;
    let header: Metadata = serde_json::from_slice(&header).map_err(|source| LoadError::Header {
        path: path.to_path_buf(),
        source,
    })?;
    let end = data_start.saturating_add(header.data_len() as u64);
    if end > length {
        return Err(cut_off(end));
    }
    if end < length {
        return Err(format(format!(
            "not a readable safetensors file: {} bytes more than its header says",
            length - end
        )));
    }
    let file = Arc::new(file);
    let data_start = data_start as usize;
    let mut state = StateDict::default();
    for (name, info) in header.tensors() {
        let dtype = dtype_of(info.dtype).ok_or_else(|| LoadError::Tensor {
            file: path.to_path_buf(),
            key: name.clone(),
            problem: format!("number format {} is not supported", info.dtype),
        })?;
        state.insert(
            name.clone(),
            Entry {
                dtype,
                shape: info.shape.iter().map(|&n| n as i64).collect(),
                file: path.to_path_buf(),
                key: name.clone(),
                source: Source::Safetensors(
                    file.clone(),
                    data_start + info.data_offsets.0..data_start + info.data_offsets.1,
                ),
            },
        );
    }
    let metadata = header.metadata().clone().unwrap_or_default();
    Ok((state, metadata.into_iter().collect()))
}

/// Bytes that tell what a file is.
const HEAD: u64 = 512;
/// Bound in bytes on a safetensors header, as in the format's own library.
const MAX_HEADER: u64 = 100_000_000;

/// libtorch's kind for a stored number format.
pub fn kind_of(dtype: DType) -> Option<Kind> {
    Some(match dtype {
        DType::F64 => Kind::Double,
        DType::F32 => Kind::Float,
        DType::F16 => Kind::Half,
        DType::BF16 => Kind::BFloat16,
        DType::I64 => Kind::Int64,
        DType::I32 => Kind::Int,
        DType::I16 => Kind::Int16,
        DType::I8 => Kind::Int8,
        DType::U8 => Kind::Uint8,
        DType::Bool => Kind::Bool,
        #[allow(unreachable_patterns)]
        _ => return None,
    })
}

fn dtype_of(dtype: safetensors::Dtype) -> Option<DType> {
    use safetensors::Dtype;
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool,
        _ => return None,
    })
}

/// The safetensors name of a stored number format.
pub fn safetensors_dtype(dtype: DType) -> safetensors::Dtype {
    use safetensors::Dtype;
    match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U8 => Dtype::U8,
        DType::Bool => Dtype::BOOL,
    }
}
