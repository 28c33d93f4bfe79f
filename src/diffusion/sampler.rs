//! The reverse process from x_T to x_0.

use tch::{Device, Kind, Tensor};

use super::dense::reveal_counts;
use super::exact::{reverse_step, Activity, StepNoise};
use super::guidance::Prediction;
use super::kernel::ReverseKernel;
use super::noise::{Draw, Noise};
pub use super::options::{ReverseRule, SamplerConfig, SamplerError};
use super::plan::{plan, PlannedStep};
use super::schedule::Schedule;
use super::start::Start;

/// Asks the network about `x_t` `[B, L]` at time `t` int64 `[1]`, at `positions`
/// `[B, A]` (all L when `None`).
pub type Denoise<'a> = dyn FnMut(&Tensor, &Tensor, Option<&Tensor>) -> Prediction + 'a;

/// Where a run is, after each step.
pub struct Progress<'a> {
    /// Steps done, 1…`steps`.
    pub done: usize,
    pub steps: usize,
    /// x_s `[B, L]` on the run's device.
    pub tokens: &'a Tensor,
}

/// A validated run plan.
pub struct Sampler {
    pub(super) config: SamplerConfig,
    pub(super) schedule: Schedule,
    pub(super) steps: Vec<PlannedStep>,
    /// Whether the first steps of the plan are left out.
    pub(super) partial: bool,
    /// Tokens revealed at each step, in fixed-count mode.
    pub(super) counts: Vec<usize>,
    pub(super) tokens: i64,
}

impl Sampler {
    /// `tokens` is L.
    pub fn new(
        config: &SamplerConfig,
        schedule: &Schedule,
        tokens: i64,
    ) -> Result<Self, SamplerError> {
        config.check(schedule)?;
        let steps = plan(config.rule, config.steps, schedule.timesteps())?;
        let counts = reveal_counts(config, schedule, &steps, tokens as usize);
        Ok(Sampler {
            config: config.clone(),
            schedule: schedule.clone(),
            steps,
            partial: false,
            counts,
            tokens,
        })
    }

    /// Replaces the times visited. A number of steps does not name every plan of the
    /// official fast sampler (T = 10: skips 2 and 3 both make 4 steps).
    pub fn with_plan(mut self, steps: Vec<PlannedStep>) -> Self {
        self.counts = reveal_counts(&self.config, &self.schedule, &steps, self.tokens as usize);
        self.steps = steps;
        self
    }

    /// Replaces the number of tokens revealed at each step (by time index, official
    /// `n_sample`) of fixed-count mode, in runs that keep no token.
    pub fn with_reveal_counts(mut self, by_time: &[usize]) -> Self {
        self.counts = self
            .steps
            .iter()
            .map(|step| by_time.get(step.from as usize).copied().unwrap_or(0))
            .collect();
        self
    }

    pub fn config(&self) -> &SamplerConfig {
        &self.config
    }

    /// The steps that a run makes.
    pub fn steps(&self) -> &[PlannedStep] {
        &self.steps
    }

    /// The last part of the run alone: its last round(`strength` · steps) steps, at
    /// least one unless `strength` is 0. A run of less than 1 starts from a
    /// picture ([`start_from`](Self::start_from)).
    ///
    /// # Errors
    ///
    /// A strength outside 0…1, or a part of a run that reveals fixed counts.
    pub fn with_strength(mut self, strength: f64) -> Result<Self, SamplerError> {
        if !(0.0..=1.0).contains(&strength) {
            return Err(SamplerError::Option {
                option: "strength",
                found: strength.to_string(),
                expected: "a number from 0 to 1",
            });
        }
        let steps = self.steps.len();
        let run = match (strength * steps as f64).round() as usize {
            0 if strength > 0.0 => 1,
            run => run,
        };
        if self.config.revealing.is_some() && run > 0 && run < steps {
            return Err(SamplerError::Option {
                option: "strength",
                found: strength.to_string(),
                expected: "0 or 1, since revealing fixed counts starts from masks alone",
            });
        }
        self.partial |= run < steps;
        self.steps.drain(..steps - run);
        self.counts.drain(..self.counts.len().min(steps - run));
        Ok(self)
    }

    /// Runs the reverse process from `start` (a tensor of tokens alone keeps none) to
    /// x_0 int64 `[B, L]` below K.
    pub fn sample(
        &self,
        start: impl Into<Start>,
        denoise: &mut Denoise,
        noise: &mut dyn Noise,
        observe: &mut dyn FnMut(Progress),
    ) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        match (self.config.rule, self.config.revealing) {
            (ReverseRule::Exact, None) => self.sample_exact(start.into(), denoise, noise, observe),
            _ => self.sample_dense(start.into(), denoise, noise, observe),
        }
    }

    /// The exact rule, redrawing only the positions that change.
    fn sample_exact(
        &self,
        start: Start,
        denoise: &mut Denoise,
        noise: &mut dyn Noise,
        observe: &mut dyn FnMut(Progress),
    ) -> Tensor {
        let Start {
            tokens: mut x,
            kept,
        } = start;
        let (device, shape) = (x.device(), x.size());
        let kept = kept.map(|kept| kept.to_device(Device::Cpu));
        let kernels: Vec<_> = self
            .steps
            .iter()
            .map(|s| ReverseKernel::new(&self.schedule, s.from, s.to))
            .collect();
        let times = self.times(device);
        let draws: Vec<[Tensor; 3]> = (0..kernels.len())
            .map(|i| {
                let [code, choice, replacement] = [Draw::Code, Draw::Choice, Draw::Replacement]
                    .map(|d| noise.uniform(i, d, &shape));
                // Below every threshold: a kept token stays.
                let choice = match &kept {
                    Some(kept) => choice.masked_fill(kept, -1.0),
                    None => choice,
                };
                [code, choice, replacement]
            })
            .collect();
        let activity = Activity::new(
            &kernels,
            bool_rows(&x.eq(self.schedule.codes())),
            &draws.iter().map(|d| host_values(&d[1])).collect::<Vec<_>>(),
            device,
        );
        for (i, kernel) in kernels.iter().enumerate() {
            if let Some(positions) = activity.at(i) {
                let [code, choice, replacement] = draws[i]
                    .each_ref()
                    .map(|d| d.to_device(device).gather(1, positions, false));
                let noise = StepNoise {
                    code,
                    choice,
                    replacement,
                };
                let prediction = denoise(&x, &times.narrow(0, i as i64, 1), Some(positions));
                let p = self.exact_p(&prediction); // [B, A, K]
                let x_t = x.gather(1, positions, false); // [B, A]
                let x_s = reverse_step(kernel, &p, &x_t, &noise);
                x = x.scatter(1, positions, &x_s);
            }
            observe(Progress {
                done: i + 1,
                steps: kernels.len(),
                tokens: &x,
            });
        }
        x
    }

    /// Guided and truncated p(x̂_0), not renormalised after truncation: `[B, A, K]`.
    pub(super) fn exact_p(&self, prediction: &Prediction) -> Tensor {
        let p = prediction
            .guided(self.config.guidance)
            .softmax(-1, Kind::Float);
        self.config.truncation.apply(&p)
    }

    /// Entropy in nats of the p(x̂_0) that codes are drawn from, guided and truncated:
    /// f32 `[B, A]`.
    pub fn entropy(&self, prediction: &Prediction) -> Tensor {
        let p = match self.config.rule {
            ReverseRule::Exact => self.exact_p(prediction),
            _ => self.log_p(prediction).exp(),
        };
        let p = &p / p.sum_dim_intlist(-1, true, Kind::Float);
        -p.xlogy(&p).sum_dim_intlist(-1, false, Kind::Float)
    }

    /// The network's times of the plan: int64 `[steps]` on `device`.
    pub(super) fn times(&self, device: Device) -> Tensor {
        let times: Vec<i64> = self.steps.iter().map(|s| s.network).collect();
        Tensor::from_slice(&times).to_device(device)
    }
}

/// The rows of a bool tensor `[B, L]`.
pub(super) fn bool_rows(x: &Tensor) -> Vec<Vec<bool>> {
    let x = x.to_device(Device::Cpu).contiguous();
    let length = x.size()[1] as usize;
    let mut values = vec![false; x.numel()];
    x.copy_data(&mut values, x.numel());
    values.chunks(length).map(<[bool]>::to_vec).collect()
}

/// The values of an f64 tensor on the CPU.
fn host_values(x: &Tensor) -> Vec<f64> {
    let mut values = vec![0f64; x.numel()];
    x.contiguous().copy_data(&mut values, x.numel());
    values
}
