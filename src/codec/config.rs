//! Shape of the image codec.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config_error::ConfigError;
use crate::size::{check_sizes, LARGEST, MOST};

/// How an encoder output becomes a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuantizerKind {
    /// Logits over the codebook, one drawn (OpenImages f8 Gumbel VQGAN).
    Gumbel,
    /// Nearest entry of a learned codebook (f16 VQGANs of ImageNet and FFHQ).
    Vector,
    /// Nearest entry of a codebook moved by exponential averages (ITHQ VQ-VAE).
    Ema,
}

impl fmt::Display for QuantizerKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            QuantizerKind::Gumbel => "Gumbel",
            QuantizerKind::Vector => "vector",
            QuantizerKind::Ema => "EMA",
        })
    }
}

/// Shape of a VQGAN-style codec (`ddconfig` of taming, `patch_vqgan` of the original).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodecConfig {
    /// Side of the square pictures in pixels (`resolution`).
    pub resolution: i64,
    /// Channels of the first level (`ch`).
    pub channels: i64,
    /// Channels of each level as multiples of `channels` (`ch_mult`); the codec
    /// halves the picture between levels.
    pub multipliers: Vec<i64>,
    /// Residual blocks a level in the encoder; the decoder has one more (`num_res_blocks`).
    pub residual_blocks: i64,
    /// Feature map sides with an attention block behind each residual block
    /// (`attn_resolutions`).
    pub attention_resolutions: Vec<i64>,
    /// Channels Z between encoder and quantizer convolutions (`z_channels`).
    pub latent_channels: i64,
    /// Width E of a codebook entry (`embed_dim`).
    pub embedding_width: i64,
    /// Entries N of the codebook (`n_embed`).
    pub codebook: i64,
    pub quantizer: QuantizerKind,
    /// Groups of the group norms; 32 in every released codec.
    #[serde(default = "released_groups", skip_serializing_if = "is_released")]
    pub norm_groups: i64,
}

/// Groups of the group norms in every released codec.
pub const RELEASED_GROUPS: i64 = 32;

fn released_groups() -> i64 {
    RELEASED_GROUPS
}

fn is_released(groups: &i64) -> bool {
    *groups == RELEASED_GROUPS
}

impl CodecConfig {
    /// The same network for pictures of another `resolution`, a multiple of the
    /// factor: attention stays at the same levels.
    pub fn set_resolution(&mut self, resolution: i64) {
        for side in &mut self.attention_resolutions {
            *side = *side * resolution / self.resolution;
        }
        self.resolution = resolution;
    }

    /// Whether such a codec can be built; the problem if not.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_sizes(&[
            ("resolution", self.resolution, LARGEST),
            ("channels", self.channels, LARGEST),
            ("residual_blocks", self.residual_blocks, MOST),
            ("latent_channels", self.latent_channels, LARGEST),
            ("embedding_width", self.embedding_width, LARGEST),
            ("codebook", self.codebook, LARGEST),
            ("norm_groups", self.norm_groups, LARGEST),
        ])?;
        let sides = &self.attention_resolutions;
        if let Some(side) = sides.iter().find(|side| !(0..=LARGEST).contains(*side)) {
            let expected = format!("0 to {LARGEST}");
            return Err(ConfigError::value("attention_resolutions", side, expected));
        }
        if self.multipliers.is_empty() || self.multipliers.iter().any(|m| !(1..=MOST).contains(m)) {
            let found = format!("{:?}", self.multipliers);
            let expected = format!("numbers from 1 to {MOST}");
            return Err(ConfigError::value("multipliers", found, expected));
        }
        if self.multipliers.len() > 16 || self.resolution % self.factor() != 0 {
            let problem = format!(
                "{} cannot be halved {} times (one time less than there are multipliers)",
                self.resolution,
                self.multipliers.len() - 1
            );
            return Err(ConfigError::contradiction("resolution", problem));
        }
        let ungrouped = |level: &usize| self.level_channels(*level) % self.norm_groups != 0;
        if let Some(level) = (0..self.multipliers.len()).find(ungrouped) {
            let problem = format!(
                "{} do not divide the {} channels of level {level}",
                self.norm_groups,
                self.level_channels(level)
            );
            return Err(ConfigError::contradiction("norm_groups", problem));
        }
        if self.channels % self.norm_groups != 0 {
            let (groups, channels) = (self.norm_groups, self.channels);
            let problem = format!("{groups} do not divide channels {channels}");
            return Err(ConfigError::contradiction("norm_groups", problem));
        }
        Ok(())
    }

    /// Pixels of a picture's side per token.
    pub fn factor(&self) -> i64 {
        1 << (self.multipliers.len() - 1)
    }

    /// Side of the feature maps at `level` (0 is full resolution).
    pub fn side(&self, level: usize) -> i64 {
        self.resolution >> level
    }

    pub fn level_channels(&self, level: usize) -> i64 {
        self.channels * self.multipliers[level]
    }

    pub fn has_attention(&self, level: usize) -> bool {
        self.attention_resolutions.contains(&self.side(level))
    }
}
