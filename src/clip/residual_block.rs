//! The pre-norm transformer block of both towers of CLIP.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::torch::attention::{attend_joined, Mask};
use crate::torch::linear::gelu2;
use crate::torch::{norm, Init, LayerNorm, Linear, Params};

/// What stands between the two layers of a feed-forward part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipActivation {
    /// x·σ(1.702 x): OpenAI's models.
    #[default]
    QuickGelu,
    /// The exact GELU: open_clip's models.
    Gelu,
}

impl ClipActivation {
    fn of(self, x: &Tensor) -> Tensor {
        match self {
            ClipActivation::QuickGelu => gelu2(x),
            ClipActivation::Gelu => x.gelu("none"),
        }
    }
}

/// Shape of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockShape {
    pub width: i64,
    pub heads: i64,
    pub hidden: i64,
    pub activation: ClipActivation,
    /// Padding is not masked, as in CLIP.
    pub mask: Mask,
}

pub(super) struct ResBlock {
    ln_1: LayerNorm,
    in_proj: Linear, // C → 3C: query, key, value
    out_proj: Linear,
    ln_2: LayerNorm,
    c_fc: Linear,
    c_proj: Linear,
    shape: BlockShape,
}

impl ResBlock {
    pub fn new(p: &Params, shape: BlockShape) -> Self {
        let width = shape.width;
        let attn = p.at("attn");
        let std = (width as f64).powf(-0.5);
        ResBlock {
            ln_1: LayerNorm::new(&p.at("ln_1"), width, norm::EPSILON),
            in_proj: Linear::from_tensors(
                attn.get("in_proj_weight", &[3 * width, width], Init::Normal(std)),
                attn.get("in_proj_bias", &[3 * width], Init::Zeros),
            ),
            out_proj: Linear::new(&attn.at("out_proj"), width, width),
            ln_2: LayerNorm::new(&p.at("ln_2"), width, norm::EPSILON),
            c_fc: Linear::new(&p.at("mlp.c_fc"), width, shape.hidden),
            c_proj: Linear::new(&p.at("mlp.c_proj"), shape.hidden, width),
            shape,
        }
    }

    /// `x` `[B, S, C]` → `[B, S, C]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let shape = &self.shape;
        let joined = self.in_proj.forward(&self.ln_1.forward(x)); // [B, S, 3C]
        let h = attend_joined(&joined, shape.heads, shape.mask);
        let x = x + self.out_proj.forward(&h);
        let hidden = self.c_fc.forward(&self.ln_2.forward(&x));
        let hidden = shape.activation.of(&hidden);
        &x + self.c_proj.forward(&hidden)
    }
}
