//! NumPy's `.npz`: arrays in a zip archive, read without loading what is not asked for.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use tch::{Kind, Tensor};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::files::{self, FileError, NewFile};
use crate::torch::host::bytes as bytes_of;

/// Why a `.npz` could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NpzError {
    #[error(transparent)]
    File(#[from] FileError),

    /// It is not what it should be.
    #[error("{}: {problem}", path.display())]
    Format { path: PathBuf, problem: String },
}

/// Format, shape and order of an array.
#[derive(Clone, Debug, PartialEq)]
pub struct NpyHeader {
    /// NumPy's name of the number format: `<f8`, `|u1` …
    pub descr: String,
    /// Columns first.
    pub fortran: bool,
    pub shape: Vec<usize>,
}

impl NpyHeader {
    /// Elements, if the number is in range.
    pub fn count(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
    }
}

/// Bytes of the longest header that is read; NumPy's are below 1 kB.
const LONGEST_HEADER: u32 = 1 << 16;
/// Bytes of the largest array that is read whole.
const LARGEST: usize = 4 << 30;

/// An open archive.
pub struct Npz {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
}

impl Npz {
    /// # Errors
    ///
    /// No such file, or one that is no zip archive.
    pub fn open(path: &Path) -> Result<Self, NpzError> {
        let archive =
            ZipArchive::new(BufReader::new(files::open(path)?)).map_err(|e| NpzError::Format {
                path: path.to_path_buf(),
                problem: format!("not a readable .npz: {e}"),
            })?;
        Ok(Npz {
            path: path.to_path_buf(),
            archive,
        })
    }

    fn problem(&self, problem: impl ToString) -> NpzError {
        NpzError::Format {
            path: self.path.clone(),
            problem: problem.to_string(),
        }
    }

    /// Names of the arrays.
    pub fn names(&self) -> Vec<String> {
        let names = self.archive.file_names();
        let mut names: Vec<String> = names
            .filter_map(|name| Some(name.ok()?.strip_suffix(".npy")?.to_string()))
            .collect();
        names.sort();
        names
    }

    pub fn contains(&self, name: &str) -> bool {
        self.names().iter().any(|n| n == name)
    }

    /// The header of the array `name`, and its elements in the order stored.
    pub fn array(&mut self, name: &str) -> Result<(NpyHeader, impl Read + '_), NpzError> {
        if !self.contains(name) {
            let found = self.names().join(", ");
            return Err(self.problem(format!("no array '{name}' (there are: {found})")));
        }
        let path = self.path.clone();
        let problem = |e: &dyn ToString| NpzError::Format {
            path: path.clone(),
            problem: format!("array '{name}': {}", e.to_string()),
        };
        let mut entry = self
            .archive
            .by_name(&format!("{name}.npy"))
            .map_err(|e| problem(&e))?;
        let header = read_header(&mut entry).map_err(|e| problem(&e))?;
        Ok((header, entry))
    }

    /// A floating array as f64.
    ///
    /// # Errors
    ///
    /// No such array, another number format, or one above 4 GiB.
    pub fn floats(&mut self, name: &str) -> Result<Tensor, NpzError> {
        let path = self.path.clone();
        let problem = |problem: String| NpzError::Format {
            path: path.clone(),
            problem: format!("array '{name}': {problem}"),
        };
        let (header, mut elements) = self.array(name)?;
        let (size, kind) = match header.descr.as_str() {
            "<f8" => (8, Kind::Double),
            "<f4" => (4, Kind::Float),
            other => {
                return Err(problem(format!(
                    "number format {other}, expected <f8 or <f4"
                )))
            }
        };
        let bytes = header
            .count()
            .and_then(|n| n.checked_mul(size))
            .filter(|&bytes| bytes <= LARGEST)
            .ok_or_else(|| problem(format!("shape {:?} is too large to be read", header.shape)))?;
        let mut data = Vec::new();
        elements
            .by_ref()
            .take(bytes as u64)
            .read_to_end(&mut data)
            .map_err(|e| problem(e.to_string()))?;
        if data.len() != bytes {
            return Err(problem(format!(
                "{} bytes of elements, expected {bytes}",
                data.len()
            )));
        }
        let shape: Vec<i64> = header.shape.iter().map(|&n| n as i64).collect();
        let stored: Vec<i64> = match header.fortran {
            true => shape.iter().rev().copied().collect(),
            false => shape,
        };
        let tensor = Tensor::f_from_data_size(&data, &stored, kind)
            .map_err(|e| problem(e.to_string()))?
            .to_kind(Kind::Double);
        Ok(match header.fortran {
            true => {
                let order: Vec<i64> = (0..stored.len() as i64).rev().collect();
                tensor.permute(order)
            }
            false => tensor,
        })
    }
}

/// Reads magic, version and the dictionary behind them.
fn read_header(entry: &mut impl Read) -> Result<NpyHeader, String> {
    let text = |e: io::Error| format!("cut off in its header ({e})");
    let mut start = [0u8; 8];
    entry.read_exact(&mut start).map_err(text)?;
    if &start[..6] != b"\x93NUMPY" {
        return Err("not in NumPy's format".into());
    }
    let length = match start[6] {
        1 => {
            let mut bytes = [0u8; 2];
            entry.read_exact(&mut bytes).map_err(text)?;
            u32::from(u16::from_le_bytes(bytes))
        }
        2 | 3 => {
            let mut bytes = [0u8; 4];
            entry.read_exact(&mut bytes).map_err(text)?;
            u32::from_le_bytes(bytes)
        }
        version => {
            return Err(format!(
                "version {version} of NumPy's format, expected 1 to 3"
            ))
        }
    };
    if length > LONGEST_HEADER {
        return Err(format!("a header of {length} bytes"));
    }
    let mut header = vec![0; length as usize];
    entry.read_exact(&mut header).map_err(text)?;
    let header = String::from_utf8_lossy(&header);
    parse(&header).ok_or_else(|| format!("header {:?} is not understood", header.trim()))
}

/// `{'descr': '<f8', 'fortran_order': False, 'shape': (2048, 2048), }`.
fn parse(header: &str) -> Option<NpyHeader> {
    let value = |key: &str| {
        let (_, rest) = header.split_once(&format!("'{key}'"))?;
        Some(rest.trim_start().strip_prefix(':')?.trim_start())
    };
    let descr = value("descr")?.strip_prefix('\'')?.split_once('\'')?.0;
    let order = value("fortran_order")?;
    let shape = value("shape")?.strip_prefix('(')?.split_once(')')?.0;
    let shape = shape.split(',').map(str::trim).filter(|n| !n.is_empty());
    Some(NpyHeader {
        descr: descr.to_string(),
        fortran: match order {
            o if o.starts_with("True") => true,
            o if o.starts_with("False") => false,
            _ => return None,
        },
        shape: shape.map(|n| n.parse().ok()).collect::<Option<_>>()?,
    })
}

/// Writes f64 arrays as a `.npz` that appears whole or not at all.
pub fn write(path: &Path, arrays: &[(&str, Tensor)]) -> Result<(), NpzError> {
    let writing = |e: io::Error| FileError::writing(path)(e);
    let file = NewFile::beside(path)?;
    let mut zip = ZipWriter::new(file.as_file());
    for (name, array) in arrays {
        let array = array
            .to_kind(Kind::Double)
            .to_device(tch::Device::Cpu)
            .contiguous();
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(array.numel() >= LARGEST / 8);
        zip.start_file(format!("{name}.npy"), options)
            .map_err(|e| writing(e.into()))?;
        let sizes: Vec<String> = array.size().iter().map(|n| format!("{n},")).collect();
        let header = format!(
            "{{'descr': '<f8', 'fortran_order': False, 'shape': ({}), }}",
            sizes.join(" ")
        );
        // Magic, version, length and header together fill a multiple of 64 bytes.
        let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((length as u16).to_le_bytes());
        bytes.extend(format!("{header:<width$}\n", width = length - 1).bytes());
        zip.write_all(&bytes).map_err(writing)?;
        let elements = bytes_of(&array);
        zip.write_all(&elements).map_err(writing)?;
    }
    zip.finish().map_err(|e| writing(e.into()))?;
    Ok(file.commit()?)
}
