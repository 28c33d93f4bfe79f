//! One block of the denoiser: self-attention, what it is conditioned on, and the
//! feed-forward part, each behind its norm and around a residual.

use std::ops::Range;

use tch::Tensor;

use super::attention::{CrossAttention, KeyValue, SelfAttention};
use super::config::{Conditioning, DenoiserConfig};
use super::dropout::LayerDropout;
use super::feed_forward::FeedForward;
use super::norm::{Affine, ClassNorm, TimeNorm};
use crate::torch::{norm, LayerNorm, Params};

pub struct Block {
    ln1: TimeNorm,
    self_attention: SelfAttention,
    conditioned: Conditioned,
    mlp: FeedForward,
    is_pointwise: bool,
}

/// The part between self-attention and feed-forward.
enum Conditioned {
    Text {
        ln1_1: TimeNorm,
        attn2: CrossAttention,
        ln2: LayerNorm,
    },
    Class {
        ln2: ClassNorm,
    },
    Nothing {
        ln2: LayerNorm,
    },
}

impl Conditioned {
    fn new(p: &Params, config: &DenoiserConfig) -> Self {
        let ln2 = p.at("ln2");
        match config.condition {
            Conditioning::Text { width, .. } => Conditioned::Text {
                ln1_1: TimeNorm::new(&p.at("ln1_1"), config),
                attn2: CrossAttention::new(&p.at("attn2"), config, width),
                ln2: LayerNorm::new(&ln2, config.width, norm::EPSILON),
            },
            Conditioning::Class {
                classes,
                null,
                embedding,
                norm,
            } => Conditioned::Class {
                ln2: ClassNorm::new(&ln2, config.width, classes, null, embedding, norm),
            },
            Conditioning::Unconditional => Conditioned::Nothing {
                ln2: LayerNorm::new(&ln2, config.width, norm::EPSILON),
            },
        }
    }
}

/// What a block needs to know of the condition, made once per sampling run.
pub enum BlockCondition {
    Text(KeyValue),
    Class(Affine),
    Nothing,
}

impl BlockCondition {
    /// The same values at new places.
    pub fn copy(&self) -> Self {
        match self {
            BlockCondition::Text(KeyValue { key, value }) => BlockCondition::Text(KeyValue {
                key: key.copy(),
                value: value.copy(),
            }),
            BlockCondition::Class(class) => BlockCondition::Class(class.copy()),
            BlockCondition::Nothing => BlockCondition::Nothing,
        }
    }

    /// Takes the values of `other`, of the same shapes, to where its own are.
    pub fn fill(&mut self, other: &Self) {
        match (self, other) {
            (BlockCondition::Text(own), BlockCondition::Text(other)) => {
                own.key.copy_(&other.key);
                own.value.copy_(&other.value);
            }
            (BlockCondition::Class(own), BlockCondition::Class(other)) => own.fill(other),
            (BlockCondition::Nothing, BlockCondition::Nothing) => {}
            _ => unreachable!("a condition made by another network"),
        }
    }

    /// Its first `rows` alone.
    pub fn first(&self, rows: i64) -> Self {
        let first = |x: &Tensor| x.narrow(0, 0, rows);
        match self {
            BlockCondition::Text(KeyValue { key, value }) => BlockCondition::Text(KeyValue {
                key: first(key),
                value: first(value),
            }),
            BlockCondition::Class(class) => BlockCondition::Class(class.first(rows)),
            BlockCondition::Nothing => BlockCondition::Nothing,
        }
    }
}

impl Block {
    pub fn new(p: &Params, config: &DenoiserConfig) -> Self {
        let attention = match config.condition {
            Conditioning::Text { .. } => "attn1",
            _ => "attn",
        };
        Block {
            ln1: TimeNorm::new(&p.at("ln1"), config),
            self_attention: SelfAttention::new(&p.at(attention), config),
            conditioned: Conditioned::new(p, config),
            mlp: FeedForward::new(&p.at("mlp"), config),
            is_pointwise: config.is_pointwise(),
        }
    }

    /// Tabulates the time modulation and packs the weights for inference. Only the
    /// last block of a network is asked about some positions.
    pub fn prepare(&mut self, is_last: bool) {
        let at_all = !(is_last && self.is_pointwise());
        self.ln1.tabulate();
        self.self_attention.prepare(at_all);
        if let Conditioned::Text { ln1_1, attn2, .. } = &mut self.conditioned {
            ln1_1.tabulate();
            attn2.prepare();
        }
        self.mlp.prepare();
    }

    /// Whether everything after self-attention treats positions one by one.
    pub fn is_pointwise(&self) -> bool {
        self.is_pointwise
    }

    /// What this block needs of `y`: text features `[B, S, C]` or classes int64 `[B]`.
    pub fn condition(&self, y: &Tensor) -> BlockCondition {
        match &self.conditioned {
            Conditioned::Text { attn2, .. } => BlockCondition::Text(attn2.condition(y)),
            Conditioned::Class { ln2 } => BlockCondition::Class(ln2.condition(y)),
            Conditioned::Nothing { .. } => BlockCondition::Nothing,
        }
    }

    /// x + SA(AdaLN(x, t)) at `positions` int64 `[B, A]` (all L when `None`):
    /// `x` `[B, L, D]` → `[B, A, D]`. `keep` is given the keys and values.
    pub fn self_attention(
        &self,
        x: &Tensor,
        t: &Tensor,
        positions: Option<&Tensor>,
        keep: Option<&mut Vec<KeyValue>>,
    ) -> Tensor {
        let normed = self.ln1.forward(x, t);
        self.self_attention.forward(&normed, x, positions, keep)
    }

    /// As [`self_attention`](Self::self_attention) at all positions, in training.
    pub fn training_self_attention(
        &self,
        x: &Tensor,
        t: &Tensor,
        dropout: Option<LayerDropout>,
    ) -> Tensor {
        let Some(dropout) = dropout else {
            return self.self_attention(x, t, None, None);
        };
        let normed = self.ln1.forward(x, t);
        self.self_attention.forward_dropping(&normed, x, dropout)
    }

    /// As [`self_attention`](Self::self_attention) of a group of positions alone
    /// ([`SelfAttention::forward_local`]): `x` `[B, G, D]` → `[B, A, D]`.
    pub fn local_self_attention(
        &self,
        x: &Tensor,
        t: &Tensor,
        group: &Tensor,
        wanted: &Range<i64>,
        kept: &mut KeyValue,
    ) -> Tensor {
        let normed = self.ln1.forward(x, t);
        self.self_attention
            .forward_local(&normed, x, group, wanted, kept)
    }

    /// How much each image token attends to each text position between self-attention
    /// and feed-forward part ([`CrossAttention::weights`]): `x` `[B, L, D]` →
    /// `[B, L, S]`; none if the network reads no text.
    pub fn text_attention(&self, x: &Tensor, t: &Tensor, y: &BlockCondition) -> Option<Tensor> {
        match (&self.conditioned, y) {
            (Conditioned::Text { ln1_1, attn2, .. }, BlockCondition::Text(text)) => {
                Some(attn2.weights(&ln1_1.forward(x, t), text))
            }
            _ => None,
        }
    }

    /// The rest of the block: `[B, A, D]` → `[B, A, D]`. In training with `dropout`.
    ///
    /// - text: x + CA(AdaLN(x, t), y), then x + MLP(LN(x));
    /// - class: x + MLP(AdaLN(x, y));
    /// - nothing: x + MLP(LN(x)).
    pub fn condition_and_feed_forward(
        &self,
        x: &Tensor,
        t: &Tensor,
        y: &BlockCondition,
        dropout: Option<LayerDropout>,
    ) -> Tensor {
        match (&self.conditioned, y) {
            (Conditioned::Text { ln1_1, attn2, ln2 }, BlockCondition::Text(text)) => {
                let x = attn2.forward(&ln1_1.forward(x, t), x, text, dropout);
                self.mlp.forward(&ln2.forward(&x), &x, dropout)
            }
            (Conditioned::Class { .. }, BlockCondition::Class(class)) => {
                self.mlp.forward(&class.apply(x), x, dropout)
            }
            (Conditioned::Nothing { ln2 }, BlockCondition::Nothing) => {
                self.mlp.forward(&ln2.forward(x), x, dropout)
            }
            _ => unreachable!("a condition made by another network"),
        }
    }
}
