//! Recognising safetensors files, and writing them, one tensor in memory at a time.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::Mutex;

use safetensors::SafeTensorError;

use super::error::{LoadError, WriteError};
use super::state_dict::{safetensors_dtype, Entry};
use crate::files::{self, FileError};

/// Whether `path` starts like a safetensors file: a header length and an opening brace.
pub fn is_safetensors(path: &Path) -> Result<bool, FileError> {
    let mut head = Vec::new();
    files::open(path)?
        .take(9)
        .read_to_end(&mut head)
        .map_err(FileError::reading(path))?;
    Ok(head.len() == 9 && head[8] == b'{' && head[5..8] == [0; 3])
}

/// Writes `tensors` to `path`, replacing what is there by a file that only its owner may
/// read.
pub fn write<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a Entry)>,
    metadata: HashMap<String, String>,
) -> Result<(), WriteError> {
    let failure = Mutex::new(None);
    let views: Vec<(&str, LazyView)> = tensors
        .into_iter()
        .map(|(name, entry)| {
            let view = LazyView {
                entry,
                shape: entry.shape.iter().map(|&n| n as usize).collect(),
                failure: &failure,
            };
            (name, view)
        })
        .collect();
    let written = safetensors::serialize_to_file(views, Some(metadata), path);
    if let Some(error) = failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
        return Err(error.into());
    }
    written.map_err(|error| match error {
        SafeTensorError::IoError(error) => FileError::writing(path)(error).into(),
        source => WriteError::Safetensors {
            path: path.to_path_buf(),
            source,
        },
    })
}

/// An entry that is read when its turn to be written comes.
struct LazyView<'a> {
    entry: &'a Entry,
    shape: Vec<usize>,
    failure: &'a Mutex<Option<LoadError>>,
}

impl safetensors::View for LazyView<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        safetensors_dtype(self.entry.dtype)
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self.entry.bytes() {
            Ok(bytes) => bytes.into(),
            Err(error) => {
                // The trait cannot fail: `write` gives the error.
                let mut failure = self.failure.lock().unwrap_or_else(|e| e.into_inner());
                failure.get_or_insert(error);
                vec![0; self.data_len()].into()
            }
        }
    }

    fn data_len(&self) -> usize {
        self.entry.numel() as usize * self.entry.dtype.size()
    }
}
