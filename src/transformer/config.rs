//! Shape of the denoising network.

use serde::{Deserialize, Serialize};

/// How the time index enters the adaptive norms (`timestep_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepEmbedding {
    /// A learned row per time index (`adalayernorm`).
    Table,
    /// Sines and cosines of the rescaled time (`adalayernorm_abs`).
    Sinusoid,
}

/// The feed-forward part of a block (`mlp_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedForwardKind {
    /// Two dense layers (`fc`).
    Fc,
    /// Two 3×3 convolutions over the token grid (`conv_mlp`).
    Conv,
}

/// Shape of the text-conditioned denoiser (official `Text2ImageTransformer`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenoiserConfig {
    /// Number of blocks (`n_layer`).
    pub layers: i64,
    /// Width D of the hidden state (`n_embd`).
    pub width: i64,
    /// Attention heads (`n_head`); divides `width`.
    pub heads: i64,
    /// Number of image codes K that the model predicts; the mask token is K.
    pub codes: i64,
    /// Token grid as rows, columns; L is their product.
    pub grid: [i64; 2],
    /// Rows of the height and width tables (`spatial_size` of the content
    /// embedding). Flat position l reads row l / columns and column l mod columns
    /// of *this* grid, which may be larger than `grid`.
    pub position_table: [i64; 2],
    /// Diffusion steps T (`diffusion_step`).
    pub timesteps: i64,
    pub timestep_embedding: TimestepEmbedding,
    pub feed_forward: FeedForwardKind,
    /// Hidden width of the feed-forward part as a multiple of `width` (`mlp_hidden_times`).
    pub expansion: i64,
    /// Width C of the text features (`condition_dim`).
    pub text_width: i64,
    /// Text positions S (`condition_seq_len`).
    pub text_positions: i64,
}

impl DenoiserConfig {
    /// VQ-Diffusion-B and -F: COCO, CUB-200, Conceptual Captions
    /// (`configs/coco.yaml` of the original).
    pub fn base() -> Self {
        DenoiserConfig {
            layers: 19,
            width: 1024,
            heads: 16,
            codes: 2887,
            grid: [32, 32],
            position_table: [32, 32],
            timesteps: 100,
            timestep_embedding: TimestepEmbedding::Table,
            feed_forward: FeedForwardKind::Fc,
            expansion: 4,
            text_width: 512,
            text_positions: 77,
        }
    }

    /// The small size with dense feed-forward parts: 18 layers of width 192.
    pub fn small() -> Self {
        DenoiserConfig {
            layers: 18,
            width: 192,
            ..Self::base()
        }
    }

    /// L, the number of image tokens.
    pub fn tokens(&self) -> i64 {
        self.grid[0] * self.grid[1]
    }

    /// Index of the mask token.
    pub fn mask_token(&self) -> i64 {
        self.codes
    }
}
