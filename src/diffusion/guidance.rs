//! Classifier-free guidance on p(x̂_0) (arXiv 2205.16007, section 3.1).

use tch::Tensor;

/// What the network says of x̂_0: unnormalised log-probabilities `[B, A, K]`.
pub struct Prediction {
    pub conditional: Tensor,
    /// Of the null text; present when guidance is on.
    pub unconditional: Option<Tensor>,
}

impl Prediction {
    /// Unnormalised log p(x̂_0 | ∅) + w (log p(x̂_0 | y) − log p(x̂_0 | ∅)), `[B, A, K]`.
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
