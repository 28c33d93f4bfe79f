//! The denoiser, conditioned on text, a class or nothing (official
//! `Text2ImageTransformer`, `Condition2ImageTransformer`, `UnCondition2ImageTransformer`).

use tch::{Kind, Tensor};

use super::attention::KeyValue;
use super::block::{Block, BlockCondition};
use super::config::DenoiserConfig;
use super::dropout::Dropout;
use super::embedding::{gather_positions, ContentEmbedding};
use crate::torch::{norm, LayerNorm, Linear, Params};

/// What the network needs to know of the condition y, made once per sampling run. With
/// guidance its rows are twice those of the images, the null condition's at the end.
pub struct Condition {
    pub(super) blocks: Vec<BlockCondition>,
    rows: i64,
}

impl Condition {
    /// How many samples it is for, twice as many with the null condition's rows.
    pub fn rows(&self) -> i64 {
        self.rows
    }

    /// The same values at new places.
    pub fn copy(&self) -> Condition {
        Condition {
            blocks: self.blocks.iter().map(BlockCondition::copy).collect(),
            rows: self.rows,
        }
    }

    /// Takes the values of `other`, of the same network and number of rows, to where its own
    /// are.
    pub fn fill(&mut self, other: &Condition) {
        for (own, other) in self.blocks.iter_mut().zip(&other.blocks) {
            own.fill(other);
        }
    }

    /// Its first `rows` alone.
    pub fn first(&self, rows: i64) -> Condition {
        Condition {
            blocks: self.blocks.iter().map(|b| b.first(rows)).collect(),
            rows,
        }
    }
}

/// The network of `p_θ(x̂_0 | x_t, t, y)`.
pub struct Denoiser {
    pub(super) content_emb: ContentEmbedding,
    pub(super) blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear, // D → K
    config: DenoiserConfig,
    kind: Kind,
}

impl Denoiser {
    /// Builds the network from the weights below `p` (official prefix
    /// `transformer.transformer`).
    pub fn new(p: &Params, config: &DenoiserConfig) -> Self {
        let blocks = p.at("blocks");
        Denoiser {
            content_emb: ContentEmbedding::new(&p.at("content_emb"), config),
            blocks: (0..config.layers)
                .map(|i| Block::new(&blocks.at(i), config))
                .collect(),
            norm: LayerNorm::new(&p.at("to_logits.0"), config.width, norm::EPSILON),
            head: Linear::new(&p.at("to_logits.1"), config.width, config.codes),
            config: config.clone(),
            kind: p.kind(),
        }
    }

    pub fn config(&self) -> &DenoiserConfig {
        &self.config
    }

    /// Makes the network ready for inference: time modulation in tables, joined
    /// and packed weights. The function computed stays the same up to rounding;
    /// no gradient flows to the original weights afterwards.
    pub fn prepare(&mut self) {
        self.content_emb.tabulate();
        let last = self.blocks.len().saturating_sub(1);
        for (i, block) in self.blocks.iter_mut().enumerate() {
            block.prepare(i == last);
        }
        self.head.pack();
    }

    /// The condition `y`, one row a sample: text features `[B, S, C]` float, or classes
    /// int64 `[B]` from 0 to [`Conditioning::null_class`](super::Conditioning::null_class);
    /// of an unconditional network only the number of rows matters.
    pub fn condition(&self, y: &Tensor) -> Condition {
        let y = self.in_own_kind(y);
        Condition {
            blocks: self.blocks.iter().map(|b| b.condition(&y)).collect(),
            rows: y.size()[0],
        }
    }

    /// Features in the hidden state's kind; classes as they are.
    pub(super) fn in_own_kind(&self, y: &Tensor) -> Tensor {
        match y.is_floating_point() {
            true => y.to_kind(self.kind),
            false => y.shallow_clone(),
        }
    }

    /// Unnormalised log p_θ(x̂_0 | x_t, t, y).
    ///
    /// - `x_t` `[B, L]` int64 in 0…K, `t` int64 `[1]` or `[B]` in 0…T−1;
    /// - `condition` of B rows, or of 2B for guidance: the parts that do not
    ///   depend on it are then computed once;
    /// - `positions` `[B, A]` int64: where the prediction is wanted (all when `None`).
    ///
    /// Returns `[rows of condition, A, K]` in f32.
    pub fn forward(
        &self,
        x_t: &Tensor,
        t: &Tensor,
        condition: &Condition,
        positions: Option<&Tensor>,
    ) -> Tensor {
        self.forward_observed(x_t, t, condition, positions, |_| ())
    }

    /// As [`forward`](Self::forward), showing the hidden state `[·, ·, D]` after
    /// the embedding and after each block to `observe`.
    pub fn forward_observed(
        &self,
        x_t: &Tensor,
        t: &Tensor,
        condition: &Condition,
        positions: Option<&Tensor>,
        observe: impl FnMut(&Tensor),
    ) -> Tensor {
        self.pass(x_t, t, condition, positions, None, observe)
    }

    /// The forward pass; `keep` is given the keys and values of every block.
    pub(super) fn pass(
        &self,
        x_t: &Tensor,
        t: &Tensor,
        condition: &Condition,
        positions: Option<&Tensor>,
        mut keep: Option<&mut Vec<KeyValue>>,
        mut observe: impl FnMut(&Tensor),
    ) -> Tensor {
        let branches = condition.rows / x_t.size()[0];
        let mut wanted = positions;
        let mut t = t.shallow_clone();
        let mut x = self.content_emb.forward(x_t); // [B, L, D]
        observe(&x);
        for (i, (block, y)) in self.blocks.iter().zip(&condition.blocks).enumerate() {
            let is_last = i + 1 == self.blocks.len();
            // In the last block only keys and values are needed of the other positions.
            let at = wanted.take_if(|_| is_last && block.is_pointwise());
            x = block.self_attention(&x, &t, at, keep.as_deref_mut()); // [B or 2B, L or A, D]
            if i == 0 && branches > 1 {
                x = x.repeat([branches, 1, 1]);
                if t.size()[0] > 1 {
                    t = t.repeat([branches]);
                }
            }
            x = block.condition_and_feed_forward(&x, &t, y, None);
            observe(&x);
        }
        if let Some(positions) = wanted {
            x = gather_positions(&x, positions);
        }
        self.logits(&x) // [B or 2B, A, K]
    }

    /// As [`forward`](Self::forward) at all positions for a `condition` of B rows, in training:
    /// with the values of `dropout` dropped.
    pub fn forward_training(
        &self,
        x_t: &Tensor,
        t: &Tensor,
        condition: &Condition,
        dropout: Option<&Dropout>,
    ) -> Tensor {
        let mut x = self.content_emb.forward(x_t); // [B, L, D]
        for (i, (block, y)) in self.blocks.iter().zip(&condition.blocks).enumerate() {
            let dropout = dropout.map(|d| d.layer(i));
            x = block.training_self_attention(&x, t, dropout);
            x = block.condition_and_feed_forward(&x, t, y, dropout);
        }
        self.logits(&x) // [B, L, K]
    }

    /// Logits f32 `[·, A, K]` of what the last block gives, `[·, A, D]`.
    pub(super) fn logits(&self, x: &Tensor) -> Tensor {
        let logits = self.head.forward(&self.norm.forward(x));
        logits.to_kind(Kind::Float)
    }

    /// How much each image token attends to each text position, in every block, the
    /// mean over its heads: `x_t` `[B, L]` and `t` as for [`forward`](Self::forward),
    /// `condition` of B rows → f32 `[blocks, B, L, S]`; none if the network reads no
    /// text. A pass of its own: [`forward`](Self::forward) never has these weights.
    pub fn text_attention(
        &self,
        x_t: &Tensor,
        t: &Tensor,
        condition: &Condition,
    ) -> Option<Tensor> {
        let mut x = self.content_emb.forward(x_t); // [B, L, D]
        let mut maps = Vec::with_capacity(self.blocks.len());
        for (block, y) in self.blocks.iter().zip(&condition.blocks) {
            x = block.self_attention(&x, t, None, None);
            maps.push(block.text_attention(&x, t, y)?); // [B, L, S]
            x = block.condition_and_feed_forward(&x, t, y, None);
        }
        Some(Tensor::stack(&maps, 0))
    }
}
