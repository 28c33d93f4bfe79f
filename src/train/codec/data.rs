//! The pictures of a codec's training.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::task::CodecData;
use crate::codec::CodecConfig;
use crate::data::dataset::Epoch;
use crate::data::pictures::first_readable;
use crate::data::{CropRule, DataError, Dataset, PictureLoader, Rows, Split, Transform};

/// What is trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureConfig {
    /// Data set of the training pictures, as `vqdiffusion tokenize` takes it.
    pub train: PathBuf,
    /// The same for validation, its `val` part if it has parts; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<PathBuf>,
    /// Part of `train`, if it has parts.
    #[serde(default)]
    pub split: Split,
    /// Which squares of the training pictures.
    #[serde(default = "random")]
    pub crop: CropRule,
    /// Mirror every other training picture.
    #[serde(default)]
    pub flip: bool,
    /// Stop at a picture that cannot be read instead of taking another.
    #[serde(default)]
    pub strict: bool,
}

fn random() -> CropRule {
    CropRule::Random
}

impl PictureConfig {
    /// Opens the pictures for a codec of this `shape`: those of training in the order of
    /// `seed`, and the first `validation` ones of validation.
    ///
    /// # Errors
    ///
    /// Data sets that cannot be read, or of which no picture can be.
    pub fn open(
        &self,
        shape: &CodecConfig,
        seed: u64,
        validation: usize,
    ) -> Result<CodecData, DataError> {
        let size = shape.resolution as u32;
        let dataset = open(&self.train, self.split, self.strict)?;
        let rows = Rows::new(Epoch::Pictures, &dataset.items);
        let transform = Transform {
            size,
            crop: self.crop,
            flip: self.flip,
        };
        let train = PictureLoader::new(dataset, rows, transform, seed, self.strict)?;
        let validation = match &self.validation {
            Some(path) => {
                let dataset = open(path, Split::Val, false)?;
                let readable = first_readable(&dataset, size, validation)?;
                readable.into_iter().map(|(_, picture)| picture).collect()
            }
            None => Vec::new(),
        };
        Ok(CodecData {
            train: Arc::new(train),
            validation,
        })
    }
}

fn open(path: &Path, split: Split, strict: bool) -> Result<Dataset, DataError> {
    let dataset = Dataset::open(path, split, strict)?;
    for skipped in &dataset.skipped {
        log::warn!("skipped {skipped}");
    }
    Ok(dataset)
}
