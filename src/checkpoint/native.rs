//! Our own format: one safetensors file whose header holds the whole configuration.
//!
//! The metadata entry `vqdiffusion` is JSON: `format_version` (1), `config`, the
//! [`ModelConfig`] (in the file of a codec alone: its configuration under `codec`, see
//! [`super::codec_file`]), and optionally `notice`, a text on licences and authors that
//! stays with the weights. Tensors have canonical names (see [`super::official`]) and
//! their original number formats.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{LoadError, WriteError};
use super::official::is_recomputed;
use super::safetensors_file;
use super::state_dict::StateDict;
use crate::files::NewFile;
use crate::model::ModelConfig;

/// The header's metadata entry. All is in one, so that the same model always gives
/// the same bytes: the entries of the metadata map have no fixed order.
pub(super) const ENTRY: &str = "vqdiffusion";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
pub(super) struct Header {
    format_version: u32,
    /// Not yet interpreted.
    pub config: serde_json::Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

/// Our entry in the metadata of a safetensors header.
pub(super) fn header(
    path: &Path,
    metadata: &BTreeMap<String, String>,
) -> Result<Header, LoadError> {
    let format = |problem: String| LoadError::Format {
        path: path.to_path_buf(),
        problem,
    };
    let entry = metadata.get(ENTRY).ok_or_else(|| {
        format(format!(
            "a safetensors file without our header (metadata entry '{ENTRY}')"
        ))
    })?;
    let header: Header =
        serde_json::from_str(entry).map_err(|e| format(format!("metadata '{ENTRY}': {e}")))?;
    if header.format_version != VERSION {
        return Err(format(format!(
            "format version {}, expected {VERSION}",
            header.format_version
        )));
    }
    Ok(header)
}

/// The configuration in the metadata of a safetensors header, and the notice.
pub fn read(
    path: &Path,
    metadata: &BTreeMap<String, String>,
) -> Result<(ModelConfig, Option<String>), LoadError> {
    let Header { config, notice, .. } = header(path, metadata)?;
    let format = |problem: String| LoadError::Format {
        path: path.to_path_buf(),
        problem,
    };
    if config.get("codec").is_some() && config.get("denoiser").is_none() {
        let problem = "holds an image codec alone, expected a whole model";
        return Err(format(problem.into()));
    }
    let place = "config in the header";
    let config: ModelConfig =
        serde_json::from_value(config).map_err(|e| format(format!("{place}: {e}")))?;
    config.check().map_err(|e| LoadError::Config {
        path: path.to_path_buf(),
        source: e.of_part(place),
    })?;
    Ok((config, notice))
}

/// Writes `state`, `config` and `notice` to `path` as a file that appears whole or not at
/// all. Tensors are read and written one at a time; recomputable constants are left out.
pub fn write(
    path: &Path,
    config: &impl Serialize,
    state: &StateDict,
    notice: Option<&str>,
) -> Result<(), WriteError> {
    let json = |source| WriteError::Header {
        path: path.to_path_buf(),
        source,
    };
    let header = Header {
        format_version: VERSION,
        config: serde_json::to_value(config).map_err(json)?,
        notice: notice.map(String::from),
    };
    let header = serde_json::to_string(&header).map_err(json)?;
    let metadata = HashMap::from([(ENTRY.to_string(), header)]);
    let file = NewFile::beside(path)?;
    let tensors = state.iter().filter(|(name, _)| !is_recomputed(name));
    safetensors_file::write(&file.temporary(), tensors, metadata)?;
    Ok(file.commit()?)
}
