//! The pre-norm transformer block of both towers of CLIP.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::torch::linear::gelu2;
use crate::torch::{Init, Linear, Params};

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
    /// Whether a position sees those before it alone; padding is not masked, as in CLIP.
    pub causal: bool,
}

pub(super) struct Norm {
    affine: [Tensor; 2], // weight and bias [C]
}

impl Norm {
    pub fn new(p: &Params, width: i64) -> Self {
        Norm {
            affine: [
                p.get("weight", &[width], Init::Ones),
                p.get("bias", &[width], Init::Zeros),
            ],
        }
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        let [weight, bias] = &self.affine;
        x.layer_norm(weight.size(), Some(weight), Some(bias), 1e-5, true)
    }
}

pub(super) struct ResBlock {
    ln_1: Norm,
    in_proj: Linear, // C → 3C: query, key, value
    out_proj: Linear,
    ln_2: Norm,
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
            ln_1: Norm::new(&p.at("ln_1"), width),
            in_proj: Linear::from_tensors(
                attn.get("in_proj_weight", &[3 * width, width], Init::Normal(std)),
                attn.get("in_proj_bias", &[3 * width], Init::Zeros),
            ),
            out_proj: Linear::new(&attn.at("out_proj"), width, width),
            ln_2: Norm::new(&p.at("ln_2"), width),
            c_fc: Linear::new(&p.at("mlp.c_fc"), width, shape.hidden),
            c_proj: Linear::new(&p.at("mlp.c_proj"), shape.hidden, width),
            shape,
        }
    }

    /// `x` `[B, S, C]` → `[B, S, C]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (batch, positions, width) = (x.size()[0], x.size()[1], x.size()[2]);
        let heads = self.shape.heads;
        let joined = self
            .in_proj
            .forward(&self.ln_1.forward(x))
            .view([batch, positions, 3, heads, width / heads])
            .permute([2, 0, 3, 1, 4]); // [3, B, heads, S, C / heads]
        let h = Tensor::scaled_dot_product_attention(
            &joined.get(0),
            &joined.get(1),
            &joined.get(2),
            None::<&Tensor>,
            0.0,
            self.shape.causal,
            None,
            false,
        )
        .transpose(1, 2)
        .reshape([batch, positions, width]);
        let x = x + self.out_proj.forward(&h);
        let hidden = self
            .shape
            .activation
            .of(&self.c_fc.forward(&self.ln_2.forward(&x)));
        &x + self.c_proj.forward(&hidden)
    }
}
