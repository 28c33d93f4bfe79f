//! Shape of the denoising network.

use serde::{Deserialize, Serialize};

use crate::config_error::ConfigError;
use crate::size::{check_sizes, LARGEST, MOST};

/// How an index, of the time or of a class, enters its adaptive norms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexEmbedding {
    /// A learned row per index (`adalayernorm`, `adainsnorm`).
    #[default]
    Table,
    /// Sines and cosines of the rescaled index (`adalayernorm_abs`, `adainsnorm_abs`).
    Sinusoid,
}

/// What an adaptive norm brings to mean 0 and variance 1 before it scales and shifts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdaptiveNorm {
    /// Each token over its channels (`adalayernorm`).
    #[default]
    Layer,
    /// Each channel over the picture's tokens (`adainsnorm`).
    Instance,
}

/// The activation inside the feed-forward parts (`block_activate`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x·σ(1.702 x) (`GELU2`), in every released model.
    #[default]
    Gelu2,
    /// x·Φ(x), Φ by the error function (`GELU`).
    Gelu,
}

/// How the weights of the two position tables are kept (`pos_emb_type`); the function is
/// the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PositionWeights {
    /// As tables `[rows, D]` (`embedding`), drawn like the tokens'.
    #[default]
    Embedding,
    /// As plain parameters `[1, rows, D]` that start at 0 (`parameter`).
    Parameter,
}

/// For configurations, which do not mention an option at its usual value.
fn is_usual<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
    /// Nothing: the model cannot be guided. The original takes a mean only of the tables of
    /// its adaptive layer norms.
    Absent,
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
        /// `class_type`: whether it is absolute, and its norm.
        #[serde(default, skip_serializing_if = "is_usual")]
        embedding: IndexEmbedding,
        #[serde(default, skip_serializing_if = "is_usual")]
        norm: AdaptiveNorm,
    },
    /// Nothing (`self`).
    Unconditional,
}

impl Conditioning {
    /// A class below `classes` by a learned table and adaptive layer norms.
    pub fn class(classes: i64, null: NullClass) -> Self {
        Conditioning::Class {
            classes,
            null,
            embedding: IndexEmbedding::Table,
            norm: AdaptiveNorm::Layer,
        }
    }

    /// Index that means "no class": one past the last class, as in the original (1000);
    /// none if nothing stands for it.
    pub fn null_class(&self) -> Option<i64> {
        match self {
            Conditioning::Class { null, .. } if *null == NullClass::Absent => None,
            Conditioning::Class { classes, .. } => Some(*classes),
            _ => None,
        }
    }

    /// Whether each token is conditioned without regard to the others.
    fn is_pointwise(&self) -> bool {
        !matches!(
            self,
            Conditioning::Class {
                norm: AdaptiveNorm::Instance,
                ..
            }
        )
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
    #[serde(default, skip_serializing_if = "is_usual")]
    pub position_weights: PositionWeights,
    /// Diffusion steps T (`diffusion_step`).
    pub timesteps: i64,
    /// `timestep_type`: whether it is absolute, and its norm.
    pub timestep_embedding: IndexEmbedding,
    #[serde(default, skip_serializing_if = "is_usual")]
    pub timestep_norm: AdaptiveNorm,
    pub feed_forward: FeedForwardKind,
    #[serde(default, skip_serializing_if = "is_usual")]
    pub activation: Activation,
    /// Hidden width of the feed-forward part as a multiple of `width` (`mlp_hidden_times`).
    pub expansion: i64,
    pub condition: Conditioning,
}

impl DenoiserConfig {
    /// Whether such a network can be built; the problem if not.
    pub fn check(&self) -> Result<(), ConfigError> {
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
            Conditioning::Class {
                classes,
                null,
                embedding,
                norm,
            } => {
                check_sizes(&[("condition.classes", classes, LARGEST)])?;
                let has_mean = (embedding, norm) == (IndexEmbedding::Table, AdaptiveNorm::Layer);
                if null == NullClass::Mean && !has_mean {
                    return Err(ConfigError::value(
                        "condition.null_class",
                        "mean",
                        "learned or absent: only tables of adaptive layer norms have a mean that \
                         was trained",
                    ));
                }
            }
            Conditioning::Unconditional => {}
        }
        for (key, embedding) in [
            ("timestep_embedding", self.timestep_embedding),
            ("condition.embedding", self.class_embedding()),
        ] {
            if embedding == IndexEmbedding::Sinusoid && (self.width < 4 || self.width % 2 != 0) {
                let problem = format!(
                    "is sinusoid, which needs an even width of at least 4, found {}",
                    self.width
                );
                return Err(ConfigError::contradiction(key, problem));
            }
        }
        if self.width % self.heads != 0 {
            let (heads, width) = (self.heads, self.width);
            let problem = format!("{heads} do not divide width {width}");
            return Err(ConfigError::contradiction("heads", problem));
        }
        if self.tokens() > table_rows * table_columns {
            let problem = format!(
                "{:?} has more tokens than position_table {:?} has positions",
                self.grid, self.position_table
            );
            return Err(ConfigError::contradiction("grid", problem));
        }
        Ok(())
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

    /// How classes enter their norms; a table where there are none.
    fn class_embedding(&self) -> IndexEmbedding {
        match self.condition {
            Conditioning::Class { embedding, .. } => embedding,
            _ => IndexEmbedding::Table,
        }
    }

    /// Whether all that follows self-attention in a block treats tokens one by one, so
    /// that it can be asked about some of them.
    pub fn is_pointwise(&self) -> bool {
        let time = match self.condition {
            // Its second time norm lies behind self-attention.
            Conditioning::Text { .. } => self.timestep_norm == AdaptiveNorm::Layer,
            _ => true,
        };
        time && self.condition.is_pointwise() && self.feed_forward == FeedForwardKind::Fc
    }

    /// Whether all but self-attention treats tokens one by one, so that some of them can be
    /// evaluated on the keys and values that the others had before.
    pub fn treats_tokens_alone(&self) -> bool {
        self.is_pointwise() && self.timestep_norm == AdaptiveNorm::Layer
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
