//! Feed-forward part of a block: dense (`fc`) or convolutional (`conv_mlp`).

use tch::Tensor;

use super::config::{DenoiserConfig, FeedForwardKind};
use crate::torch::linear::{gelu2, Gelu2Mlp};
use crate::torch::{Init, Linear, Params};

pub enum FeedForward {
    Fc(Gelu2Mlp),
    Conv {
        hidden: Conv3x3,
        out: Conv3x3,
        grid: [i64; 2],
    },
}

impl FeedForward {
    pub fn new(p: &Params, config: &DenoiserConfig) -> Self {
        let (width, hidden) = (config.width, config.width * config.expansion);
        match config.feed_forward {
            FeedForwardKind::Fc => FeedForward::Fc(Gelu2Mlp::new(
                Linear::new(&p.at("0"), width, hidden),
                Linear::new(&p.at("2"), hidden, width),
            )),
            FeedForwardKind::Conv => FeedForward::Conv {
                hidden: Conv3x3::new(&p.at("conv1"), width, hidden),
                out: Conv3x3::new(&p.at("conv2"), hidden, width),
                grid: config.grid,
            },
        }
    }

    /// Whether a position's output depends on that position alone.
    pub fn is_pointwise(&self) -> bool {
        matches!(self, FeedForward::Fc(_))
    }

    /// Makes the layers ready for inference.
    pub fn prepare(&mut self) {
        if let FeedForward::Fc(mlp) = self {
            mlp.pack();
        }
    }

    /// residual + MLP(x): both `[B, L, D]`; the dense kind takes any number of positions.
    pub fn forward(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        match self {
            FeedForward::Fc(mlp) => mlp.forward_add(x, residual),
            FeedForward::Conv { hidden, out, grid } => {
                let (batch, tokens, width) = (x.size()[0], x.size()[1], x.size()[2]);
                let image = x.transpose(1, 2).reshape([batch, width, grid[0], grid[1]]); // [B, D, h, w]
                let h = out.forward(&gelu2(&hidden.forward(&image)));
                residual + h.view([batch, width, tokens]).transpose(1, 2)
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
