//! The codec experiment: one YAML file that says which codec is trained on which
//! pictures, and how.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{read, ExperimentError};
use crate::codec::{CodecConfig, QuantizerKind};
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
        read(path, overrides, |_, _| Ok(None), CodecExperiment::check)
    }

    /// Whether the values are possible; the first that is not, by its key.
    pub fn check(&self) -> Result<(), String> {
        self.codec
            .check()
            .map_err(|problem| format!("codec: {problem}"))?;
        if self.codec.quantizer != QuantizerKind::Ema {
            return Err("codec.quantizer: only an ema codebook can be trained".into());
        }
        if self.codec.codebook > MOST_CODES {
            return Err(format!(
                "codec.codebook is {}, expected at most {MOST_CODES} (tokens are stored in 16 bits)",
                self.codec.codebook
            ));
        }
        if self.train.codebook.entropy.is_some() && self.codec.embedding_width < 2 {
            return Err(format!(
                "codec.embedding_width is {}, expected at least 2: train.codebook.entropy takes \
                 the last channel",
                self.codec.embedding_width
            ));
        }
        self.train
            .check()
            .map_err(|problem| format!("train.{problem}"))
    }
}
