//! Arguments that say which model to use.

use std::path::{Path, PathBuf};

use clap::Args;

use super::choices;
use crate::checkpoint::{Checkpoint, CodecFile, LoadError, OpenOptions, WeightSet};

/// Which model, and where the things are that a checkpoint cannot hold.
#[derive(Args, Clone, Debug)]
pub struct ModelSource {
    /// Configuration to check the weights against: the original's YAML or our own.
    #[arg(long, value_name = "YAML")]
    pub config: Option<PathBuf>,

    /// Which weights of a training checkpoint to take.
    #[arg(long, value_parser = choices::weight_set(), default_value = "ema")]
    pub weights: WeightSet,

    /// Code mapping file, where the model uses a subset of the codec's codes
    /// (original: help_folder/statistics/taming_vqvae_2887.pt).
    #[arg(long, value_name = "FILE")]
    pub mapping: Option<PathBuf>,

    /// Image codec file, where the checkpoint holds none
    /// (original: OUTPUT/pretrained_model/taming_dvae/taming_f8_8192_openimages_last.pth).
    #[arg(long, value_name = "FILE")]
    pub codec: Option<PathBuf>,

    /// CLIP file to take the text tower from, where the checkpoint holds none: OpenAI's
    /// ViT-B-32.pt, a state dict of it, or the text encoder of transformers.
    #[arg(long, value_name = "FILE")]
    pub text_encoder: Option<PathBuf>,

    /// Merge rules of the text vocabulary, where they are not CLIP's and the checkpoint
    /// does not hold them: a merges.txt, or what the original reads as bpe_path.
    #[arg(long, value_name = "FILE")]
    pub vocabulary: Option<PathBuf>,
}

impl ModelSource {
    /// The same for the library.
    pub fn options(&self) -> OpenOptions {
        OpenOptions {
            config: self.config.clone(),
            weights: self.weights,
            mapping: self.mapping.clone(),
            codec: self.codec.clone(),
            text_encoder: self.text_encoder.clone(),
            vocabulary: self.vocabulary.clone(),
        }
    }

    /// Opens the codec in the model or codec file at `path`.
    pub fn open_codec(&self, path: &Path) -> Result<CodecFile, LoadError> {
        CodecFile::open(path, &self.options())
    }

    /// Opens the model file at `path`.
    pub fn open(&self, path: &Path) -> Result<Checkpoint, LoadError> {
        Checkpoint::open(path, &self.options())
    }
}
