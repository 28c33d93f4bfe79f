//! Multi-head attention: bidirectional over image tokens, and from image tokens
//! to all text positions. No mask of any kind is applied, as in the original.

use tch::{Kind, Tensor};

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

/// `[B, L, 3D]` → `[B, L, D]` three times.
fn thirds(joined: &Tensor) -> [Tensor; 3] {
    let parts = joined.chunk(3, 2);
    [0, 1, 2].map(|i| parts[i].shallow_clone())
}

/// Self-attention over the image tokens.
pub struct SelfAttention {
    projections: Projections,
    proj: Linear,
    heads: i64,
}

enum Projections {
    /// Query, key and value, D → D each.
    Separate([Linear; 3]),
    /// The three side by side, D → 3D: inference at all positions.
    Joined(Linear),
}

impl SelfAttention {
    pub fn new(p: &Params, config: &DenoiserConfig) -> Self {
        let width = config.width;
        let linear = |name: &str| Linear::new(&p.at(name), width, width);
        SelfAttention {
            projections: Projections::Separate(["query", "key", "value"].map(linear)),
            proj: linear("proj"),
            heads: config.heads,
        }
    }

    /// Makes the layers ready for inference; `at_all` says whether
    /// [`forward`](Self::forward) will only be asked about all positions.
    pub fn prepare(&mut self, at_all: bool) {
        if let Projections::Separate(layers) = &mut self.projections {
            if at_all {
                let mut joined = Linear::joined(&layers.each_ref());
                joined.pack();
                self.projections = Projections::Joined(joined);
            } else {
                layers.iter_mut().for_each(Linear::pack);
            }
        }
        self.proj.pack();
    }

    /// residual + SA(x) at `positions` `[B, A]` (all L when `None`): `x` and
    /// `residual` `[B, L, D]` → `[B, A, D]`.
    pub fn forward(&self, x: &Tensor, residual: &Tensor, positions: Option<&Tensor>) -> Tensor {
        let at = |x: &Tensor| match positions {
            Some(positions) => gather_positions(x, positions),
            None => x.shallow_clone(),
        };
        let [q, k, v] = match &self.projections {
            Projections::Separate(layers) if positions.is_none() && !layers[0].is_packed() => {
                thirds(&Linear::joined(&layers.each_ref()).forward(x))
            }
            Projections::Separate([query, key, value]) => {
                [query.forward(&at(x)), key.forward(x), value.forward(x)]
            }
            Projections::Joined(joined) => {
                let [q, k, v] = thirds(&joined.forward(x));
                [at(&q), k, v]
            }
        };
        let h = attend(
            &split_heads(&q, self.heads),
            &split_heads(&k, self.heads),
            &split_heads(&v, self.heads),
        );
        self.proj.forward_add(&h, &at(residual))
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
    /// `text` is the width C of the text features.
    pub fn new(p: &Params, config: &DenoiserConfig, text: i64) -> Self {
        let width = config.width;
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
        self.query.pack();
        self.proj.pack();
    }

    /// residual + CA(x, text): `x` and `residual` `[B, N, D]` → `[B, N, D]`.
    pub fn forward(&self, x: &Tensor, residual: &Tensor, text: &KeyValue) -> Tensor {
        let q = split_heads(&self.query.forward(x), self.heads);
        let h = attend(&q, &text.key, &text.value);
        self.proj.forward_add(&h, residual)
    }

    /// How much each image token attends to each text position, the mean over the
    /// heads: `x` `[B, N, D]` → f32 `[B, N, S]`, every row summing to 1.
    pub fn weights(&self, x: &Tensor, text: &KeyValue) -> Tensor {
        let q = split_heads(&self.query.forward(x), self.heads); // [B, H, N, d]
        let scale = (q.size()[3] as f64).sqrt();
        (q.matmul(&text.key.transpose(-2, -1)) / scale)
            .softmax(-1, Kind::Float)
            .mean_dim([1i64].as_slice(), false, Kind::Float)
    }
}
