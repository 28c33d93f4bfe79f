//! Entropy-constrained quantization (Chou, Lookabaugh and Gray, 1989) in a layout that only
//! knows the nearest entry.
//!
//! A vector z is to take the code k of least ‖z − e_k‖² + λ r_k with r_k = −ln p_k, p_k being
//! how often the code is used: a rare code has to be nearer by what naming it costs. Then
//! vectors that tell little, such as plain background, share a code, and a text has
//! less to decide. The last of the E latent channels holds the price. It is 0 in every z and
//! √(λ (r_k − min r)) in the entries, so that the nearest entry is that code. λ follows the
//! entropy of each step's codes instead of being given: latents have no scale of their own.

use tch::{Kind, Tensor};

use super::codebook::{CodeStatistics, EmaCodebook};

/// A code counts as used at least this share of the mean.
const LEAST_USE: f64 = 1e-3;
/// λ is at least this share of the mean squared error.
const LEAST_WEIGHT: f64 = 1e-3;
/// Relative change of λ per step and nat.
const GAIN: f64 = 0.05;

impl EmaCodebook {
    /// r_k − min r, `[N]` in nats.
    fn rates(&self) -> Tensor {
        let least = self.cluster_size.mean(Kind::Float) * LEAST_USE;
        let rates = (&self.cluster_size + least).log().neg();
        &rates - rates.min()
    }

    /// The channel with the prices, `[N]`: a view.
    fn price_channel(&self) -> Tensor {
        self.embedding.select(1, self.embedding.size()[1] - 1)
    }

    /// λ of the present prices.
    pub fn price_weight(&self) -> f64 {
        let _no_grad = tch::no_grad_guard();
        let number = |x: Tensor| x.sum(Kind::Double).double_value(&[]);
        let rates = number(self.rates());
        if rates > 0.0 {
            number(self.price_channel().square()) / rates
        } else {
            0.0
        }
    }

    /// λ for the next step, higher where the codes that `statistics` counts have more than
    /// `most` nats of entropy, and lower where they have less. `error` is their mean
    /// ‖z − e‖², from which λ begins.
    pub fn next_price_weight(&self, error: f64, statistics: &CodeStatistics, most: f64) -> f64 {
        let _no_grad = tch::no_grad_guard();
        let share = &statistics.counts / statistics.counts.sum(Kind::Float); // [N]
        let entropy = -share.xlogy(&share).sum(Kind::Double).double_value(&[]);
        self.price_weight().max(LEAST_WEIGHT * error) * (GAIN * (entropy - most)).exp()
    }

    /// Writes the prices that `weight` λ and the running counts give.
    pub fn set_prices(&mut self, weight: f64) {
        let _no_grad = tch::no_grad_guard();
        self.price_channel().copy_(&(self.rates() * weight).sqrt());
    }
}
