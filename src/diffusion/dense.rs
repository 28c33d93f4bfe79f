//! Runs that ask about every position at every step: the originals' rules, and
//! fixed-count revealing under any rule.

use tch::{Kind, Tensor};

use super::exact::{inverse_cdf, reverse_step, StepNoise};
use super::guidance::Prediction;
use super::kernel::ReverseKernel;
use super::noise::{Draw, Noise};
use super::plan::PlannedStep;
use super::posterior::{
    diffusers_guidance, diffusers_truncation, gumbel_argmax, official_guidance,
    official_truncation, LogSchedule,
};
use super::purity;
use super::sampler::{bool_rows, Denoise, Progress, ReverseRule, Sampler, SamplerConfig};
use super::schedule::Schedule;
use super::start::Start;

impl Sampler {
    /// The run, from `start`.
    pub(super) fn sample_dense(
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
                // The original makes no call at a step that reveals nothing, not even
                // the one at time 0, which would draw every token anew.
                Some(_)
                    if self.config.rule == ReverseRule::Official && counts[i] == 0 && open == 0 => {
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

    /// log p(x̂_0) by the configured rule: `[B, L, K]` (exact) or `[B, L, K + 1]`.
    pub(super) fn log_p(&self, prediction: &Prediction) -> Tensor {
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
}

/// Tokens revealed at each step of fixed-count mode; none without it.
pub(super) fn reveal_counts(
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

/// Largest number of true entries of a row of `x` bool `[B, L]`.
fn most_true(x: &Tensor) -> usize {
    bool_rows(x)
        .iter()
        .map(|row| row.iter().filter(|&&value| value).count())
        .max()
        .unwrap_or(0)
}
