//! Evaluations of a few positions on the keys and values that all others had before (ReCAP,
//! "cached features" of masked generation): a step reveals few tokens, and what the others say
//! in self-attention changes little by it.
//!
//! An approximation: positions outside the group neither see the tokens that were revealed
//! since nor the new time. With one block and no new time they would not either in a full
//! evaluation, and the two are equal. Needs everything but self-attention to treat positions
//! one by one
//! ([`DenoiserConfig::treats_tokens_alone`](super::DenoiserConfig::treats_tokens_alone)).

use std::ops::Range;

use tch::Tensor;

use super::attention::KeyValue;
use super::denoiser::{Condition, Denoiser};

/// The self-attention keys and values of every block at all positions: `[B, L, D]` of the
/// first, `[B or 2B, L, D]` of the others.
#[derive(Default)]
pub struct KeptKeys {
    pub(super) blocks: Vec<KeyValue>,
}

impl Denoiser {
    /// As [`forward`](Self::forward), with the keys and values for local evaluations.
    pub fn forward_keeping(
        &self,
        x_t: &Tensor,
        t: &Tensor,
        condition: &Condition,
        positions: Option<&Tensor>,
    ) -> (Tensor, KeptKeys) {
        let mut kept = KeptKeys::default();
        let keep = Some(&mut kept.blocks);
        let logits = self.pass(x_t, t, condition, positions, keep, |_| ());
        (logits, kept)
    }

    /// Unnormalised log p_θ(x̂_0 | x_t, t, y) at the columns `wanted` (A of them) of the
    /// `group` of positions int64 `[B, G]`, evaluated there alone: f32 `[rows of condition,
    /// A, K]`. All others have the keys and values that were `kept` by an evaluation with as
    /// many rows; those of the group are renewed.
    pub fn forward_local(
        &self,
        x_t: &Tensor,
        t: &Tensor,
        condition: &Condition,
        group: &Tensor,
        wanted: Range<i64>,
        kept: &mut KeptKeys,
    ) -> Tensor {
        let branches = condition.rows() / x_t.size()[0];
        let all = 0..group.size()[1];
        let last = self.blocks.len().saturating_sub(1);
        let mut t = t.shallow_clone();
        let mut x = self.content_emb.forward_at(x_t, group); // [B, G, D]
        let blocks = self.blocks.iter().zip(&condition.blocks);
        for (i, ((block, y), kept)) in blocks.zip(&mut kept.blocks).enumerate() {
            let at = if i == last { &wanted } else { &all };
            x = block.local_self_attention(&x, &t, group, at, kept); // [B or 2B, G or A, D]
            if i == 0 && branches > 1 {
                x = x.repeat([branches, 1, 1]);
                if t.size()[0] > 1 {
                    t = t.repeat([branches]);
                }
            }
            x = block.condition_and_feed_forward(&x, &t, y, None);
        }
        self.logits(&x)
    }
}
