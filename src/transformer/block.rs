//! One block of the text-conditioned denoiser: self-attention, cross-attention
//! and feed-forward part, each behind its norm and around a residual.

use tch::Tensor;

use super::attention::{CrossAttention, KeyValue, SelfAttention};
use super::config::DenoiserConfig;
use super::feed_forward::FeedForward;
use super::norm::{AdaptiveNorm, LayerNorm};
use crate::torch::Params;

pub struct Block {
    ln1: AdaptiveNorm,
    attn1: SelfAttention,
    ln1_1: AdaptiveNorm,
    attn2: CrossAttention,
    ln2: LayerNorm,
    mlp: FeedForward,
}

impl Block {
    pub fn new(p: &Params, config: &DenoiserConfig) -> Self {
        Block {
            ln1: AdaptiveNorm::new(&p.at("ln1"), config),
            attn1: SelfAttention::new(&p.at("attn1"), config),
            ln1_1: AdaptiveNorm::new(&p.at("ln1_1"), config),
            attn2: CrossAttention::new(&p.at("attn2"), config),
            ln2: LayerNorm::new(&p.at("ln2"), config.width),
            mlp: FeedForward::new(&p.at("mlp"), config),
        }
    }

    /// Tabulates the time modulation and packs the weights for inference. Only the
    /// last block of a network is asked about some positions.
    pub fn prepare(&mut self, is_last: bool) {
        let at_all = !(is_last && self.is_pointwise());
        self.ln1.tabulate();
        self.ln1_1.tabulate();
        self.attn1.prepare(at_all);
        self.attn2.prepare();
        self.mlp.prepare();
    }

    /// Whether everything after self-attention treats positions one by one.
    pub fn is_pointwise(&self) -> bool {
        self.mlp.is_pointwise()
    }

    /// The text's keys and values for this block.
    pub fn condition(&self, text: &Tensor) -> KeyValue {
        self.attn2.condition(text)
    }

    /// x + SA(AdaLN(x, t)) at `positions` int64 `[B, A]` (all L when `None`):
    /// `x` `[B, L, D]` → `[B, A, D]`.
    pub fn self_attention(&self, x: &Tensor, t: &Tensor, positions: Option<&Tensor>) -> Tensor {
        self.attn1.forward(&self.ln1.forward(x, t), x, positions)
    }

    /// x + CA(AdaLN(x, t), text), then x + MLP(LN(x)): `[B, A, D]` → `[B, A, D]`.
    pub fn text_and_feed_forward(&self, x: &Tensor, t: &Tensor, text: &KeyValue) -> Tensor {
        let x = self.attn2.forward(&self.ln1_1.forward(x, t), x, text);
        self.mlp.forward(&self.ln2.forward(&x), &x)
    }
}
