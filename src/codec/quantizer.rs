//! Quantizers: encoder output to code, code to embedding.

use tch::{Kind, Tensor};

use super::config::{CodecConfig, QuantizerKind};
use super::layers::Conv;
use crate::torch::{Init, Params};

pub enum Quantizer {
    /// A 1×1 convolution gives logits over the codebook.
    Gumbel { proj: Conv, embed: Tensor },
    /// Nearest entry by Euclidean distance.
    Nearest { embedding: Tensor },
}

impl Quantizer {
    pub fn new(p: &Params, config: &CodecConfig) -> Self {
        let (entries, width) = (config.codebook, config.embedding_width);
        let table = |name, init| p.get(name, &[entries, width], init);
        match config.quantizer {
            QuantizerKind::Gumbel => Quantizer::Gumbel {
                proj: Conv::pointwise(&p.at("proj"), config.embedding_width, entries),
                embed: table("embed.weight", Init::Normal(1.0)),
            },
            QuantizerKind::Vector => Quantizer::Nearest {
                embedding: table("embedding.weight", Init::Uniform(1.0 / entries as f64)),
            },
            QuantizerKind::Ema => Quantizer::Nearest {
                embedding: table("embedding", Init::Normal(1.0)),
            },
        }
    }

    /// How well each code fits each position, higher is better: the logits of the
    /// Gumbel quantizer, or minus the squared distance.
    /// `z` `[B, E, h, w]` → `[B, h·w, N]`.
    pub fn scores(&self, z: &Tensor) -> Tensor {
        match self {
            Quantizer::Gumbel { proj, .. } => proj.forward(z).flatten(2, 3).transpose(1, 2),
            Quantizer::Nearest { embedding } => {
                let z = z.flatten(2, 3).transpose(1, 2); // [B, L, E]
                let z2 = z.square().sum_dim_intlist(-1, true, Kind::Float); // [B, L, 1]
                let e2 = embedding.square().sum_dim_intlist(-1, false, Kind::Float); // [N]
                let cross = z.matmul(&embedding.transpose(0, 1)); // [B, L, N]
                cross * 2.0 - z2 - e2
            }
        }
    }

    /// Codebook rows of `codes` `[B, L]` int64 → `[B, L, E]`.
    pub fn embed(&self, codes: &Tensor) -> Tensor {
        let table = match self {
            Quantizer::Gumbel { embed, .. } => embed,
            Quantizer::Nearest { embedding } => embedding,
        };
        Tensor::embedding(table, codes, -1, false, false)
    }
}
