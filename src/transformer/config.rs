//! Shape of the denoising network.

use serde::{Deserialize, Serialize};

use crate::size::{check_sizes, LARGEST, MOST};

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

/// What stands for "no class" in guidance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NullClass {
    /// A learned row behind those of the classes (`class_number` 1001).
    Learned,
    /// The mean of the classes' rows, for models trained without one (`class_number` 1000).
    Mean,
}

/// What the prediction is conditioned on (`attn_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Conditioning {
    /// Text features, through cross-attention (`selfcross`): S positions
    /// (`condition_seq_len`) of width C (`condition_dim`).
    Text { positions: i64, width: i64 },
    /// A class below `classes`, through the norm before the feed-forward part
    /// (`selfcondition`).
    Class {
        classes: i64,
        // `null` as a YAML key would be the null value.
        #[serde(rename = "null_class")]
        null: NullClass,
    },
    /// Nothing (`self`).
    Unconditional,
}

impl Conditioning {
    /// Index that means "no class": one past the last class, as in the original (1000).
    pub fn null_class(&self) -> Option<i64> {
        match self {
            Conditioning::Class { classes, .. } => Some(*classes),
            _ => None,
        }
    }
}

/// Shape of the denoiser (official `Text2ImageTransformer`,
/// `Condition2ImageTransformer` and `UnCondition2ImageTransformer`).
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
    pub condition: Conditioning,
}

impl DenoiserConfig {
    /// Whether such a network can be built; the problem if not.
    pub fn check(&self) -> Result<(), String> {
        let ([rows, columns], [table_rows, table_columns]) = (self.grid, self.position_table);
        check_sizes(&[
            ("layers", self.layers, MOST),
            ("width", self.width, LARGEST),
            ("heads", self.heads, LARGEST),
            ("codes", self.codes, LARGEST),
            ("grid", rows.min(columns), LARGEST),
            ("grid", rows.max(columns), LARGEST),
            ("position_table", table_rows.min(table_columns), LARGEST),
            ("position_table", table_rows.max(table_columns), LARGEST),
            ("timesteps", self.timesteps, LARGEST),
            ("expansion", self.expansion, MOST),
        ])?;
        match self.condition {
            Conditioning::Text { positions, width } => check_sizes(&[
                ("condition.positions", positions, LARGEST),
                ("condition.width", width, LARGEST),
            ])?,
            Conditioning::Class { classes, .. } => {
                check_sizes(&[("condition.classes", classes, LARGEST)])?
            }
            Conditioning::Unconditional => {}
        }
        if self.width % self.heads != 0 {
            let (heads, width) = (self.heads, self.width);
            return Err(format!("heads {heads} do not divide width {width}"));
        }
        if self.tokens() > table_rows * table_columns {
            return Err(format!(
                "grid {:?} has more tokens than position_table {:?} has positions",
                self.grid, self.position_table
            ));
        }
        Ok(())
    }

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
            condition: Conditioning::Text {
                positions: 77,
                width: 512,
            },
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

    /// VQ-Diffusion-L: ITHQ-200M (`configs/ithq.yaml`).
    pub fn large() -> Self {
        DenoiserConfig {
            layers: 36,
            width: 1408,
            codes: 4096,
            ..Self::base()
        }
    }

    /// ImageNet (`configs/imagenet.yaml`), with a learned null class or without.
    /// The position table is larger than the grid, as in the original.
    pub fn imagenet(null: NullClass) -> Self {
        DenoiserConfig {
            layers: 24,
            width: 512,
            codes: 974,
            grid: [16, 16],
            feed_forward: FeedForwardKind::Conv,
            condition: Conditioning::Class {
                classes: 1000,
                null,
            },
            ..Self::base()
        }
    }

    /// FFHQ (`configs/ffhq.yaml`); the position table is larger than the grid here too.
    pub fn ffhq() -> Self {
        DenoiserConfig {
            layers: 20,
            codes: 1024,
            condition: Conditioning::Unconditional,
            ..Self::imagenet(NullClass::Mean)
        }
    }

    /// Floating-point operations of one evaluation for one picture, a multiplication and
    /// an addition counted each.
    pub fn flops(&self) -> f64 {
        let [d, l, k] = [self.width, self.tokens(), self.codes].map(|n| n as f64);
        let hidden = d * self.expansion as f64;
        let taps = match self.feed_forward {
            FeedForwardKind::Fc => 1.0,
            FeedForwardKind::Conv => 9.0,
        };
        let own = 8.0 * d * d * l + 4.0 * l * l * d;
        let text = match self.condition {
            Conditioning::Text { positions, width } => {
                let (s, w) = (positions as f64, width as f64);
                4.0 * d * d * l + 4.0 * w * d * s + 4.0 * l * s * d
            }
            _ => 0.0,
        };
        let feed_forward = 4.0 * d * hidden * l * taps;
        self.layers as f64 * (own + text + feed_forward) + 2.0 * d * k * l
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
