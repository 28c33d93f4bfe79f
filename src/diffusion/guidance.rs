//! What the network says of x̂_0, and classifier-free guidance on it (arXiv 2205.16007,
//! section 3.1).

use tch::{Kind, Tensor};

/// What the network says of x̂_0: unnormalised log-probabilities `[B, A, K]`.
pub struct Prediction {
    pub conditional: Tensor,
    /// Of the null text; present where guidance is on.
    pub unconditional: Option<Tensor>,
}

impl Prediction {
    /// Unnormalised log p(x̂_0 | ∅) + w (log p(x̂_0 | y) − log p(x̂_0 | ∅)), `[B, A, K]`;
    /// the scale w is s + 1 of the paper.
    ///
    /// Works on raw logits: the two normalisers are constants of a position and
    /// vanish in the softmax that follows.
    pub fn guided(&self, scale: f64) -> Tensor {
        match &self.unconditional {
            Some(null) => null.lerp(&self.conditional, scale),
            None => self.conditional.shallow_clone(),
        }
    }
}

/// Entropy in nats of `p` f32 `[B, A, N]`, whose rows need not sum to 1: f32 `[B, A]`.
pub fn entropy(p: &Tensor) -> Tensor {
    let p = p / p.sum_dim_intlist(-1, true, Kind::Float);
    -p.xlogy(&p).sum_dim_intlist(-1, false, Kind::Float)
}
