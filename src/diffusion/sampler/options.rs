//! Everything that decides a run besides model and noise, and its checks.

use serde::{Deserialize, Serialize};

use super::error::SamplerError;
use super::exact::Exact;
use super::order::RevealOrder;
use super::plan::{Rule, SamplingPlan};
use super::times::Times;
use crate::diffusion::compat::{DIFFUSERS, OFFICIAL};
use crate::diffusion::purity::Revealing;
use crate::diffusion::schedule::Schedule;
use crate::diffusion::truncation::Truncation;

/// Whose rules the reverse step follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReverseRule {
    /// x̂_0 by inverse CDF, then the strided posterior: exact for any times.
    Exact,
    /// The official code: log-space posterior in f32, Gumbel-max over K + 1 classes,
    /// start from all masks, its fast sampler's times.
    Official,
    /// diffusers' `VQDiffusionPipeline`: as official, but guidance and truncation
    /// without clamps, and fewer steps n start all masked at time n − 1.
    Diffusers,
}

impl ReverseRule {
    /// What the name stands for: the one place where rules are told apart.
    fn rule(self) -> &'static dyn Rule {
        match self {
            ReverseRule::Exact => &Exact,
            ReverseRule::Official => &OFFICIAL,
            ReverseRule::Diffusers => &DIFFUSERS,
        }
    }
}

/// Everything that decides a run besides model and noise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplerConfig {
    /// Reverse steps, 1…T.
    pub steps: usize,
    /// Which times they visit; an original's rule has its own.
    #[serde(default, skip_serializing_if = "Times::is_even")]
    pub times: Times,
    /// Which masked tokens leave the mask together.
    #[serde(default, skip_serializing_if = "RevealOrder::is_independent")]
    pub order: RevealOrder,
    /// Guidance scale w; 1 is no guidance (w = s + 1 of arXiv 2205.16007).
    pub guidance: f64,
    /// Apply guidance only while the visible share ā of the tokens is from the first to the
    /// second number; at other steps the null text is not evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance_span: Option<[f64; 2]>,
    /// So many steps after each full evaluation of the network are local: evaluated at the
    /// positions of these steps alone, on the keys and values of the others as they were. An
    /// approximation; 0 has none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub local_steps: usize,
    pub truncation: Truncation,
    /// Fixed-count revealing instead of the schedule's own course.
    pub revealing: Option<Revealing>,
    pub rule: ReverseRule,
}

fn is_zero(steps: &usize) -> bool {
    *steps == 0
}

impl SamplerConfig {
    /// The run of these options under `schedule` over a `grid` of tokens, as rows and columns.
    ///
    /// # Errors
    ///
    /// An option out of its range or impossible under the schedule.
    pub fn plan(&self, schedule: &Schedule, grid: [i64; 2]) -> Result<SamplingPlan, SamplerError> {
        self.check(schedule)?;
        let (rule, timesteps) = (self.rule.rule(), schedule.timesteps());
        if self.steps == 0 || self.steps > timesteps {
            let steps = self.steps;
            return Err(SamplerError::Steps { steps, timesteps });
        }
        let plan = SamplingPlan {
            rule,
            schedule: schedule.clone(),
            steps: Vec::new(),
            times: self.times,
            order: self.order,
            guidance: self.guidance,
            guidance_span: self.guidance_span.unwrap_or([0.0, 1.0]),
            local_steps: self.local_steps,
            truncation: self.truncation,
            revealing: self.revealing,
            counts: Vec::new(),
            partial: false,
            grid,
        };
        let steps = rule.steps(self.steps, &plan)?;
        Ok(plan.with_steps(steps))
    }

    /// Whether the network must also be asked about the null text.
    pub fn uses_guidance(&self) -> bool {
        self.rule.rule().asks_null(self.guidance)
    }

    /// Whether a run with these options is possible under `schedule`.
    fn check(&self, schedule: &Schedule) -> Result<(), SamplerError> {
        let option = |option, found: String, expected| {
            Err(SamplerError::Option {
                option,
                found,
                expected,
            })
        };
        // Beyond that the f32 logits would overflow.
        if !(-1e6..=1e6).contains(&self.guidance) {
            let found = self.guidance.to_string();
            return option("guidance", found, "a number from -1e6 to 1e6");
        }
        if let Some([from, to]) = self.guidance_span {
            if !((0.0..=1.0).contains(&from) && (from..=1.0).contains(&to)) {
                let expected = "two shares from 0 to 1, the first not above the second";
                return option("guidance span", format!("{from}..{to}"), expected);
            }
        }
        if !self.rule.rule().is_exact() {
            let expected = "the exact rule: an original's has times and guidance of its own";
            if self.times != Times::Even {
                return option(
                    "times",
                    format!("{:?}", self.times).to_lowercase(),
                    expected,
                );
            }
            if let Some([from, to]) = self.guidance_span {
                return option("guidance span", format!("{from}..{to}"), expected);
            }
        }
        // Only such runs know beforehand where tokens change.
        let foreknown = self.rule.rule().is_exact() && self.revealing.is_none();
        if self.local_steps > 0 && !foreknown {
            return option(
                "local steps",
                self.local_steps.to_string(),
                "0, or the exact rule without purity or fixed counts: it alone knows beforehand \
                 where tokens change",
            );
        }
        let order = || format!("{:?}", self.order).to_lowercase();
        if !self.order.is_independent() && !foreknown {
            let expected = "independent, or the exact rule without purity or fixed counts";
            return option("order", order(), expected);
        }
        match self.truncation {
            Truncation::TopP(r) if !(r > 0.0 && r <= 1.0) => {
                return option("truncation", r.to_string(), "a rate in (0, 1]");
            }
            Truncation::TopK(k) if k < 1 || k > schedule.codes() => {
                return option("top-k", k.to_string(), "1 to the number of codes");
            }
            _ => {}
        }
        let masks = schedule.masks();
        if let Some(revealing) = &self.revealing {
            if revealing.tokens_per_evaluation == 0 {
                return option("tokens per evaluation", "0".into(), "at least 1");
            }
            if let Some(r) = revealing.purity.filter(|r| !(0.0..=1e6).contains(r)) {
                return option("purity", r.to_string(), "a number from 0 to 1e6");
            }
            if !masks {
                return option(
                    "purity",
                    revealing.purity.map_or("off".into(), |r| r.to_string()),
                    "a model whose noise masks tokens (this one only replaces them)",
                );
            }
        }
        if !masks && !self.order.is_independent() {
            let expected = "independent, since the model's noise masks no tokens";
            return option("order", order(), expected);
        }
        if !masks && self.rule.rule().mask_share(schedule) > 0.0 {
            return option(
                "rule",
                format!("{:?}", self.rule).to_lowercase(),
                "the exact rule, since the model's noise masks no tokens",
            );
        }
        Ok(())
    }
}
