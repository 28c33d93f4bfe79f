//! The training objective (arXiv 2111.14822 section 4; official `_train_loss`):
//!
//! - eq. 9: L_{t−1} = KL(q(x_{t−1} | x_t, x_0) ‖ p_θ(x_{t−1} | x_t, y)) for t ≥ 1, and
//!   L_0 = −log p_θ(x_0 | x_1, y), with p_θ(x_{t−1} | x_t, y) of eq. 11;
//! - eq. 12: the auxiliary −log p_θ(x̂_0 = x_0 | x_t, y).
//!
//! Both posteriors hold few different values. The true one takes the same at every code
//! but x_0 and x_t, and the model's is, in the code j = x_{t−1},
//!
//! p_j = s_j/ℓ · (ā_{t−1} r_j + b̄_{t−1} Σ_k r_k), r_k = p̂_k ℓ / q(x_t | x_0 = k),
//!
//! with s_j = q(x_t | x_{t−1} = j) and ℓ the value of q(x_t | x_0 = k) for k ≠ x_t, so that
//! r_k is p̂_k but for one k. The mask's share is the same in both and cancels. So
//! Σ_j q_j (log q_j − log p_j) needs one pass over the K log-probabilities instead of two
//! posterior tensors `[B, L, K + 1]`.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::schedule::Schedule;
use super::LOG_ZERO;

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
        let per_sample = |x: Tensor| x.sum_dim_intlist([-1].as_slice(), false, Kind::Float);
        let kl = per_sample(kl * &weight);
        let auxiliary_kl = per_sample(at(&log_p, x_0).neg() * &weight);
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

    /// L_{t−1} and L_0 of eq. 9 for every position, `[B, L]` each.
    fn position_terms(
        &self,
        log_p: &Tensor,
        x_0: &Tensor,
        x_t: &Tensor,
        t: &Tensor,
    ) -> (Tensor, Tensor) {
        let position = Position::new(&self.pairs, self.codes, x_0, x_t, t);
        if !self.replaces {
            return position.terms_without_replacement(log_p);
        }
        let q = position.true_posterior();
        let log_p = position.log_model_posterior(log_p);
        // The codes that are neither x_0 nor x_t, which are one code if they agree.
        let Position { differs, .. } = &position;
        let others = differs.to_kind(Kind::Double).neg() + (self.codes - 1) as f64;

        // Σ_j q_j (log q_j − log p_j); −70 bounds log p_j from below as in the original.
        let part = |q: &Tensor, log_p: &Tensor| q * (log(q) - log_p.clamp(LOG_ZERO, 0.0));
        let at_x_t = part(&q.x_t, &log_p.x_t).masked_fill(&differs.logical_not(), 0.0);
        let at_others =
            &q.other * ((log(&q.other) - &position.ratio.other.log()) * others - log_p.other);
        let kl = part(&q.x_0, &log_p.x_0) + at_x_t + at_others;
        let nll = log_p.x_0.clamp(LOG_ZERO, 0.0).neg();
        (kl.to_kind(Kind::Float), nll.to_kind(Kind::Float))
    }
}

/// log q, finite where q is 0.
fn log(q: &Tensor) -> Tensor {
    q.clamp_min(f64::MIN_POSITIVE).log()
}

/// One number for each kind of code j that x_{t−1} can be: `[B, L]` each.
struct ByCode {
    x_0: Tensor,
    /// Where it is not x_0.
    x_t: Tensor,
    other: Tensor,
}

/// What the posteriors at every position are made of.
struct Position<'a> {
    x_0: &'a Tensor,
    /// x_t, or some code where it is the mask.
    seen: Tensor,
    masked: Tensor,
    visible: Tensor,
    /// x_t is a code, and x_0; a code, and not x_0.
    same: Tensor,
    differs: Tensor,
    /// ā_{t−1} and b̄_{t−1}, f64 `[B, 1]`.
    keep: Tensor,
    uniform: Tensor,
    /// b̄_t / (ā_t + b̄_t): ℓ against q(x_t | x_0 = x_t), f64 `[B, 1]`.
    rho: Tensor,
    log_rho: Tensor,
    /// ℓ, and s_j where j is neither x_0 nor x_t, f64 `[B, L]`.
    from_start: Tensor,
    step: Tensor,
    /// s_j / ℓ.
    ratio: ByCode,
}

impl<'a> Position<'a> {
    fn new(pairs: &PairTable, codes: i64, x_0: &'a Tensor, x_t: &Tensor, t: &Tensor) -> Self {
        let pairs = pairs.values.index_select(0, t); // [B, 8]
        let column = |c: Column| pairs.narrow(1, c as i64, 1); // [B, 1]
        let masked = x_t.eq(codes); // [B, L]
        let visible = masked.logical_not();
        let same = visible.logical_and(&x_t.eq_tensor(x_0));
        let differs = visible.logical_and(&same.logical_not());

        let choose = |m: Column, v: Column| column(m).where_self(&masked, &column(v)); // [B, L]
        let from_start = choose(Column::MaskedFromStart, Column::OtherFromStart);
        let step = choose(Column::MaskedStep, Column::OtherStep);
        let step_x_t = column(Column::SameStep).where_self(&visible, &step);
        let step_x_0 = step_x_t.where_self(&same, &step);
        let log_rho = (column(Column::OtherFromStart) / column(Column::SameFromStart)).log();
        Position {
            x_0,
            seen: x_t.clamp_max(codes - 1),
            visible,
            differs,
            keep: column(Column::KeepBefore),
            uniform: column(Column::UniformBefore),
            rho: log_rho.exp(),
            log_rho,
            ratio: ByCode {
                x_0: &step_x_0 / &from_start,
                x_t: &step_x_t / &from_start,
                other: &step / &from_start,
            },
            masked,
            same,
            from_start,
            step,
        }
    }

    /// q(x_{t−1} | x_t, x_0) at each kind of code (eq. 5).
    fn true_posterior(&self) -> ByCode {
        let Position {
            ratio,
            keep,
            uniform,
            ..
        } = self;
        // r at x_0, which is also Σ r.
        let r = self.rho.where_self(&self.same, &self.rho.ones_like()); // [B, L]
        ByCode {
            x_0: &ratio.x_0 * &r * (keep + uniform),
            x_t: &ratio.x_t * uniform * &r,
            other: &ratio.other * uniform * &r,
        }
    }

    /// log p_θ(x_{t−1} | x_t, y) (eq. 11) at x_0 and x_t; for the other codes their sum,
    /// without s_j / ℓ. `log_p` `[B, L, K]` is log p̂.
    fn log_model_posterior(&self, log_p: &Tensor) -> ByCode {
        let as_f32 = |x: &Tensor| x.to_kind(Kind::Float).unsqueeze(-1);
        let shift = self
            .log_rho
            .expand_as(&self.step)
            .masked_fill(&self.masked, 0.0);
        let seen = self.seen.unsqueeze(-1);
        let r = log_p.scatter_add(-1, &seen, &as_f32(&shift)).exp(); // [B, L, K]
        let total = r.sum_dim_intlist([-1].as_slice(), true, Kind::Float); // [B, L, 1]
        let mix = (r * as_f32(&self.keep) + total * as_f32(&self.uniform))
            .clamp_min(TINY)
            .log(); // [B, L, K]
        let sum = mix.sum_dim_intlist([-1].as_slice(), false, Kind::Double); // [B, L]
        let (x_0, x_t) = (at(&mix, self.x_0), at(&mix, &self.seen));
        let elsewhere = x_t.masked_fill(&self.differs.logical_not(), 0.0);
        ByCode {
            other: sum - &x_0 - elsewhere,
            x_0: x_0 + self.ratio.x_0.log(),
            x_t: x_t + self.ratio.x_t.log(),
        }
    }

    /// Both terms where tokens are never replaced: a visible one is the original, and both
    /// posteriors are certain of it; a masked one becomes x_0 or stays.
    fn terms_without_replacement(&self, log_p: &Tensor) -> (Tensor, Tensor) {
        let chance = &self.keep * &self.step / &self.from_start; // [B, L]
        let surprise = at(log_p, self.x_0).neg(); // [B, L]
        let kl = (&surprise * &chance).masked_fill(&self.visible, 0.0);
        let nll = (surprise - chance.log()).masked_fill(&self.visible, 0.0);
        (kl.to_kind(Kind::Float), nll.to_kind(Kind::Float))
    }
}

/// The entries of `x` `[B, L, K]` at the codes `index` `[B, L]`.
fn at(x: &Tensor, index: &Tensor) -> Tensor {
    x.gather(-1, &index.unsqueeze(-1), false).squeeze_dim(-1)
}

/// The scalars of every pair of times (t − 1, t); masked and visible positions differ in ℓ
/// and s.
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
                let (then, now) = (schedule.at(t - 1), schedule.at(t));
                let step = schedule.between(t - 1, t);
                let (a, b, c) = (step.keep, step.uniform / codes, step.mask);
                let (b_then, b_now) = (then.uniform / codes, now.uniform / codes);
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
