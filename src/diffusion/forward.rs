//! The forward process: tokens to noisy tokens.

use tch::{Kind, Tensor};

use super::schedule::{Corruption, Schedule};

/// x_t ~ q(x_t | x_0) (arXiv 2111.14822 eq. 4 in the closed form of eq. 8): each token the mask with probability
/// c̄, itself with ā, else a uniform code. `x_0` int64 `[B, L]` below K, `uniform` f64
/// `[B, L]` in [0, 1), one number a token, on the device of `x_0`; `t` holds a time in
/// −1…T−1 for each image, or one for all (−1 changes nothing).
pub fn q_sample(schedule: &Schedule, x_0: &Tensor, t: &[i64], uniform: &Tensor) -> Tensor {
    let column = |f: &dyn Fn(Corruption) -> f64| {
        let values: Vec<f64> = t.iter().map(|&t| f(schedule.at(t))).collect();
        Tensor::from_slice(&values)
            .unsqueeze(1)
            .to_device(x_0.device()) // [B or 1, 1]
    };
    let codes = schedule.codes();
    let mask = column(&|now| now.mask);
    let known = column(&|now| now.mask + now.keep);
    // mask | x_0 | uniform code, in this order along the unit interval; the number's
    // place within the last part says which code.
    let place = (uniform - &known) / column(&|now| now.uniform.max(f64::MIN_POSITIVE));
    let code = (place * codes as f64)
        .clamp(0.0, (codes - 1) as f64)
        .to_kind(Kind::Int64);
    let visible = x_0.where_self(&uniform.lt_tensor(&known), &code);
    visible.masked_fill(&uniform.lt_tensor(&mask), codes)
}
