//! CLIP text tower (ViT-B/32's in the released models), read at every position.
//!
//! Letters of the shape comments: B texts, S positions, C width.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::residual_block::{BlockShape, ClipActivation, ResBlock};
use super::token_rule::TokenRule;
use crate::config_error::ConfigError;
use crate::size::{check_sizes, LARGEST, MOST};
use crate::torch::attention::Mask;
use crate::torch::{norm, Init, LayerNorm, Params};

/// Which merge rules the ids of a text tower come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MergeSource {
    /// CLIP's, the first `vocabulary` − 514.
    #[default]
    Clip,
    /// The model's own, which its file holds.
    Own,
}

impl MergeSource {
    /// For configurations, which do not mention the usual source.
    pub fn is_clip(&self) -> bool {
        *self == MergeSource::Clip
    }
}

/// Shape of the text tower; everything but the head count shows in the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// Rows of the token embedding.
    pub vocabulary: i64,
    /// Where its byte pairs come from.
    #[serde(default, skip_serializing_if = "MergeSource::is_clip")]
    pub merges: MergeSource,
    /// Text positions S.
    pub context: i64,
    /// Width C.
    pub width: i64,
    /// Pre-norm blocks.
    pub layers: i64,
    /// Attention heads: width / 64, at least one.
    pub heads: i64,
    /// Hidden width of the feed-forward parts.
    pub hidden: i64,
    /// How its token ids are made.
    #[serde(default, skip_serializing_if = "TokenRule::is_official")]
    pub tokens: TokenRule,
    /// What its features are.
    #[serde(default, skip_serializing_if = "FeatureConfig::is_usual")]
    pub features: FeatureConfig,
}

/// What the network reads of a text tower's last hidden state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FeatureConfig {
    /// Whether each position's features are divided by their L2 norm (`normalize`).
    pub normalized: bool,
    /// Whether they stand twice side by side (`embed_dim: 1024` over a tower of 512).
    pub doubled: bool,
}

impl Default for FeatureConfig {
    fn default() -> Self {
        FeatureConfig {
            normalized: true,
            doubled: false,
        }
    }
}

impl FeatureConfig {
    /// For configurations, which do not mention the usual features.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

impl TextConfig {
    /// Whether such a tower can be built; the problem if not.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_sizes(&[
            ("vocabulary", self.vocabulary, LARGEST),
            ("context", self.context, LARGEST),
            ("width", self.width, LARGEST),
            ("layers", self.layers, MOST),
            ("heads", self.heads, LARGEST),
            ("hidden", self.hidden, LARGEST),
        ])?;
        if self.width % self.heads != 0 {
            let (heads, width) = (self.heads, self.width);
            let problem = format!("{heads} do not divide width {width}");
            return Err(ConfigError::contradiction("heads", problem));
        }
        Ok(())
    }

    /// Positions S and width of the features that the network reads.
    pub fn features(&self) -> [i64; 2] {
        let copies = if self.features.doubled { 2 } else { 1 };
        [self.context, copies * self.width]
    }

    /// Ids of the empty prompt: S.
    pub fn empty_prompt(&self) -> Vec<i64> {
        let mut ids = vec![self.tokens.pad_id(self.vocabulary); self.context as usize];
        let markers = [self.vocabulary - 2, self.vocabulary - 1];
        ids.iter_mut()
            .zip(markers)
            .for_each(|(id, marker)| *id = marker);
        ids
    }
}

/// The text tower.
pub struct TextEncoder {
    token_embedding: Tensor,      // [V, C]
    positional_embedding: Tensor, // [S, C]
    blocks: Vec<ResBlock>,
    ln_final: LayerNorm,
    config: TextConfig,
}

impl TextEncoder {
    /// Builds the tower from the weights below `p`, spelled as in CLIP's files
    /// (official prefix `transformer.condition_emb`).
    pub fn new(p: &Params, config: &TextConfig) -> Self {
        Self::with_activation(p, config, ClipActivation::QuickGelu)
    }

    /// As [`new`](Self::new) for a tower of another activation, which no checkpoint of
    /// VQ-Diffusion has.
    pub fn with_activation(p: &Params, config: &TextConfig, activation: ClipActivation) -> Self {
        let width = config.width;
        let blocks = p.at("transformer.resblocks");
        let shape = BlockShape {
            width,
            heads: config.heads,
            hidden: config.hidden,
            activation,
            mask: Mask::Causal,
        };
        TextEncoder {
            token_embedding: p.get(
                "token_embedding.weight",
                &[config.vocabulary, width],
                Init::Normal(0.02),
            ),
            positional_embedding: p.get(
                "positional_embedding",
                &[config.context, width],
                Init::Normal(0.01),
            ),
            blocks: (0..config.layers)
                .map(|i| ResBlock::new(&blocks.at(i), shape))
                .collect(),
            ln_final: LayerNorm::new(&p.at("ln_final"), width, norm::EPSILON),
            config: config.clone(),
        }
    }

    pub fn config(&self) -> &TextConfig {
        &self.config
    }

    /// Features of every position (official `CLIPTextEmbedding`; the usual ones are divided
    /// by their own L2 norm): `tokens` `[B, S]` int64 → `[B, S, C]` f32, C as
    /// [`TextConfig::features`] says.
    pub fn forward(&self, tokens: &Tensor) -> Tensor {
        let mut x = self.states(tokens);
        let FeatureConfig {
            normalized,
            doubled,
        } = self.config.features;
        if doubled {
            x = Tensor::cat(&[&x, &x], -1);
        }
        match normalized {
            true => &x / x.norm_scalaropt_dim(2.0, [-1], true),
            false => x,
        }
    }

    /// What every position holds behind the last norm: `tokens` `[B, S]` int64 →
    /// `[B, S, C]` f32.
    pub fn states(&self, tokens: &Tensor) -> Tensor {
        let mut x = Tensor::embedding(&self.token_embedding, tokens, -1, false, false)
            + &self.positional_embedding; // [B, S, C]
        for block in &self.blocks {
            x = block.forward(&x);
        }
        self.ln_final.forward(&x).to_kind(Kind::Float)
    }
}
