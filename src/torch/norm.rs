//! Layer and group norm.

use tch::Tensor;

use super::params::{Init, Params};

/// What is added to the variance where nothing else is said: PyTorch's value.
pub const EPSILON: f64 = 1e-5;

/// (x − mean) / √(variance + ε) ⊙ w + b over the last dimension, `[…, C]` → `[…, C]`;
/// `affine` is w and b, `[C]` each, 1 and 0 where there is none.
pub fn layer_norm(x: &Tensor, affine: Option<[&Tensor; 2]>, epsilon: f64) -> Tensor {
    let width = &x.size()[x.dim() - 1..];
    let [weight, bias] = match affine {
        Some(affine) => affine.map(Some),
        None => [None; 2],
    };
    x.layer_norm(width, weight, bias, epsilon, true)
}

/// Layer norm with learned weight and bias (Ba et al., arXiv 1607.06450).
pub struct LayerNorm {
    weight: Tensor, // [C]
    bias: Tensor,   // [C]
    epsilon: f64,
}

impl LayerNorm {
    /// Reads `weight` and `bias` below `p`, which start at 1 and 0.
    pub fn new(p: &Params, width: i64, epsilon: f64) -> Self {
        LayerNorm {
            weight: p.get("weight", &[width], Init::Ones),
            bias: p.get("bias", &[width], Init::Zeros),
            epsilon,
        }
    }

    /// `[…, C]` → `[…, C]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        layer_norm(x, Some([&self.weight, &self.bias]), self.epsilon)
    }
}

/// Group norm with learned weight and bias (Wu and He, arXiv 1803.08494).
pub struct GroupNorm {
    weight: Tensor, // [C]
    bias: Tensor,   // [C]
    groups: i64,
    epsilon: f64,
}

impl GroupNorm {
    /// Reads `weight` and `bias` below `p`, which start at 1 and 0.
    pub fn new(p: &Params, channels: i64, groups: i64, epsilon: f64) -> Self {
        GroupNorm {
            weight: p.get("weight", &[channels], Init::Ones),
            bias: p.get("bias", &[channels], Init::Zeros),
            groups,
            epsilon,
        }
    }

    /// `[B, C, …]` → `[B, C, …]`, in the kind of `x`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let [weight, bias] = [&self.weight, &self.bias].map(|w| w.to_kind(x.kind()));
        x.group_norm(self.groups, Some(&weight), Some(&bias), self.epsilon, true)
    }
}
