//! The reverse process from x_T to x_0.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::exact::{inverse_cdf, reverse_step, Activity, StepNoise};
use super::guidance::Prediction;
use super::kernel::ReverseKernel;
use super::noise::{Draw, Noise};
use super::plan::{plan, PlanError, PlannedStep};
use super::posterior::{
    diffusers_guidance, diffusers_truncation, gumbel_argmax, official_guidance,
    official_truncation, LogSchedule,
};
use super::purity::{self, Revealing};
use super::schedule::Schedule;
use super::truncation::Truncation;

/// Whose rules the reverse step follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum ReverseRule {
    /// x̂_0 by inverse CDF, then the strided kernel: exact for any times.
    Exact,
    /// The official code: log-space posterior in f32, Gumbel-max over K + 1 classes,
    /// start from all masks, its fast sampler's times.
    Official,
    /// diffusers' `VQDiffusionPipeline`: as official, but guidance and truncation
    /// without clamps, and fewer steps n start all masked at time n − 1.
    Diffusers,
}

/// Everything that decides a run besides model and noise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplerConfig {
    /// Reverse steps, 1…T.
    pub steps: usize,
    /// Guidance scale w; 1 is no guidance (w = s + 1 of arXiv 2205.16007).
    pub guidance: f64,
    pub truncation: Truncation,
    /// Fixed-count revealing instead of the schedule's own course.
    pub revealing: Option<Revealing>,
    pub rule: ReverseRule,
}

impl SamplerConfig {
    /// Whether the network must also be asked about the null text.
    pub fn uses_guidance(&self) -> bool {
        match self.rule {
            ReverseRule::Diffusers => self.guidance > 1.0,
            _ => (self.guidance - 1.0).abs() >= 1e-3,
        }
    }
}

/// Why a sampler cannot be made of its options.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum SamplerError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("{option} is {found}, expected {expected}")]
    Option {
        option: &'static str,
        found: String,
        expected: &'static str,
    },
}

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
    config: SamplerConfig,
    schedule: Schedule,
    steps: Vec<PlannedStep>,
    /// Tokens revealed at each step, in fixed-count mode.
    counts: Vec<usize>,
    tokens: i64,
}

impl Sampler {
    /// `tokens` is L.
    pub fn new(
        config: &SamplerConfig,
        schedule: &Schedule,
        tokens: i64,
    ) -> Result<Self, SamplerError> {
        let option = |option, found: String, expected| {
            Err(SamplerError::Option {
                option,
                found,
                expected,
            })
        };
        if !config.guidance.is_finite() {
            return option("guidance", config.guidance.to_string(), "a finite number");
        }
        match config.truncation {
            Truncation::TopP(r) if !(r > 0.0 && r <= 1.0) => {
                return option("truncation", r.to_string(), "a rate in (0, 1]");
            }
            Truncation::TopK(k) if k < 1 || k > schedule.codes() => {
                return option("top-k", k.to_string(), "1 to the number of codes");
            }
            _ => {}
        }
        if let Some(revealing) = &config.revealing {
            if revealing.tokens_per_evaluation == 0 {
                return option("tokens per evaluation", "0".into(), "at least 1");
            }
            if revealing.purity.is_some_and(|r| r < 0.0 || !r.is_finite()) {
                return option(
                    "purity",
                    format!("{:?}", revealing.purity),
                    "a number of at least 0",
                );
            }
            if schedule.at(schedule.timesteps() as i64 - 1).mask == 0.0 {
                return option(
                    "purity",
                    format!("{:?}", revealing.purity),
                    "a model whose noise masks tokens (this one only replaces them)",
                );
            }
        }
        if config.rule != ReverseRule::Exact
            && schedule.at(schedule.timesteps() as i64 - 1).mask == 0.0
        {
            return option(
                "rule",
                format!("{:?}", config.rule),
                "the exact rule, since the model's noise masks no tokens",
            );
        }
        let steps = plan(config.rule, config.steps, schedule.timesteps())?;
        let counts = reveal_counts(config, schedule, &steps, tokens as usize);
        Ok(Sampler {
            config: config.clone(),
            schedule: schedule.clone(),
            steps,
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
    /// `n_sample`) of fixed-count mode.
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

    /// x_T ~ p(x_T) for `batch` images, int64 `[B, L]` on the CPU: each token the
    /// mask with probability c̄ / (K·b̄ + c̄), else a uniform code. The originals'
    /// rules always start from masks.
    pub fn start(&self, batch: i64, noise: &mut dyn Noise) -> Tensor {
        let codes = self.schedule.codes();
        let shape = [batch, self.tokens];
        if self.config.rule != ReverseRule::Exact {
            return Tensor::full(shape, codes, (Kind::Int64, Device::Cpu));
        }
        let prior = self.schedule.at(self.schedule.timesteps() as i64 - 1);
        let share = prior.mask / (prior.uniform + prior.mask);
        // One number decides both: the part above the mask's share is the code.
        let u = noise.uniform(0, Draw::Start, &shape);
        let code = (&u - share) / (1.0 - share).max(f64::MIN_POSITIVE) * codes as f64;
        let code = code.to_kind(Kind::Int64).clamp(0, codes - 1);
        code.masked_fill(&u.lt(share), codes)
    }

    /// Runs the reverse process from `x` `[B, L]` int64 (on the model's device) to
    /// x_0 `[B, L]` below K.
    pub fn sample(
        &self,
        x: Tensor,
        denoise: &mut Denoise,
        noise: &mut dyn Noise,
        observe: &mut dyn FnMut(Progress),
    ) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        match (self.config.rule, self.config.revealing) {
            (ReverseRule::Exact, None) => self.sample_exact(x, denoise, noise, observe),
            _ => self.sample_dense(x, denoise, noise, observe),
        }
    }

    /// The exact rule, redrawing only the positions that change.
    fn sample_exact(
        &self,
        mut x: Tensor,
        denoise: &mut Denoise,
        noise: &mut dyn Noise,
        observe: &mut dyn FnMut(Progress),
    ) -> Tensor {
        let (device, shape) = (x.device(), x.size());
        let kernels: Vec<_> = self
            .steps
            .iter()
            .map(|s| ReverseKernel::new(&self.schedule, s.from, s.to))
            .collect();
        let times = self.times(device);
        let draws: Vec<[Tensor; 3]> = (0..kernels.len())
            .map(|i| {
                [Draw::Code, Draw::Choice, Draw::Replacement].map(|d| noise.uniform(i, d, &shape))
            })
            .collect();
        let activity = Activity::new(
            &kernels,
            mask_rows(&x, self.schedule.codes()),
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
        mut x: Tensor,
        denoise: &mut Denoise,
        noise: &mut dyn Noise,
        observe: &mut dyn FnMut(Progress),
    ) -> Tensor {
        let (device, codes) = (x.device(), self.schedule.codes());
        let log_schedule = LogSchedule::new(&self.schedule, device);
        let times = self.times(device);
        // Masked tokens of the image that has most: every evaluation of fixed-count
        // mode takes as many from each image.
        let mut open = match self.config.revealing {
            Some(_) => most_masked(&x, codes),
            None => 0,
        };
        let mut calls = 0;
        for (i, step) in self.steps.iter().enumerate() {
            let t = times.narrow(0, i as i64, 1);
            match self.config.revealing {
                Some(revealing) if step.to >= 0 => {
                    let mut missing = self.counts[i];
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
                    x = self.dense_step(&log_schedule, step, &prediction, &x, noise, calls);
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

/// Where `x` `[B, L]` is the mask.
fn mask_rows(x: &Tensor, mask: i64) -> Vec<Vec<bool>> {
    let x = x.to_device(Device::Cpu).contiguous();
    let length = x.size()[1] as usize;
    let mut tokens = vec![0i64; x.numel()];
    x.copy_data(&mut tokens, x.numel());
    tokens
        .chunks(length)
        .map(|row| row.iter().map(|&token| token == mask).collect())
        .collect()
}

/// Largest number of masked tokens of an image of `x` `[B, L]`.
fn most_masked(x: &Tensor, mask: i64) -> usize {
    mask_rows(x, mask)
        .iter()
        .map(|row| row.iter().filter(|&&masked| masked).count())
        .max()
        .unwrap_or(0)
}

/// The values of an f64 tensor on the CPU.
fn host_values(x: &Tensor) -> Vec<f64> {
    let mut values = vec![0f64; x.numel()];
    x.contiguous().copy_data(&mut values, x.numel());
    values
}
