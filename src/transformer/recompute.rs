//! Activation checkpointing: a forward pass that keeps the inputs of the blocks alone, and
//! a backward pass that evaluates each block once more (Chen et al., arXiv 1604.06174).

use tch::{Kind, Tensor};

use super::denoiser::Denoiser;
use super::dropout::Dropout;

/// A forward pass whose backward pass stops before the blocks.
pub struct SparingPass {
    /// Unnormalised log p_θ(x̂_0 | x_t, t, y), f32 `[B, L, K]`.
    pub logits: Tensor,
    /// The input of each block, without a graph, and the output of the last, whose
    /// gradient comes from `logits`: `[B, L, D]` each.
    inputs: Vec<Tensor>,
}

impl Denoiser {
    /// As [`forward`](Self::forward) at all positions, for `x_t` `[B, L]`, `t` `[B]` and a
    /// condition `y` of B rows as [`condition`](Self::condition) takes it. After the
    /// backward pass of the loss, [`backward_through_blocks`](Self::backward_through_blocks)
    /// makes the rest of it.
    pub fn forward_sparing(
        &self,
        x_t: &Tensor,
        t: &Tensor,
        y: &Tensor,
        dropout: Option<&Dropout>,
    ) -> SparingPass {
        let inputs = tch::no_grad(|| {
            let mut inputs = vec![self.content_emb.forward(x_t)]; // [B, L, D]
            for layer in 0..self.blocks.len() {
                let next = self.evaluate(layer, &inputs[inputs.len() - 1], t, y, dropout);
                inputs.push(next);
            }
            inputs
        });
        let last = inputs[inputs.len() - 1].set_requires_grad(true);
        SparingPass {
            logits: self.logits(&last),
            inputs,
        }
    }

    /// Adds the gradients of the blocks, the embedding and what `y` comes from, after a
    /// backward pass from the `logits` of `pass`, which [`forward_sparing`] made of the
    /// same arguments.
    ///
    /// [`forward_sparing`]: Self::forward_sparing
    pub fn backward_through_blocks(
        &self,
        pass: SparingPass,
        x_t: &Tensor,
        t: &Tensor,
        y: &Tensor,
        dropout: Option<&Dropout>,
    ) {
        let mut inputs = pass.inputs;
        let mut gradient = inputs.pop().map(|last| last.grad()); // [B, L, D]
        let leaf = y.detach().set_requires_grad(y.requires_grad());
        for layer in (0..self.blocks.len()).rev() {
            let (Some(x), Some(arriving)) = (inputs.pop(), gradient) else {
                unreachable!("a pass of another network");
            };
            let x = x.set_requires_grad(true);
            send_back(&self.evaluate(layer, &x, t, &leaf, dropout), &arriving);
            gradient = Some(x.grad());
        }
        if let Some(arriving) = gradient {
            send_back(&self.content_emb.forward(x_t), &arriving);
        }
        if y.requires_grad() {
            send_back(y, &leaf.grad());
        }
    }

    fn evaluate(
        &self,
        layer: usize,
        x: &Tensor,
        t: &Tensor,
        y: &Tensor,
        dropout: Option<&Dropout>,
    ) -> Tensor {
        let block = &self.blocks[layer];
        let y = block.condition(&self.in_own_kind(y));
        let dropout = dropout.map(|d| d.layer(layer));
        let x = block.training_self_attention(x, t, dropout);
        block.condition_and_feed_forward(&x, t, &y, dropout)
    }
}

/// The backward pass from `output`, whose gradient is `arriving`.
fn send_back(output: &Tensor, arriving: &Tensor) {
    (output * arriving).sum(Kind::Float).backward();
}
