//! The codec experiment: one YAML file that says which codec is trained on which
//! pictures, and how.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{read, ExperimentError};
use crate::codec::{CodecConfig, QuantizerKind};
use crate::config_error::ConfigError;
use crate::train::codec::{CodecTrainConfig, PictureConfig};

/// Codes that 16-bit tokens tell apart.
const MOST_CODES: i64 = 1 << 16;

/// A codec's training experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodecExperiment {
    pub codec: CodecConfig,
    pub data: PictureConfig,
    #[serde(default)]
    pub train: CodecTrainConfig,
}

impl CodecExperiment {
    /// Reads `path` and applies `overrides`, as [`Experiment::read`](super::Experiment::read).
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, ExperimentError> {
        read(path, overrides, |_| Ok(None), CodecExperiment::check)
    }

    /// Whether the values are possible; the first that is not, by its key.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.codec.check().map_err(|e| e.of_part("codec"))?;
        if self.codec.quantizer != QuantizerKind::Ema {
            let problem = "only an ema codebook can be trained";
            return Err(ConfigError::impossible("codec.quantizer", problem));
        }
        if self.codec.codebook > MOST_CODES {
            return Err(ConfigError::value(
                "codec.codebook",
                self.codec.codebook,
                format!("at most {MOST_CODES} (tokens are stored in 16 bits)"),
            ));
        }
        if self.train.codebook.entropy.is_some() && self.codec.embedding_width < 2 {
            return Err(ConfigError::value(
                "codec.embedding_width",
                self.codec.embedding_width,
                "at least 2: train.codebook.entropy takes the last channel",
            ));
        }
        self.train.check().map_err(|e| e.within("train"))
    }
}
