//! Multi-head attention: bidirectional over image tokens, and from image tokens
//! to all text positions. No mask of any kind is applied, as in the original.

use tch::Tensor;

use super::config::DenoiserConfig;
use super::embedding::gather_positions;
use crate::torch::{Linear, Params};

/// `[B, N, D]` → `[B, H, N, D / H]`; heads are contiguous chunks of the width.
fn split_heads(x: &Tensor, heads: i64) -> Tensor {
    let (batch, positions, width) = (x.size()[0], x.size()[1], x.size()[2]);
    x.reshape([batch, positions, heads, width / heads])
        .transpose(1, 2)
}

/// softmax(q kᵀ / √(D/H)) v: `q` `[B, H, N, d]`, `k` and `v` `[B, H, M, d]` → `[B, N, D]`.
fn attend(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let (batch, heads, positions, head_width) = {
        let s = q.size();
        (s[0], s[1], s[2], s[3])
    };
    Tensor::scaled_dot_product_attention(q, k, v, None::<&Tensor>, 0.0, false, None, false)
        .transpose(1, 2)
        .reshape([batch, positions, heads * head_width])
}

/// Self-attention over the image tokens.
pub struct SelfAttention {
    query: Linear, // D → D
    key: Linear,
    value: Linear,
    proj: Linear,
    heads: i64,
    /// Query, key and value side by side (D → 3D), for inference.
    joined: Option<Linear>,
}

impl SelfAttention {
    pub fn new(p: &Params, config: &DenoiserConfig) -> Self {
        let width = config.width;
        SelfAttention {
            query: Linear::new(&p.at("query"), width, width),
            key: Linear::new(&p.at("key"), width, width),
            value: Linear::new(&p.at("value"), width, width),
            proj: Linear::new(&p.at("proj"), width, width),
            heads: config.heads,
            joined: None,
        }
    }

    /// Joins query, key and value into one layer and fuses, for inference. The three
    /// become views of the joined weights.
    pub fn prepare(&mut self) {
        let width = self.query.weight.size()[0];
        let mut joined = Linear::joined(&[&self.query, &self.key, &self.value]);
        let parts = [&mut self.query, &mut self.key, &mut self.value];
        for (i, part) in parts.into_iter().enumerate() {
            let start = i as i64 * width;
            part.weight = joined.weight.narrow(0, start, width);
            part.bias = joined.bias.narrow(0, start, width);
            part.fuse();
        }
        joined.fuse();
        self.joined = Some(joined);
        self.proj.fuse();
    }

    /// residual + SA(x) at `positions` `[B, A]` (all L when `None`): `x` and
    /// `residual` `[B, L, D]` → `[B, A, D]`.
    pub fn forward(&self, x: &Tensor, residual: &Tensor, positions: Option<&Tensor>) -> Tensor {
        let width = x.size()[2];
        let (q, k, v) = match (&self.joined, positions) {
            (Some(joined), None) => {
                let all = joined.forward(x); // [B, L, 3D]
                let part = |i| all.narrow(2, i * width, width);
                (part(0), part(1), part(2))
            }
            _ => {
                let at = positions.map(|p| gather_positions(x, p));
                let q = self.query.forward(at.as_ref().unwrap_or(x));
                (q, self.key.forward(x), self.value.forward(x))
            }
        };
        let h = attend(
            &split_heads(&q, self.heads),
            &split_heads(&k, self.heads),
            &split_heads(&v, self.heads),
        );
        match positions {
            None => self.proj.forward_add(&h, residual),
            Some(p) => self.proj.forward_add(&h, &gather_positions(residual, p)),
        }
    }
}

/// Keys and values of a text for one block: `[B, H, S, D / H]` each.
pub struct KeyValue {
    pub key: Tensor,
    pub value: Tensor,
}

/// Attention from the image tokens to the text features.
pub struct CrossAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    proj: Linear,
    heads: i64,
}

impl CrossAttention {
    pub fn new(p: &Params, config: &DenoiserConfig) -> Self {
        let (width, text) = (config.width, config.text_width);
        CrossAttention {
            query: Linear::new(&p.at("query"), width, width),
            key: Linear::new(&p.at("key"), text, width),
            value: Linear::new(&p.at("value"), text, width),
            proj: Linear::new(&p.at("proj"), width, width),
            heads: config.heads,
        }
    }

    /// Keys and values of `text` `[B, S, C]`, made once per prompt.
    pub fn condition(&self, text: &Tensor) -> KeyValue {
        KeyValue {
            key: split_heads(&self.key.forward(text), self.heads),
            value: split_heads(&self.value.forward(text), self.heads),
        }
    }

    /// Makes the layers ready for inference.
    pub fn prepare(&mut self) {
        self.query.fuse();
        self.proj.fuse();
    }

    /// residual + CA(x, text): `x` and `residual` `[B, N, D]` → `[B, N, D]`.
    pub fn forward(&self, x: &Tensor, residual: &Tensor, text: &KeyValue) -> Tensor {
        let q = split_heads(&self.query.forward(x), self.heads);
        let h = attend(&q, &text.key, &text.value);
        self.proj.forward_add(&h, residual)
    }
}
