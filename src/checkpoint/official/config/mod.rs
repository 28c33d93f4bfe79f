//! The original's YAML configuration, option by option.
//!
//! [`shape`] is the model that it declares, [`check`] compares it with weights, [`named`] are
//! the files that it names.

pub(super) mod check;
pub(super) mod named;
mod shape;

use std::path::{Path, PathBuf};

use serde_yaml::Value;

use super::super::error::LoadError;
use super::super::infer::Unshown;
use super::document::{Document, OptionError};
use super::options::{self, ADAPTIVE_NORMS, CODEC, CONDITION, DIFFUSION, MODEL, NETWORK};
use crate::diffusion::{RevealOrder, Times};
use crate::model::{ModelConfig, UsualSampling};
use crate::transformer::config::{Activation, AdaptiveNorm, IndexEmbedding};

/// An official YAML file.
#[derive(Clone, Debug)]
pub struct OfficialConfig {
    path: PathBuf,
    document: Document,
}

/// Which of the original's three networks it is.
#[derive(Clone, Copy, PartialEq)]
enum Network {
    Text,
    Class,
    Unconditional,
}

impl OfficialConfig {
    /// Whether a YAML document is in the official layout.
    pub fn recognises(root: &Value) -> bool {
        Document::new(root.clone())
            .at(&format!("{DIFFUSION}.params"))
            .is_some()
    }

    /// `root` is the parsed document of `path`.
    ///
    /// # Errors
    ///
    /// Options that the original's constructors do not have, and values that have no
    /// counterpart here.
    pub fn new(path: &Path, root: Value) -> Result<Self, LoadError> {
        let config = OfficialConfig {
            path: path.to_path_buf(),
            document: Document::new(root),
        };
        options::check(&config.document).map_err(|e| config.refused(e))?;
        config.network()?;
        Ok(config)
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn document(&self) -> &Document {
        &self.document
    }

    /// An option's error with the file's name.
    pub fn refused(&self, source: OptionError) -> LoadError {
        LoadError::Option {
            config: self.path.clone(),
            source,
        }
    }

    fn refuse(&self, key: &str, expected: impl Into<String>) -> LoadError {
        self.refused(self.document.refused(key, expected))
    }

    fn integer(&self, place: &str, option: &str) -> Result<Option<i64>, LoadError> {
        let found = self.document.integer(&format!("{place}.params.{option}"));
        found.map_err(|e| self.refused(e))
    }

    fn flag(&self, place: &str, option: &str) -> Result<Option<bool>, LoadError> {
        let found = self.document.flag(&format!("{place}.params.{option}"));
        found.map_err(|e| self.refused(e))
    }

    fn pair(&self, place: &str, option: &str) -> Result<Option<[i64; 2]>, LoadError> {
        let found = self.document.pair(&format!("{place}.params.{option}"));
        found.map_err(|e| self.refused(e))
    }

    fn word(&self, place: &str, option: &str) -> Result<Option<&str>, LoadError> {
        let found = self.document.word(&format!("{place}.params.{option}"));
        found.map_err(|e| self.refused(e))
    }

    fn class(&self, place: &str) -> Result<Option<&str>, LoadError> {
        self.document.class(place).map_err(|e| self.refused(e))
    }

    /// Refuses options that are nothing to a trained model, but would train another one.
    pub fn check_training(&self) -> Result<(), LoadError> {
        options::check_training(&self.document).map_err(|e| self.refused(e))
    }

    /// Whether it has a learned embedding in place of no text.
    pub fn learns_null(&self) -> Result<bool, LoadError> {
        Ok(self.flag(DIFFUSION, "learnable_cf")? == Some(true))
    }

    /// By the network's class, which each takes one `attn_type`.
    fn network(&self) -> Result<Network, LoadError> {
        let by_class = match self.class(NETWORK)? {
            Some("Text2ImageTransformer") => Some(Network::Text),
            Some("Condition2ImageTransformer") => Some(Network::Class),
            Some("UnCondition2ImageTransformer") => Some(Network::Unconditional),
            _ => None,
        };
        let by_attention = match self.word(NETWORK, "attn_type")? {
            Some("selfcross") => Some(Network::Text),
            Some("selfcondition") => Some(Network::Class),
            Some("self") => Some(Network::Unconditional),
            _ => None,
        };
        match (by_class, by_attention) {
            (Some(class), Some(attention)) if class != attention => {
                let expected = format!("{} in this network", attention_of(class));
                Err(self.refuse(&format!("{NETWORK}.params.attn_type"), expected))
            }
            (Some(network), _) | (None, Some(network)) => Ok(network),
            (None, None) => Err(self.refuse(
                &format!("{NETWORK}.target"),
                "one of the original's networks",
            )),
        }
    }

    /// The token grid, which may be smaller than the position table: that of the codec's
    /// `token_shape`, which alone matters to the original, where `content_seq_len` does
    /// not say otherwise.
    pub fn grid(&self) -> Result<Option<[i64; 2]>, LoadError> {
        let tokens = self.integer(NETWORK, "content_seq_len")?;
        let declared = [
            self.pair(CODEC, "token_shape")?,
            self.pair(NETWORK, "content_spatial_size")?,
        ];
        let fits = |[rows, columns]: &[i64; 2]| {
            tokens.is_none_or(|tokens| rows.checked_mul(*columns) == Some(tokens))
        };
        Ok(declared.into_iter().flatten().find(fits).or_else(|| {
            let tokens = tokens?;
            let side = (tokens.max(0) as f64).sqrt().round() as i64;
            (side * side == tokens).then_some([side; 2])
        }))
    }

    /// What no weight shows.
    pub fn unshown(&self) -> Result<Unshown, LoadError> {
        let norm = |option| self.adaptive_norm(option);
        Ok(Unshown {
            heads: self.integer(NETWORK, "n_head")?,
            activation: self.activation()?,
            timestep_norm: norm("timestep_type")?.map(|(_, norm)| norm),
            class_norm: norm("class_type")?.map(|(_, norm)| norm),
            class_rows: self.integer(NETWORK, "class_number")?,
            normalized_text: self.flag(CONDITION, "normalize")?,
            grid: self.grid()?,
        })
    }

    fn activation(&self) -> Result<Option<Activation>, LoadError> {
        Ok(match self.word(NETWORK, "block_activate")? {
            Some("GELU") => Some(Activation::Gelu),
            Some("GELU2") => Some(Activation::Gelu2),
            _ => None,
        })
    }

    fn adaptive_norm(
        &self,
        option: &str,
    ) -> Result<Option<(IndexEmbedding, AdaptiveNorm)>, LoadError> {
        let name = self.word(NETWORK, option)?;
        let place = name.and_then(|name| ADAPTIVE_NORMS.iter().position(|known| *known == name));
        Ok(place.map(|place| {
            let embeddings = [IndexEmbedding::Table, IndexEmbedding::Sinusoid];
            let norms = [AdaptiveNorm::Layer, AdaptiveNorm::Instance];
            (embeddings[place % 2], norms[place / 2])
        }))
    }

    /// `guidance_scale` of a class model becomes its usual one.
    fn take_guidance(&self, model: &mut ModelConfig) -> Result<(), LoadError> {
        let key = format!("{MODEL}.params.guidance_scale");
        let scale = self.document.number(&key).map_err(|e| self.refused(e))?;
        let Some(guidance) = scale.filter(|scale| *scale != 1.0 && model.sampling.is_none()) else {
            return Ok(());
        };
        if !(1.0..=100.0).contains(&guidance) {
            return Err(self.refuse(&key, "1 to 100"));
        }
        model.sampling = Some(UsualSampling {
            steps: model.usual_steps(),
            guidance,
            truncation: model.usual_truncation(guidance),
            times: Times::Even,
            order: RevealOrder::Independent,
            guidance_span: None,
        });
        Ok(())
    }
}

/// The `attn_type` of a network.
fn attention_of(network: Network) -> &'static str {
    match network {
        Network::Text => "selfcross",
        Network::Class => "selfcondition",
        Network::Unconditional => "self",
    }
}
