//! Our own format: one safetensors file whose header holds the whole configuration.
//!
//! Header entries: `format` = `vqdiffusion`, `format_version` = `1`, `config` = the
//! [`ModelConfig`] as JSON. Tensors have canonical names (see [`super::official`]) and
//! their original number formats.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Mutex;

use super::error::LoadError;
use super::official::is_recomputed;
use super::state_dict::{safetensors_dtype, Entry, StateDict};
use crate::model::ModelConfig;
use crate::new_file;

const FORMAT: &str = "vqdiffusion";
const VERSION: &str = "1";

/// The configuration in the metadata of a safetensors header.
pub fn config(path: &Path, metadata: &BTreeMap<String, String>) -> Result<ModelConfig, LoadError> {
    let format = |problem: String| LoadError::Format {
        path: path.to_path_buf(),
        problem,
    };
    if metadata.get("format").map(String::as_str) != Some(FORMAT) {
        return Err(format(
            "a safetensors file without our header (metadata format = vqdiffusion)".into(),
        ));
    }
    match metadata.get("format_version").map(String::as_str) {
        Some(VERSION) => {}
        other => {
            return Err(format(format!(
                "format version {}, expected {VERSION}",
                other.unwrap_or("missing")
            )))
        }
    }
    let config = metadata
        .get("config")
        .ok_or_else(|| format("the header has no config".into()))?;
    serde_json::from_str(config).map_err(|e| format(format!("config in the header: {e}")))
}

/// Writes `state` and `config` to `path`: to a temporary name beside it, synced, then
/// renamed, so that nothing half-written is ever seen there. Tensors are read and
/// written one at a time; recomputable constants are left out.
pub fn write(path: &Path, config: &ModelConfig, state: &StateDict) -> Result<(), LoadError> {
    let io = |source| LoadError::Io {
        path: path.to_path_buf(),
        source,
    };
    let header = serde_json::to_string(config).map_err(|e| LoadError::Format {
        path: path.to_path_buf(),
        problem: e.to_string(),
    })?;
    let metadata = HashMap::from([
        ("format".to_string(), FORMAT.to_string()),
        ("format_version".to_string(), VERSION.to_string()),
        ("config".to_string(), header),
    ]);
    let failure = Mutex::new(None);
    let views: Vec<(&str, LazyView)> = state
        .iter()
        .filter(|(name, _)| !is_recomputed(name))
        .map(|(name, entry)| {
            let view = LazyView {
                entry,
                shape: entry.shape.iter().map(|&n| n as usize).collect(),
                failure: &failure,
            };
            (name, view)
        })
        .collect();

    let temporary = new_file::beside(path).map_err(io)?;
    safetensors::serialize_to_file(views, Some(metadata), temporary.path()).map_err(|e| {
        LoadError::Format {
            path: path.to_path_buf(),
            problem: format!("could not be written: {e}"),
        }
    })?;
    let failure = failure.into_inner().unwrap_or_else(|e| e.into_inner());
    if let Some(error) = failure {
        return Err(error);
    }
    new_file::commit(temporary, path).map_err(io)
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
                // The trait cannot fail: `write` discards the file.
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
