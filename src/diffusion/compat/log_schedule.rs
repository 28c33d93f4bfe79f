//! The originals' evaluation of forward process and posterior: log-probabilities over the
//! K codes and the mask, in f32, with the originals' constants. The exact sampler needs
//! none of it ([`posterior`](crate::diffusion::posterior)).
//!
//! Tensors of log-probabilities are `[B, L, K + 1]`, the mask last.

use tch::{Device, Kind, Tensor};

use crate::diffusion::schedule::Schedule;
use crate::diffusion::LOG_ZERO;

/// Smallest probability of a one-hot row.
const ONE_HOT_FLOOR: f64 = 1e-30;

/// The schedule's buffers as the original stores them (f32, logs taken in f64).
/// Cumulative ones have T + 1 entries; the last belongs to the clean time −1.
pub struct LogSchedule {
    pub log_at: Tensor,               // [T]
    pub log_bt: Tensor,               // [T]
    pub log_ct: Tensor,               // [T]
    pub log_1_min_ct: Tensor,         // [T]
    pub log_cumprod_at: Tensor,       // [T + 1]
    pub log_cumprod_bt: Tensor,       // [T + 1]
    pub log_cumprod_ct: Tensor,       // [T + 1]
    pub log_1_min_cumprod_ct: Tensor, // [T + 1]
    codes: i64,
    timesteps: i64,
}

impl LogSchedule {
    pub fn new(schedule: &Schedule, device: Device) -> Self {
        let (steps, codes) = (schedule.timesteps() as i64, schedule.codes());
        let tensor = |values: Vec<f64>| {
            Tensor::from_slice(&values)
                .to_kind(Kind::Float)
                .to_device(device)
        };
        let k = codes as f64;
        let one_step = |f: &dyn Fn(f64, f64, f64) -> f64| {
            tensor(
                (0..steps)
                    .map(|t| {
                        let step = schedule.between(t - 1, t);
                        let (a, c) = (step.keep, step.mask);
                        // The originals take K·b as this difference, rounding error and
                        // all; where no token is replaced it is nothing else.
                        let replaces = schedule.at(t).uniform > 0.0;
                        let kb = if replaces { 1.0 - a - c } else { 0.0 };
                        f(a, kb.max(0.0) / k, c)
                    })
                    .collect(),
            )
        };
        let cumulative = |f: &dyn Fn(f64, f64, f64) -> f64| {
            tensor(
                (0..steps)
                    .chain([-1])
                    .map(|t| {
                        let now = schedule.at(t);
                        f(now.keep, now.uniform / k, now.mask)
                    })
                    .collect(),
            )
        };
        let log_1_min = |c: f64| (1.0 - c + 1e-40).ln();
        LogSchedule {
            log_at: one_step(&|a, _, _| a.ln()),
            log_bt: one_step(&|_, b, _| b.ln()),
            log_ct: one_step(&|_, _, c| c.ln()),
            log_1_min_ct: one_step(&|_, _, c| log_1_min(c)),
            log_cumprod_at: cumulative(&|a, _, _| a.ln()),
            log_cumprod_bt: cumulative(&|_, b, _| b.ln()),
            log_cumprod_ct: cumulative(&|_, _, c| c.ln()),
            log_1_min_cumprod_ct: cumulative(&|_, _, c| log_1_min(c)),
            codes,
            timesteps: steps,
        }
    }

    /// log q(x_t | x_0) (eq. 4) for (possibly soft) `log_x0`; `t` int64 `[B]`, −1 is clean.
    pub fn q_pred(&self, log_x0: &Tensor, t: &Tensor) -> Tensor {
        let index = (t + (self.timesteps + 1)).remainder(self.timesteps + 1);
        self.forward_map(
            log_x0,
            &at(&self.log_cumprod_at, &index),
            &at(&self.log_cumprod_bt, &index),
            &at(&self.log_cumprod_ct, &index),
            &at(&self.log_1_min_cumprod_ct, &index),
        )
    }

    /// log q(x_t | x_{t−1}) (eq. 3) for (possibly soft) `log_x`; `t` int64 `[B]`.
    pub fn q_pred_one_timestep(&self, log_x: &Tensor, t: &Tensor) -> Tensor {
        self.forward_map(
            log_x,
            &at(&self.log_at, t),
            &at(&self.log_bt, t),
            &at(&self.log_ct, t),
            &at(&self.log_1_min_ct, t),
        )
    }

    fn forward_map(
        &self,
        log_x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        not_c: &Tensor,
    ) -> Tensor {
        let codes = (log_x.narrow(-1, 0, self.codes) + a).logaddexp(b);
        let mask = (log_x.narrow(-1, self.codes, 1) + not_c).logaddexp(c);
        Tensor::cat(&[codes, mask], -1)
    }

    /// log one-hot of `tokens` `[B, L]`, log 1e-30 elsewhere.
    pub fn log_one_hot(&self, tokens: &Tensor) -> Tensor {
        let (batch, length) = (tokens.size()[0], tokens.size()[1]);
        Tensor::full(
            [batch, length, self.codes + 1],
            ONE_HOT_FLOOR.ln(),
            (Kind::Float, tokens.device()),
        )
        .scatter_value_(-1, &tokens.unsqueeze(-1), 0.0)
    }

    /// log p_θ(x_{t−1} | x_t) = log Σ_k p(x̂_0 = k) q(x_{t−1} | x_t, k) (eqs. 5
    /// and 11), clamped to
    /// −70…0: `log_x0` `[B, L, K + 1]`, `x_t` `[B, L]`, `t` int64 `[B]`.
    pub fn q_posterior(&self, log_x0: &Tensor, x_t: &Tensor, t: &Tensor) -> Tensor {
        let masked = x_t.eq(self.codes).unsqueeze(-1); // [B, L, 1]
        let one_hot = self.log_one_hot(x_t).narrow(-1, 0, self.codes);
        let log_zero = ONE_HOT_FLOOR.ln();

        let hit = |a: Tensor, b: Tensor, c: Tensor| {
            let visible = (&one_hot + a).logaddexp(&b); // [B, L, K]
            visible.where_self(&masked.logical_not(), &c)
        };
        // log q(x_t | x_0 = k) and log q(x_t | x_{t−1} = j)
        let from_start = hit(
            at(&self.log_cumprod_at, t),
            at(&self.log_cumprod_bt, t),
            at(&self.log_cumprod_ct, t),
        );
        let from_previous = hit(
            at(&self.log_at, t),
            at(&self.log_bt, t),
            at(&self.log_ct, t),
        );
        let mask_row = masked.zeros_like().to_kind(Kind::Float); // x_{t−1} = M: log 1 if x_t = M
        let mask_row = mask_row.masked_fill(&masked.logical_not(), log_zero); // [B, L, 1]
        let from_previous = Tensor::cat(&[from_previous, mask_row.shallow_clone()], -1);

        let ratio = log_x0.narrow(-1, 0, self.codes) - from_start;
        let ratio = Tensor::cat(&[ratio, mask_row.full_like(log_zero)], -1);
        let total = ratio.logsumexp([-1], true); // [B, L, 1]
        let previous = self.q_pred(&(ratio - &total), &(t - 1));
        let posterior = previous + from_previous + total;
        // Where no token is ever replaced, a visible one is the original; the general
        // form is 0/0 there.
        let original = at(&self.log_cumprod_bt, t)
            .isneginf()
            .logical_and(&masked.logical_not());
        self.log_one_hot(x_t)
            .where_self(&original, &posterior)
            .clamp(LOG_ZERO, 0.0)
    }
}

/// Entries `t` `[B]` of `table`, shaped to broadcast over `[B, L, K]`.
fn at(table: &Tensor, t: &Tensor) -> Tensor {
    table.index_select(0, t).view([-1, 1, 1])
}
