//! Linear layer y = x Wᵀ + b.

use tch::Tensor;

use super::params::{Init, Params};

/// GELU2(x) = x·σ(1.702 x), the activation of every released model (CLIP's QuickGELU).
pub fn gelu2(x: &Tensor) -> Tensor {
    (x * 1.702).sigmoid_() * x
}

/// A dense layer with bias; weight `[outputs, inputs]`, bias `[outputs]`.
pub struct Linear {
    pub weight: Tensor,
    pub bias: Tensor,
}

impl Linear {
    /// Reads `weight` and `bias` below `p`; original initialisation N(0, 0.02²), bias 0.
    pub fn new(p: &Params, inputs: i64, outputs: i64) -> Self {
        Linear {
            weight: p.get("weight", &[outputs, inputs], Init::Normal(0.02)),
            bias: p.get("bias", &[outputs], Init::Zeros),
        }
    }

    /// The layers side by side: outputs concatenated in order.
    pub fn joined(layers: &[&Linear]) -> Self {
        let weights: Vec<_> = layers.iter().map(|l| &l.weight).collect();
        let biases: Vec<_> = layers.iter().map(|l| &l.bias).collect();
        Linear {
            weight: Tensor::cat(&weights, 0),
            bias: Tensor::cat(&biases, 0),
        }
    }

    pub fn pack(&mut self) {}

    pub fn pack_gelu2(&mut self) {}

    /// `x` `[…, inputs]` → `[…, outputs]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, Some(&self.bias))
    }

    /// GELU2 of the output.
    pub fn forward_gelu2(&self, x: &Tensor) -> Tensor {
        gelu2(&self.forward(x))
    }

    /// The output added to `residual`, which has its shape.
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        self.forward(x) + residual
    }
}
