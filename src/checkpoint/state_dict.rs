//! Named tensors of a file, read one by one, whatever the file's format.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use tch::{Kind, Tensor};

use super::error::LoadError;
use super::pytorch::{DType, TensorRef, TorchFile};

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
    pub fn bytes(&self) -> Result<Vec<u8>, LoadError> {
        match &self.source {
            Source::Torch(file, tensor) => Ok(file.read_tensor(tensor)?),
            Source::Safetensors(file, range) => {
                let mut bytes = vec![0; range.len()];
                file.read_exact_at(&mut bytes, range.start as u64)
                    .map_err(|source| LoadError::Io {
                        path: self.file.clone(),
                        source,
                    })?;
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

/// All tensors of a safetensors file with the metadata of its header.
pub fn read_safetensors(path: &Path) -> Result<(StateDict, BTreeMap<String, String>), LoadError> {
    let io = |source| LoadError::Io {
        path: path.to_path_buf(),
        source,
    };
    let file = File::open(path).map_err(io)?;
    // SAFETY: the mapping lives for the next call alone, which checks what it reads. It
    // is not kept: read pages would count as this process's memory.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    let (header_size, header) =
        safetensors::SafeTensors::read_metadata(&map).map_err(|e| LoadError::Format {
            path: path.to_path_buf(),
            problem: format!("not a readable safetensors file: {e}"),
        })?;
    drop(map);
    let file = Arc::new(file);
    let data_start = header_size + 8;
    let mut state = StateDict::default();
    for (name, info) in header.tensors() {
        let dtype = dtype_of(info.dtype).ok_or_else(|| LoadError::Tensor {
            file: path.to_path_buf(),
            key: name.clone(),
            problem: format!("number format {:?} is not supported", info.dtype),
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
