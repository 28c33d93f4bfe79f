//! The variational bound on −log p_θ(x_0) (arXiv 2111.14822 eq. 9) of held-out pictures:
//! L_0 + Σ_t L_t + L_T, with L_T = KL(q(x_T | x_0) ‖ p(x_T)).

use rand_chacha::rand_core::RngCore;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::diffusion::forward::q_sample;
use crate::diffusion::{Objective, ObjectiveConfig, Schedule};
use crate::metrics::bootstrap::mean_interval;
use crate::pipeline::{ConditionError, Pipeline, Subject};
use crate::random::{measure_generator, unit, MeasureDraw};

/// The bound of one noise schedule.
pub struct Bound<'a> {
    schedule: &'a Schedule,
    objective: Objective,
    device: Device,
}

/// Nats of one picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PictureBound {
    /// The terms L_t by quarter of t, L_0 among the first.
    pub quarters: [f64; 4],
    /// L_T.
    pub prior: f64,
}

impl PictureBound {
    pub fn total(&self) -> f64 {
        self.quarters.iter().sum::<f64>() + self.prior
    }
}

impl<'a> Bound<'a> {
    pub fn new(schedule: &'a Schedule, device: Device) -> Self {
        Bound {
            objective: Objective::new(&ObjectiveConfig::default(), schedule, device),
            schedule,
            device,
        }
    }

    /// The term of time `t` `[B]` in nats `[B]` f64, given the network's `logits` `[B, L, K]`
    /// for `x_t` `[B, L]`; its mean over x_t ~ q(x_t | x_0) is L_t.
    pub fn terms(&self, logits: &Tensor, x_0: &Tensor, x_t: &Tensor, t: &Tensor) -> Tensor {
        let p_t = Tensor::ones_like(&t.to_kind(Kind::Float));
        let terms = self.objective.terms(logits, x_0, x_t, t, &p_t);
        terms.main.to_kind(Kind::Double)
    }

    /// L_T of one token, in nats.
    pub fn prior(&self) -> f64 {
        let codes = self.schedule.codes() as f64;
        let last = self.schedule.at(self.schedule.timesteps() as i64 - 1);
        let mask = last.mask / (last.uniform + last.mask);
        let code = (1.0 - mask) / codes;
        let part = |count: f64, q: f64, p: f64| match q > 0.0 {
            true => count * q * (q / p.max(f64::MIN_POSITIVE)).ln(),
            false => 0.0,
        };
        let other = last.uniform / codes;
        part(1.0, last.keep + other, code)
            + part(codes - 1.0, other, code)
            + part(1.0, last.mask, mask)
    }

    /// An estimate for the picture `x_0` int64 `[1, L]` without bias: of every quarter of t
    /// `draws` times, one from each of as many equal parts of it, and x_t for each. `index`
    /// names the picture among those of the `seed`: pictures of one name are given the same
    /// times and the same noise, whatever made them.
    pub fn estimate(
        &self,
        x_0: &Tensor,
        draws: usize,
        seed: u64,
        index: u64,
        denoise: &mut dyn FnMut(&Tensor, &Tensor) -> Tensor,
    ) -> PictureBound {
        let _no_grad = tch::no_grad_guard();
        let steps = self.schedule.timesteps();
        let tokens = x_0.size()[1];
        let mut time = measure_generator(seed, index, MeasureDraw::Time);
        let mut noise = measure_generator(seed, index, MeasureDraw::Corruption);
        let quarters = [0, 1, 2, 3].map(|quarter| {
            let (from, to) = (quarter * steps / 4, (quarter + 1) * steps / 4);
            let count = to - from;
            if count == 0 {
                return 0.0;
            }
            let sum: f64 = (0..draws)
                .map(|part| {
                    let t = (from as u64 + in_part(&mut time, part, draws, count)) as i64;
                    let uniform: Vec<f64> = (0..tokens).map(|_| unit(&mut noise)).collect();
                    let uniform = Tensor::from_slice(&uniform).view([1, tokens]);
                    let x_0 = x_0.to_device(Device::Cpu);
                    let x_t = q_sample(self.schedule, &x_0, &[t], &uniform).to_device(self.device);
                    let t = Tensor::from_slice(&[t]).to_device(self.device);
                    let logits = denoise(&x_t, &t);
                    let x_0 = x_0.to_device(self.device);
                    self.terms(&logits, &x_0, &x_t, &t).double_value(&[0])
                })
                .sum();
            sum / draws as f64 * count as f64
        });
        PictureBound {
            quarters,
            prior: self.prior() * tokens as f64,
        }
    }
}

/// ⌊(j + u) · `count` / `parts`⌋ for the `part` j < `parts` and u uniform in [0, 1): over all
/// parts, every number below `count` is equally likely.
fn in_part(generator: &mut ChaCha8Rng, part: usize, parts: usize, count: usize) -> u64 {
    let place = (part as u128) << 64 | u128::from(generator.next_u64());
    ((place * count as u128 / parts as u128) >> 64) as u64
}

/// The bound over pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Likelihood {
    pub pictures: usize,
    /// Draws of (t, x_t) for each quarter of t and picture.
    pub draws: usize,
    /// Mean bound in bits a token.
    pub bits_per_token: f64,
    /// 95 %, by the bootstrap over the pictures.
    pub bits_per_token_interval: [f64; 2],
    /// The same in bits a channel of a pixel.
    pub bits_per_dimension: f64,
    /// What each quarter of t adds, in bits a token; the first is the least noisy.
    pub quarters: [f64; 4],
    /// What L_T adds.
    pub prior: f64,
}

impl Likelihood {
    /// Of `bounds`, at least one, of pictures of so many `tokens` and `dimensions`.
    pub fn new(
        bounds: &[PictureBound],
        draws: usize,
        [tokens, dimensions]: [f64; 2],
        seed: u64,
    ) -> Self {
        let bits = 1.0 / (tokens * std::f64::consts::LN_2);
        let totals: Vec<f64> = bounds.iter().map(|bound| bound.total() * bits).collect();
        let mean = |of: &dyn Fn(&PictureBound) -> f64| {
            bits * bounds.iter().map(of).sum::<f64>() / bounds.len() as f64
        };
        let bits_per_token = mean(&PictureBound::total);
        Likelihood {
            pictures: bounds.len(),
            draws,
            bits_per_token,
            bits_per_token_interval: mean_interval(&totals, seed, 5),
            bits_per_dimension: bits_per_token * tokens / dimensions,
            quarters: [0, 1, 2, 3].map(|q| mean(&|bound: &PictureBound| bound.quarters[q])),
            prior: mean(&|bound: &PictureBound| bound.prior),
        }
    }
}

/// The bound of a picture of `tokens` int64 `[1, L]` that shows `subject`, by the model
/// without guidance.
///
/// # Errors
///
/// A subject that the model cannot show.
pub fn of_picture(
    pipeline: &Pipeline,
    bound: &Bound,
    subject: &Subject,
    tokens: &Tensor,
    draws: usize,
    seed: u64,
    index: u64,
) -> Result<PictureBound, ConditionError> {
    let condition = pipeline.condition(std::slice::from_ref(subject), false)?;
    let mut denoise = |x_t: &Tensor, t: &Tensor| {
        let denoiser = pipeline.denoiser();
        denoiser
            .forward(x_t, t, &condition, None)
            .to_kind(Kind::Float)
    };
    Ok(bound.estimate(tokens, draws, seed, index, &mut denoise))
}
