//! An image codec alone: our own file of it, or the codec of any model file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::error::{LoadError, WriteError};
use super::super::infer;
use super::super::native;
use super::super::official::{self, OfficialKind, WeightSet, CODE_MAPPING};
use super::super::open::{Checkpoint, OpenOptions};
use super::super::pytorch::DType;
use super::super::safetensors_file::is_safetensors;
use super::super::state_dict::{read_safetensors, StateDict};
use crate::codec::CodecConfig;
use crate::config_error::ConfigError;

/// The configuration in the header of a codec file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CodecOnly {
    codec: CodecConfig,
}

/// An opened codec: its shape, and its tensors by canonical name, not yet read.
pub struct CodecFile {
    pub path: PathBuf,
    pub config: CodecConfig,
    /// Codes K behind the code mapping.
    pub codes: i64,
    /// Rows and columns of the token grid.
    pub grid: [i64; 2],
    pub state: StateDict,
}

impl CodecFile {
    /// Opens the codec in our codec file or in a model file of any layout.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, LoadError> {
        if let Some((config, mut state)) = alone(path)? {
            let codes = match &options.mapping {
                Some(mapping) => add_mapping(&mut state, &config, mapping)?,
                None => config.codebook,
            };
            let side = config.resolution / config.factor();
            return Ok(CodecFile {
                path: path.to_path_buf(),
                codes,
                grid: [side, side],
                config,
                state,
            });
        }
        Ok(Checkpoint::open(path, options)?.into())
    }

    /// The same codec for square pictures of this side in pixels.
    ///
    /// # Errors
    ///
    /// A side that the codec's factor does not divide.
    pub fn set_resolution(&mut self, resolution: i64) -> Result<(), ConfigError> {
        self.config.set_resolution(resolution);
        self.config.check()?;
        let side = resolution / self.config.factor();
        self.grid = [side, side];
        Ok(())
    }

    /// Whether fewer codes are used than the codebook has.
    pub fn needs_code_mapping(&self) -> bool {
        self.codes != self.config.codebook
    }
}

impl From<Checkpoint> for CodecFile {
    fn from(model: Checkpoint) -> Self {
        CodecFile {
            path: model.path,
            codes: model.config.denoiser.codes,
            grid: model.config.denoiser.grid,
            config: model.config.codec,
            state: model.state,
        }
    }
}

/// The codec of a file that holds nothing else, ours or a taming one.
fn alone(path: &Path) -> Result<Option<(CodecConfig, StateDict)>, LoadError> {
    if !path.is_file() {
        return Ok(None);
    }
    if !is_safetensors(path)? {
        return match official::read(path, WeightSet::Model) {
            Ok((state, OfficialKind::Codec)) => {
                Ok(Some((infer::codec_alone(&state, path)?, state)))
            }
            // Whatever else it is, it is to be opened as a model.
            _ => Ok(None),
        };
    }
    let (state, metadata) = read_safetensors(path)?;
    let header = native::header(path, &metadata)?;
    if header.config.get("denoiser").is_some() {
        return Ok(None);
    }
    let place = "codec in the header";
    let CodecOnly { codec } =
        serde_json::from_value(header.config).map_err(|e| LoadError::Format {
            path: path.to_path_buf(),
            problem: format!("{place}: {e}"),
        })?;
    codec.check().map_err(|e| LoadError::Config {
        path: path.to_path_buf(),
        source: e.of_part(place),
    })?;
    Ok(Some((codec, state)))
}

/// Adds the code mapping in the file `path`; returns how many codes are left.
fn add_mapping(state: &mut StateDict, config: &CodecConfig, path: &Path) -> Result<i64, LoadError> {
    let entry = official::read_mapping(path)?;
    let format = |problem: String| LoadError::Format {
        path: path.to_path_buf(),
        problem,
    };
    if entry.shape != [config.codebook] || entry.dtype != DType::I64 {
        return Err(format(format!(
            "{} of shape {:?}, expected int64 of shape [{}], one for each code",
            entry.dtype.name(),
            entry.shape,
            config.codebook
        )));
    }
    let largest = entry.read()?.max().int64_value(&[]);
    if !(0..config.codebook).contains(&largest) {
        return Err(format(format!(
            "maps to code {largest}, expected codes below {}, the codec's",
            config.codebook
        )));
    }
    let codes = largest + 1;
    state.insert(CODE_MAPPING, entry);
    Ok(codes)
}

/// Writes a codec file that appears whole or not at all.
pub fn write(path: &Path, config: &CodecConfig, state: &StateDict) -> Result<(), WriteError> {
    let codec = config.clone();
    native::write(path, &CodecOnly { codec }, state, None)
}
