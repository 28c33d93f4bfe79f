//! The model that the original's configuration declares.

use std::path::{Path, PathBuf};

use super::super::super::error::LoadError;
use super::super::super::infer::classes_of;
use super::super::options::{CONDITION, CONTENT, DIFFUSION, NETWORK, TOKENIZE};
use super::{Network, OfficialConfig};
use crate::clip::TextConfig;
use crate::codec::CodecConfig;
use crate::diffusion::Transition;
use crate::model::{ModelConfig, NullText, TextCondition};
use crate::transformer::config::{AdaptiveNorm, FeedForwardKind, IndexEmbedding, PositionWeights};
use crate::transformer::{Conditioning, DenoiserConfig};

impl OfficialConfig {
    /// The denoiser that it declares; options that it leaves out as the original's
    /// constructors have them, and the released activation.
    pub fn denoiser(&self) -> Result<DenoiserConfig, LoadError> {
        let network = self.network()?;
        let size = |option: &str, by_network: [i64; 3]| {
            let given = self.integer(NETWORK, option)?;
            Ok::<i64, LoadError>(given.unwrap_or(by_network[network as usize]))
        };
        let tokens = size("content_seq_len", [1024, 1024, 256])?;
        let usual_grid = [[32, 32], [32, 32], [16, 16]][network as usize];
        let grid = self.grid()?.unwrap_or(usual_grid);
        let seq_len = format!("{NETWORK}.params.content_seq_len");
        if grid[0].checked_mul(grid[1]) != Some(tokens) {
            let expected = format!("{} x {}, the tokens of a picture", grid[0], grid[1]);
            return Err(self.refuse(&seq_len, expected));
        }
        let width = size("n_embd", [1024, 1024, 512])?;
        if self
            .integer(CONTENT, "embed_dim")?
            .is_some_and(|d| d != width)
        {
            let expected = format!("{width}, the network's width (n_embd)");
            return Err(self.refuse(&format!("{CONTENT}.params.embed_dim"), expected));
        }
        let feed_forward = match (self.word(NETWORK, "mlp_type")?, network) {
            (Some("conv_mlp"), _) | (None, Network::Class | Network::Unconditional) => {
                FeedForwardKind::Conv
            }
            _ => FeedForwardKind::Fc,
        };
        let usual = (IndexEmbedding::Table, AdaptiveNorm::Layer);
        let (timestep_embedding, timestep_norm) =
            self.adaptive_norm("timestep_type")?.unwrap_or(usual);
        let condition = match network {
            Network::Unconditional => Conditioning::Unconditional,
            Network::Text => Conditioning::Text {
                positions: self.text_positions()?,
                width: size("condition_dim", [512; 3])?,
            },
            Network::Class => {
                let rows = size("class_number", [1000; 3])?;
                let (embedding, norm) = self.adaptive_norm("class_type")?.unwrap_or(usual);
                let (classes, null) = classes_of(rows, embedding, norm);
                Conditioning::Class {
                    classes,
                    null,
                    embedding,
                    norm,
                }
            }
        };
        let denoiser = DenoiserConfig {
            layers: size("n_layer", [14, 24, 24])?,
            width,
            heads: size("n_head", [16; 3])?,
            codes: self.integer(CONTENT, "num_embed")?.unwrap_or(8192),
            grid,
            position_table: self.pair(CONTENT, "spatial_size")?.unwrap_or([32, 32]),
            position_weights: match self.word(CONTENT, "pos_emb_type")? {
                Some("parameter") => PositionWeights::Parameter,
                _ => PositionWeights::Embedding,
            },
            timesteps: self.integer(DIFFUSION, "diffusion_step")?.unwrap_or(100),
            timestep_embedding,
            timestep_norm,
            feed_forward,
            activation: self.activation()?.unwrap_or_default(),
            expansion: size("mlp_hidden_times", [4; 3])?,
            condition,
        };
        self.check_grid(&denoiser)?;
        denoiser.check().map_err(|source| LoadError::Config {
            path: self.path.clone(),
            source,
        })?;
        Ok(denoiser)
    }

    fn text_positions(&self) -> Result<i64, LoadError> {
        let declared = self.integer(TOKENIZE, "context_length")?;
        let declared = declared.or(self.integer(NETWORK, "condition_seq_len")?);
        Ok(declared.unwrap_or(77))
    }

    /// The whole model that it declares, with the codec and the text tower of the files
    /// that it names.
    ///
    /// # Errors
    ///
    /// Numbers that contradict the files, by their keys.
    pub fn model(
        &self,
        codec: &CodecConfig,
        codec_file: &Path,
        tower: Option<(TextConfig, PathBuf)>,
    ) -> Result<ModelConfig, LoadError> {
        let denoiser = self.denoiser()?;
        let mut codec = codec.clone();
        codec.set_resolution(denoiser.grid[0].saturating_mul(codec.factor()));
        self.check_codec(&codec, denoiser.codes, codec_file)?;
        let text = match tower {
            None => None,
            Some((mut tower, file)) => {
                let dimension = format!("{NETWORK}.params.condition_dim");
                if let Conditioning::Text { positions, width } = denoiser.condition {
                    tower.features.doubled = width == 2 * tower.width;
                    tower.features.normalized = self.flag(CONDITION, "normalize")?.unwrap_or(true);
                    let [context, features] = tower.features();
                    self.compare(&dimension, width, features, &file)?;
                    let length = format!("{NETWORK}.params.condition_seq_len");
                    self.compare(&length, positions, context, &file)?;
                }
                self.check_tower(&tower, &file)?;
                let null = match self.learns_null()? {
                    true => NullText::Learned,
                    false => NullText::EmptyPrompt,
                };
                Some(TextCondition { tower, null })
            }
        };
        let mut model = ModelConfig {
            denoiser,
            transition: Transition::released(),
            text,
            codec,
            sampling: None,
        };
        self.take_guidance(&mut model)?;
        model.check().map_err(|source| LoadError::Config {
            path: self.path.clone(),
            source,
        })?;
        Ok(model)
    }
}
