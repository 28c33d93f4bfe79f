//! Multi-head attention: bidirectional over image tokens, and from image tokens
//! to all text positions. No mask of any kind is applied, as in the original.

use std::ops::Range;

use tch::Tensor;

use super::config::DenoiserConfig;
use super::dropout::{LayerDropout, Place};
use super::embedding::{gather_positions, positions_index};
use crate::torch::attention::{attend, attend_joined, attend_weighing, mean_weights, thirds, Mask};
use crate::torch::{Linear, Params};

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
    /// `residual` `[B, L, D]` → `[B, A, D]`. `keep` is given the keys and values.
    pub fn forward(
        &self,
        x: &Tensor,
        residual: &Tensor,
        positions: Option<&Tensor>,
        mut keep: Option<&mut Vec<KeyValue>>,
    ) -> Tensor {
        let mut keep = |key: &Tensor, value: &Tensor| {
            if let Some(kept) = &mut keep {
                kept.push(KeyValue {
                    key: key.shallow_clone(),
                    value: value.shallow_clone(),
                });
            }
        };
        let at = |x: &Tensor| match positions {
            Some(positions) => gather_positions(x, positions),
            None => x.shallow_clone(),
        };
        let h = match (&self.projections, positions) {
            (Projections::Joined(joined), None) => {
                let qkv = joined.forward(x);
                let [_, k, v] = thirds(&qkv);
                keep(&k, &v);
                self.attend_joined(&qkv)
            }
            (Projections::Joined(joined), Some(_)) => {
                let [q, k, v] = thirds(&joined.forward(x));
                keep(&k, &v);
                self.attend(&at(&q), &k, &v)
            }
            (Projections::Separate(layers), None) if !layers[0].is_packed() => {
                let qkv = Linear::joined(&layers.each_ref()).forward(x);
                let [_, k, v] = thirds(&qkv);
                keep(&k, &v);
                self.attend_joined(&qkv)
            }
            (Projections::Separate([query, key, value]), _) => {
                let (k, v) = (key.forward(x), value.forward(x));
                keep(&k, &v);
                self.attend(&query.forward(&at(x)), &k, &v)
            }
        };
        self.proj.forward_add(&h, &at(residual))
    }

    /// As [`forward`](Self::forward) at a group of G positions, whose places among all L are
    /// `group` int64 `[B, G]`: `x` and `residual` `[B, G, D]` → `[B, A, D]` for the A columns
    /// `wanted` of the group. All other positions have the `kept` keys and values, in which
    /// the group's own are renewed.
    pub fn forward_local(
        &self,
        x: &Tensor,
        residual: &Tensor,
        group: &Tensor,
        wanted: &Range<i64>,
        kept: &mut KeyValue,
    ) -> Tensor {
        let at = |x: &Tensor| x.narrow(1, wanted.start, wanted.end - wanted.start);
        let [q, k, v] = match &self.projections {
            Projections::Joined(joined) => {
                let [q, k, v] = thirds(&joined.forward(x));
                [at(&q), k, v]
            }
            Projections::Separate([query, key, value]) => {
                [query.forward(&at(x)), key.forward(x), value.forward(x)]
            }
        };
        let index = positions_index(group, &k);
        let _ = kept.key.scatter_(1, &index, &k);
        let _ = kept.value.scatter_(1, &index, &v);
        self.proj
            .forward_add(&self.attend(&q, &kept.key, &kept.value), &at(residual))
    }

    /// As [`forward`](Self::forward) at all positions, in training.
    pub fn forward_dropping(&self, x: &Tensor, residual: &Tensor, dropout: LayerDropout) -> Tensor {
        let Projections::Separate(layers) = &self.projections else {
            unreachable!("dropout after preparation for inference");
        };
        let qkv = Linear::joined(&layers.each_ref()).forward(x);
        let h = match dropout.drops_weights() {
            true => attend_weighing(thirds(&qkv).each_ref(), self.heads, |weights| {
                dropout.weights(weights, Place::SelfWeights)
            }),
            false => self.attend_joined(&qkv),
        };
        dropout.add(&self.proj.forward(&h), residual, Place::SelfOutput)
    }

    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        attend(q, k, v, self.heads, Mask::Nothing)
    }

    fn attend_joined(&self, qkv: &Tensor) -> Tensor {
        attend_joined(qkv, self.heads, Mask::Nothing)
    }
}

/// Keys and values for one block, of a text `[B, S, D]` or of the image tokens `[B, L, D]`.
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
            key: self.key.forward(text),
            value: self.value.forward(text),
        }
    }

    /// Makes the layers ready for inference.
    pub fn prepare(&mut self) {
        self.query.pack();
        self.proj.pack();
    }

    /// residual + CA(x, text): `x` and `residual` `[B, N, D]` → `[B, N, D]`. In training with
    /// `dropout`.
    pub fn forward(
        &self,
        x: &Tensor,
        residual: &Tensor,
        text: &KeyValue,
        dropout: Option<LayerDropout>,
    ) -> Tensor {
        let q = self.query.forward(x);
        let h = match dropout.filter(LayerDropout::drops_weights) {
            Some(dropout) => attend_weighing([&q, &text.key, &text.value], self.heads, |weights| {
                dropout.weights(weights, Place::TextWeights)
            }),
            None => attend(&q, &text.key, &text.value, self.heads, Mask::Nothing),
        };
        match dropout {
            Some(dropout) => dropout.add(&self.proj.forward(&h), residual, Place::TextOutput),
            None => self.proj.forward_add(&h, residual),
        }
    }

    /// How much each image token attends to each text position, the mean over the
    /// heads: `x` `[B, N, D]` → f32 `[B, N, S]`, every row summing to 1.
    pub fn weights(&self, x: &Tensor, text: &KeyValue) -> Tensor {
        mean_weights(&self.query.forward(x), &text.key, self.heads)
    }
}
