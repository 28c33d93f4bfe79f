//! Feed-forward part of a block: dense (`fc`) or convolutional (`conv_mlp`).

use tch::Tensor;

use super::config::{Activation, DenoiserConfig, FeedForwardKind};
use super::dropout::{LayerDropout, Place};
use crate::torch::linear::{gelu2, Gelu2Mlp};
use crate::torch::{Init, Linear, Params};

pub enum FeedForward {
    /// Dense layers around GELU2, which is fused with the first.
    Gelu2(Gelu2Mlp),
    /// Dense layers around GELU.
    Gelu { hidden: Linear, out: Linear },
    Conv {
        hidden: Conv3x3,
        activation: Activation,
        out: Conv3x3,
        grid: [i64; 2],
    },
}

impl Activation {
    fn apply(self, x: &Tensor) -> Tensor {
        match self {
            Activation::Gelu2 => gelu2(x),
            Activation::Gelu => x.gelu("none"),
        }
    }
}

impl FeedForward {
    pub fn new(p: &Params, config: &DenoiserConfig) -> Self {
        let (width, hidden) = (config.width, config.width * config.expansion);
        let dense = || {
            [
                Linear::new(&p.at("0"), width, hidden),
                Linear::new(&p.at("2"), hidden, width),
            ]
        };
        match (config.feed_forward, config.activation) {
            (FeedForwardKind::Fc, Activation::Gelu2) => {
                let [hidden, out] = dense();
                FeedForward::Gelu2(Gelu2Mlp::new(hidden, out))
            }
            (FeedForwardKind::Fc, Activation::Gelu) => {
                let [hidden, out] = dense();
                FeedForward::Gelu { hidden, out }
            }
            (FeedForwardKind::Conv, activation) => FeedForward::Conv {
                hidden: Conv3x3::new(&p.at("conv1"), width, hidden),
                activation,
                out: Conv3x3::new(&p.at("conv2"), hidden, width),
                grid: config.grid,
            },
        }
    }

    /// Makes the layers ready for inference.
    pub fn prepare(&mut self) {
        match self {
            FeedForward::Gelu2(mlp) => mlp.pack(),
            FeedForward::Gelu { hidden, out } => {
                hidden.pack();
                out.pack();
            }
            FeedForward::Conv { .. } => {}
        }
    }

    /// residual + MLP(x): both `[B, L, D]`; the dense kind takes any number of positions. In
    /// training with `dropout`.
    pub fn forward(&self, x: &Tensor, residual: &Tensor, dropout: Option<LayerDropout>) -> Tensor {
        if let Some(dropout) = dropout {
            return dropout.add(&self.output(x), residual, Place::FeedForward);
        }
        match self {
            FeedForward::Gelu2(mlp) => mlp.forward_add(x, residual),
            FeedForward::Gelu { hidden, out } => {
                out.forward_add(&Activation::Gelu.apply(&hidden.forward(x)), residual)
            }
            FeedForward::Conv { .. } => residual + self.output(x),
        }
    }

    /// MLP(x): `[B, L, D]` → `[B, L, D]`.
    fn output(&self, x: &Tensor) -> Tensor {
        match self {
            FeedForward::Gelu2(mlp) => mlp.forward(x),
            FeedForward::Gelu { hidden, out } => {
                out.forward(&Activation::Gelu.apply(&hidden.forward(x)))
            }
            FeedForward::Conv {
                hidden,
                activation,
                out,
                grid,
            } => {
                let (batch, tokens, width) = (x.size()[0], x.size()[1], x.size()[2]);
                let image = x.transpose(1, 2).reshape([batch, width, grid[0], grid[1]]); // [B, D, h, w]
                let h = out.forward(&activation.apply(&hidden.forward(&image)));
                h.view([batch, width, tokens]).transpose(1, 2)
            }
        }
    }
}

/// 3×3 convolution with one pixel of zero padding.
pub struct Conv3x3 {
    weight: Tensor, // [out, in, 3, 3]
    bias: Tensor,
}

impl Conv3x3 {
    fn new(p: &Params, inputs: i64, outputs: i64) -> Self {
        let init = Init::fan_in(9 * inputs);
        Conv3x3 {
            weight: p.get("weight", &[outputs, inputs, 3, 3], init),
            bias: p.get("bias", &[outputs], init),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        x.conv2d(&self.weight, Some(&self.bias), [1, 1], [1, 1], [1, 1], 1)
    }
}
