//! Truncation of p(x̂_0) to its likeliest codes.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Which codes may be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// Every code.
    Off,
    /// The smallest set of likeliest codes with at least this mass, in (0, 1]:
    /// a code stays iff the mass of the strictly likelier ones is below the rate.
    TopP(f64),
    /// This many likeliest codes.
    TopK(i64),
}

impl Truncation {
    /// Sets the probability of the other codes to 0: `p` `[…, K]`, each row
    /// summing to 1 → `[…, K]`, not renormalised.
    pub fn apply(self, p: &Tensor) -> Tensor {
        match self {
            Truncation::Off => p.shallow_clone(),
            Truncation::TopP(rate) if rate >= 1.0 => p.shallow_clone(),
            Truncation::TopP(rate) => {
                let (sorted, _) = p.sort(-1, true);
                let before = sorted.cumsum(-1, sorted.kind()) - &sorted; // mass of likelier codes
                let kept = before.lt(rate).sum_dim_intlist(-1, true, Kind::Int64) - 1;
                let least = sorted.gather(-1, &kept.clamp_min(0), false); // smallest kept
                p.where_self(&p.ge_tensor(&least), &p.zeros_like())
            }
            Truncation::TopK(k) => {
                let (likeliest, _) = p.topk(k.min(p.size()[p.dim() - 1]), -1, true, true);
                let least = likeliest.select(-1, -1).unsqueeze(-1);
                p.where_self(&p.ge_tensor(&least), &p.zeros_like())
            }
        }
    }
}
