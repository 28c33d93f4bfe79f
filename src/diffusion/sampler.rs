//! The reverse process from x_T to x_0.

use tch::{Device, Kind, Tensor};

use super::exact::{inverse_cdf, reverse_step, Activity, StepNoise};
use super::guidance::Prediction;
use super::kernel::ReverseKernel;
use super::noise::{Draw, Noise};
pub use super::options::{ReverseRule, SamplerConfig, SamplerError};
use super::plan::{plan, PlannedStep};
use super::posterior::{
    diffusers_guidance, diffusers_truncation, gumbel_argmax, official_guidance,
    official_truncation, LogSchedule,
};
use super::purity;
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
    counts: Vec<usize>,
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

    /// Every position at every step: the originals' rules, and fixed-count revealing
    /// under any rule.
    fn sample_dense(
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
        let (device, codes) = (x.device(), self.schedule.codes());
        let log_schedule = LogSchedule::new(&self.schedule, device);
        let times = self.times(device);
        // Masked tokens of the image that has most: every evaluation of fixed-count
        // mode takes as many from each image.
        let mut open = match self.config.revealing {
            Some(_) => most_true(&x.eq(codes)),
            None => 0,
        };
        let counts = match &kept {
            None => self.counts.clone(),
            Some(kept) => {
                let redrawn = most_true(&kept.logical_not());
                reveal_counts(&self.config, &self.schedule, &self.steps, redrawn)
            }
        };
        let mut calls = 0;
        for (i, step) in self.steps.iter().enumerate() {
            let t = times.narrow(0, i as i64, 1);
            match self.config.revealing {
                Some(revealing) if step.to >= 0 => {
                    let mut missing = counts[i];
                    while missing > 0 {
                        let masked = x.eq(codes); // [B, L]
                        let count = purity::batch_of(missing, revealing.tokens_per_evaluation);
                        let call = calls;
                        missing -= count;
                        calls += 1;
                        if open == 0 {
                            continue;
                        }
                        open = open.saturating_sub(count);
                        let log_p = self.log_p(&denoise(&x, &t, None));
                        let scores = purity::scores(&log_p, revealing.purity);
                        let candidates = match revealing.purity {
                            Some(r) if r > 0.0 => purity::sharpen(&log_p, &scores, r),
                            _ => log_p,
                        };
                        let candidates = self.draw(&candidates, noise, call); // [B, L]
                        let exponential = noise
                            .exponential(call, Draw::Position, &x.size())
                            .to_device(device);
                        let count = (count as i64).min(self.tokens);
                        let at = purity::choose_positions(&scores, &masked, &exponential, count);
                        // An image with fewer masked positions than that keeps the others.
                        let revealed = candidates.where_self(&masked, &x);
                        x = x.scatter(1, &at, &revealed.gather(1, &at, false));
                    }
                }
                _ => {
                    let prediction = denoise(&x, &t, None);
                    let next = self.dense_step(&log_schedule, step, &prediction, &x, noise, calls);
                    x = match &kept {
                        Some(kept) => x.where_self(kept, &next),
                        None => next,
                    };
                    calls += 1;
                }
            }
            observe(Progress {
                done: i + 1,
                steps: self.steps.len(),
                tokens: &x,
            });
        }
        x
    }

    /// One reverse step at all positions.
    fn dense_step(
        &self,
        log_schedule: &LogSchedule,
        step: &PlannedStep,
        prediction: &Prediction,
        x: &Tensor,
        noise: &mut dyn Noise,
        call: usize,
    ) -> Tensor {
        if self.config.rule == ReverseRule::Exact {
            let kernel = ReverseKernel::new(&self.schedule, step.from, step.to);
            let mut number = |draw| noise.uniform(call, draw, &x.size()).to_device(x.device());
            let noise = StepNoise {
                code: number(Draw::Code),
                choice: number(Draw::Choice),
                replacement: number(Draw::Replacement),
            };
            return reverse_step(&kernel, &self.exact_p(prediction), x, &noise);
        }
        let log_p = self.log_p(prediction);
        let t = Tensor::full([x.size()[0]], step.from, (Kind::Int64, x.device()));
        let posterior = match self.config.rule {
            // diffusers takes p̂ itself at time 0.
            ReverseRule::Diffusers if step.from == 0 => log_p,
            _ => log_schedule.q_posterior(&log_p, x, &t),
        };
        self.draw(&posterior, noise, call)
    }

    /// Guided and truncated p(x̂_0), not renormalised after truncation: `[B, A, K]`.
    fn exact_p(&self, prediction: &Prediction) -> Tensor {
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

    /// log p(x̂_0) by the configured rule: `[B, L, K]` (exact) or `[B, L, K + 1]`.
    fn log_p(&self, prediction: &Prediction) -> Tensor {
        let SamplerConfig {
            guidance,
            truncation,
            ..
        } = self.config;
        match self.config.rule {
            ReverseRule::Exact => self.exact_p(prediction).log(),
            ReverseRule::Official => {
                official_truncation(&official_guidance(prediction, guidance), truncation)
            }
            ReverseRule::Diffusers => {
                diffusers_truncation(&diffusers_guidance(prediction, guidance), truncation)
            }
        }
    }

    /// A class of `log_p` `[B, L, N]` for every position, by the configured rule's
    /// kind of draw → int64 `[B, L]`.
    fn draw(&self, log_p: &Tensor, noise: &mut dyn Noise, call: usize) -> Tensor {
        let (size, device) = (log_p.size(), log_p.device());
        match self.config.rule {
            ReverseRule::Exact => {
                let u = noise
                    .uniform(call, Draw::Code, &size[..2])
                    .to_device(device);
                inverse_cdf(&log_p.exp(), &u)
            }
            _ => {
                let u = noise.uniform(call, Draw::Code, &size).to_device(device);
                gumbel_argmax(log_p, &u.to_kind(Kind::Float))
            }
        }
    }

    /// The network's times of the plan: int64 `[steps]` on `device`.
    fn times(&self, device: Device) -> Tensor {
        let times: Vec<i64> = self.steps.iter().map(|s| s.network).collect();
        Tensor::from_slice(&times).to_device(device)
    }
}

fn reveal_counts(
    config: &SamplerConfig,
    schedule: &Schedule,
    steps: &[PlannedStep],
    tokens: usize,
) -> Vec<usize> {
    let Some(revealing) = config.revealing else {
        return Vec::new();
    };
    // The originals reveal fixed counts in the full sampler only.
    let official = match config.rule {
        ReverseRule::Exact => None,
        _ if steps.len() < schedule.timesteps() => None,
        _ => purity::official_counts(steps.len(), tokens, revealing.tokens_per_evaluation),
    };
    match official {
        Some(by_time) => steps.iter().map(|s| by_time[s.from as usize]).collect(),
        None => {
            let visited = steps.iter().map(|s| s.network);
            let times: Vec<_> = visited.clone().zip(visited.skip(1).chain([-1])).collect();
            purity::reveal_counts(schedule, &times, tokens)
        }
    }
}

/// The rows of a bool tensor `[B, L]`.
fn bool_rows(x: &Tensor) -> Vec<Vec<bool>> {
    let x = x.to_device(Device::Cpu).contiguous();
    let length = x.size()[1] as usize;
    let mut values = vec![false; x.numel()];
    x.copy_data(&mut values, x.numel());
    values.chunks(length).map(<[bool]>::to_vec).collect()
}

/// Largest number of true entries of a row of `x` bool `[B, L]`.
fn most_true(x: &Tensor) -> usize {
    bool_rows(x)
        .iter()
        .map(|row| row.iter().filter(|&&value| value).count())
        .max()
        .unwrap_or(0)
}

/// The values of an f64 tensor on the CPU.
fn host_values(x: &Tensor) -> Vec<f64> {
    let mut values = vec![0f64; x.numel()];
    x.contiguous().copy_data(&mut values, x.numel());
    values
}
