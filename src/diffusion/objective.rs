//! The training objective: variational bound and auxiliary loss
//! (arXiv 2111.14822 section 4.1, eqs. 6, 7 and 9; official `_train_loss`).
//!
//! The posterior q(x_{t−1} | x_t, x_0) takes the same value for all codes but x_0 and
//! x_t, so the KL divergence needs one pass over the K log-probabilities instead of
//! two posterior tensors `[B, L, K + 1]`:
//!
//! p_θ(x_{t−1} = j | x_t) = s_j (ā_{t−1} r_j + b̄_{t−1} Σ_k r_k) / ℓ, r_k = p̂_k ℓ / q(x_t | k),
//!
//! with s_j = q(x_t | x_{t−1} = j) and ℓ the value of q(x_t | x_0 = k) for k ≠ x_t.
//! The mask's share is the same in both posteriors and cancels.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::schedule::Schedule;

/// Stands for log 0 in predictions and posteriors, as in the original.
const LOG_ZERO: f64 = -70.0;
/// Below the smallest value that a posterior can take above [`LOG_ZERO`].
const TINY: f64 = 1e-37;

/// Weights of the terms; the defaults are those of the released text models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectiveConfig {
    /// λ, weight of the auxiliary loss (`auxiliary_loss_weight`): 5e-4 for text,
    /// 1e-3 for ImageNet and FFHQ.
    pub auxiliary_weight: f64,
    /// Multiply λ by 2 − t/T (`adaptive_auxiliary_loss`).
    pub adaptive_auxiliary: bool,
    /// Weights of masked and of visible positions (`mask_weight`).
    pub mask_weight: [f64; 2],
}

impl Default for ObjectiveConfig {
    fn default() -> Self {
        ObjectiveConfig {
            auxiliary_weight: 5e-4,
            adaptive_auxiliary: true,
            mask_weight: [1.0, 1.0],
        }
    }
}

/// Terms of the objective, one number per sample `[B]` in nats, summed over tokens.
pub struct Terms {
    /// KL(q(x_{t−1} | x_t, x_0) ‖ p_θ(x_{t−1} | x_t)), weighted by position.
    pub kl: Tensor,
    /// −log p_θ(x_{t−1} = x_0 | x_t).
    pub decoder_nll: Tensor,
    /// −log p̂(x_0), weighted by position.
    pub auxiliary_kl: Tensor,
    /// The bound's term of this time: `decoder_nll` at t = 0, else `kl`.
    pub main: Tensor,
    /// The auxiliary term: `decoder_nll` at t = 0, else `auxiliary_kl`.
    pub auxiliary: Tensor,
    /// (main + λ_t · auxiliary) / p_t: its mean over samples and tokens is the loss.
    pub total: Tensor,
}

/// One pair of times (t − 1, t) in scalars; `Masked` and visible positions differ in ℓ and s.
struct PairTable {
    /// `[T, 8]` f64, columns as in [`Column`].
    values: Tensor,
}

#[derive(Clone, Copy)]
enum Column {
    /// ā_{t−1}
    KeepBefore = 0,
    /// b̄_{t−1}
    UniformBefore = 1,
    /// s of a masked position: c_t
    MaskedStep = 2,
    /// ℓ of a masked position: c̄_t
    MaskedFromStart = 3,
    /// s of a visible position where j ≠ x_t: b_t
    OtherStep = 4,
    /// s of a visible position where j = x_t: a_t + b_t
    SameStep = 5,
    /// ℓ of a visible position: b̄_t
    OtherFromStart = 6,
    /// q(x_t | x_0 = x_t) = ā_t + b̄_t
    SameFromStart = 7,
}

impl PairTable {
    fn new(schedule: &Schedule, device: Device) -> Self {
        let (steps, codes) = (schedule.timesteps() as i64, schedule.codes() as f64);
        let values: Vec<f64> = (0..steps)
            .flat_map(|t| {
                let (now, then) = (schedule.at(t), schedule.at(t - 1));
                let a = now.keep / then.keep;
                let c = 1.0 - (1.0 - now.mask) / (1.0 - then.mask);
                let kb = (now.uniform - a * then.uniform) / (1.0 - then.mask);
                let (b, b_then, b_now) = (kb / codes, then.uniform / codes, now.uniform / codes);
                // Divisors of cases that never occur in this schedule.
                let or_one = |x: f64| if x > 0.0 { x } else { 1.0 };
                [
                    then.keep,
                    b_then,
                    c,
                    or_one(now.mask),
                    b,
                    a + b,
                    or_one(b_now),
                    now.keep + b_now,
                ]
            })
            .collect();
        PairTable {
            values: Tensor::from_slice(&values)
                .view([steps, 8])
                .to_device(device),
        }
    }
}

/// The objective for one noise schedule.
pub struct Objective {
    config: ObjectiveConfig,
    pairs: PairTable,
    codes: i64,
    timesteps: i64,
    /// Whether tokens are ever replaced by other codes.
    replaces: bool,
}

impl Objective {
    pub fn new(config: &ObjectiveConfig, schedule: &Schedule, device: Device) -> Self {
        let steps = schedule.timesteps() as i64;
        Objective {
            config: config.clone(),
            pairs: PairTable::new(schedule, device),
            codes: schedule.codes(),
            timesteps: steps,
            replaces: (0..steps).any(|t| schedule.at(t).uniform > 0.0),
        }
    }

    /// All terms, differentiable in `logits`.
    ///
    /// - `logits` `[B, L, K]` f32: the network's output for `x_t` `[B, L]` at `t` `[B]`;
    /// - `x_0` `[B, L]` int64 below K;
    /// - `p_t` `[B]`: the probability with which each time was drawn.
    pub fn terms(
        &self,
        logits: &Tensor,
        x_0: &Tensor,
        x_t: &Tensor,
        t: &Tensor,
        p_t: &Tensor,
    ) -> Terms {
        let (masked_weight, visible_weight) =
            (self.config.mask_weight[0], self.config.mask_weight[1]);
        let log_p = logits.log_softmax(-1, Kind::Float).clamp(LOG_ZERO, 0.0); // [B, L, K]
        let (kl, nll) = self.position_terms(&log_p, x_0, x_t, t); // [B, L] each
        let weight = x_t.eq(self.codes).to_kind(Kind::Float) * (masked_weight - visible_weight)
            + visible_weight; // [B, L]
        let at_x_0 = log_p.gather(-1, &x_0.unsqueeze(-1), false).squeeze_dim(-1);
        let per_sample = |x: Tensor| x.sum_dim_intlist([-1].as_slice(), false, Kind::Float);
        let kl = per_sample(kl * &weight);
        let auxiliary_kl = per_sample(at_x_0.neg() * &weight);
        let decoder_nll = per_sample(nll);

        let first = t.eq(0);
        let main = decoder_nll.where_self(&first, &kl);
        let auxiliary = decoder_nll.where_self(&first, &auxiliary_kl);
        let lambda = self.auxiliary_weight(t);
        let total = (&main + &auxiliary * lambda) / p_t;
        Terms {
            kl,
            decoder_nll,
            auxiliary_kl,
            main,
            auxiliary,
            total,
        }
    }

    /// λ_t `[B]`.
    fn auxiliary_weight(&self, t: &Tensor) -> Tensor {
        let t = t.to_kind(Kind::Float);
        let lambda = self.config.auxiliary_weight;
        if self.config.adaptive_auxiliary {
            (t / self.timesteps as f64).neg() * lambda + 2.0 * lambda
        } else {
            t.full_like(lambda)
        }
    }

    /// KL divergence and decoder term of every position, `[B, L]` each.
    fn position_terms(
        &self,
        log_p: &Tensor,
        x_0: &Tensor,
        x_t: &Tensor,
        t: &Tensor,
    ) -> (Tensor, Tensor) {
        let pairs = self.pairs.values.index_select(0, t); // [B, 8]
        let column = |c: Column| pairs.narrow(1, c as i64, 1); // [B, 1]
        let masked = x_t.eq(self.codes); // [B, L]
        let visible = masked.logical_not();
        let choose = |m: Column, v: Column| column(m).where_self(&masked, &column(v)); // [B, L] f64
        let step = choose(Column::MaskedStep, Column::OtherStep); // s_j, j ≠ x_t
        let from_start = choose(Column::MaskedFromStart, Column::OtherFromStart); // ℓ
        let (keep, uniform) = (column(Column::KeepBefore), column(Column::UniformBefore));
        let scale = (&step / &from_start).log(); // log s_j/ℓ
        let at =
            |x: &Tensor, index: &Tensor| x.gather(-1, &index.unsqueeze(-1), false).squeeze_dim(-1);

        if !self.replaces {
            // A visible token is the original one: both posteriors are certain of it.
            // A masked one becomes x_0 or stays.
            let chance = &keep * &step / &from_start; // [B, L]
            let surprise = at(log_p, x_0).neg(); // [B, L]
            let kl = (&surprise * &chance).masked_fill(&visible, 0.0);
            let nll = (surprise - chance.log()).masked_fill(&visible, 0.0);
            return (kl.to_kind(Kind::Float), nll.to_kind(Kind::Float));
        }

        // r_k: p̂_k, at k = x_t of visible positions times ρ = b̄_t / (ā_t + b̄_t).
        let seen = x_t.clamp_max(self.codes - 1); // a valid index at masked positions
        let ratio = (column(Column::OtherFromStart) / column(Column::SameFromStart)).log(); // [B, 1]
        let shift = ratio
            .expand_as(&step)
            .masked_fill(&masked, 0.0)
            .to_kind(Kind::Float)
            .unsqueeze(-1); // [B, L, 1]
        let r = log_p.scatter_add(-1, &seen.unsqueeze(-1), &shift).exp(); // [B, L, K]
        let total = r.sum_dim_intlist([-1].as_slice(), true, Kind::Float); // [B, L, 1]
        let as_f32 = |x: &Tensor| x.to_kind(Kind::Float).unsqueeze(-1);
        // log(ā_{t−1} r_j + b̄_{t−1} Σ r), without s_j / ℓ.
        let mix = (r * as_f32(&keep) + total * as_f32(&uniform))
            .clamp_min(TINY)
            .log(); // [B, L, K]
        let sum = mix.sum_dim_intlist([-1].as_slice(), false, Kind::Double); // [B, L]
        let (mix_x_0, mix_x_t) = (at(&mix, x_0), at(&mix, &seen));

        // The true posterior in three values: at a code that is neither, at x_0, at x_t.
        let same = visible.logical_and(&x_t.eq_tensor(x_0));
        let differs = visible.logical_and(&same.logical_not());
        let rho = ratio.exp(); // [B, 1]
        let r_x_0 = rho.where_self(&same, &rho.ones_like()); // [B, L], also Σ r
        let own_step = column(Column::SameStep).where_self(&visible, &step);
        let q_other = &step / &from_start * &uniform * &r_x_0;
        let step_x_0 = own_step.where_self(&same, &step);
        let q_x_0 = &step_x_0 / &from_start * &r_x_0 * (&keep + &uniform);
        let q_x_t = &own_step / &from_start * &uniform * &r_x_0;
        let scale_x_0 = (&step_x_0 / &from_start).log();
        let scale_x_t = (&own_step / &from_start).log();

        // Σ_j q_j (log q_j − log p_j); −70 bounds log p_j from below as in the original.
        let part = |q: &Tensor, log_p: Tensor| {
            q * (q.clamp_min(f64::MIN_POSITIVE).log() - log_p.clamp(LOG_ZERO, 0.0))
        };
        let post_x_0 = &mix_x_0 + &scale_x_0; // [B, L] f64
        let others = differs.to_kind(Kind::Double).neg() + (self.codes - 1) as f64;
        let sum_others = sum - &mix_x_0 - mix_x_t.masked_fill(&differs.logical_not(), 0.0);
        let log_q_other = q_other.clamp_min(f64::MIN_POSITIVE).log();
        let kl_others = &q_other * ((log_q_other - &scale) * others - sum_others);
        let kl_x_t = part(&q_x_t, mix_x_t + scale_x_t).masked_fill(&differs.logical_not(), 0.0);
        let kl = part(&q_x_0, post_x_0.shallow_clone()) + kl_x_t + kl_others;
        let nll = post_x_0.clamp(LOG_ZERO, 0.0).neg();
        (kl.to_kind(Kind::Float), nll.to_kind(Kind::Float))
    }
}
