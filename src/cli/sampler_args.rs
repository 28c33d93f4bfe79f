//! Arguments that say how a picture is sampled.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::codec::Rounding;
use crate::diffusion::purity::Revealing;
use crate::diffusion::truncation::Truncation;
use crate::diffusion::{ReverseRule, SamplerConfig, Times};
use crate::model::ModelConfig;
use crate::torch::device::Precision;

#[derive(Args)]
pub struct SamplerArgs {
    /// Reverse steps, 1 to the model's diffusion steps [default: the model's own
    /// choice, else all of them].
    #[arg(long)]
    steps: Option<usize>,

    /// Guidance scale; 1 is none [default: the model's own choice, else 5 with a learned null
    /// text, 1.5 with a learned null class, 1 for others].
    #[arg(long)]
    guidance: Option<f64>,

    /// Keep the likeliest codes up to this share of the probability, in (0, 1];
    /// 1 keeps all [default: the model's own choice, else 1 with a learned null text, 0.94
    /// for classes with guidance, 0.86 for others].
    #[arg(long, value_name = "RATE", conflicts_with = "top_k")]
    truncation: Option<f64>,

    /// Keep this many likeliest codes.
    #[arg(long, value_name = "K")]
    top_k: Option<i64>,

    /// Reveal a fixed number of tokens a step, the purest predictions first, and
    /// sharpen predictions by this weight (0 or more).
    #[arg(long, value_name = "WEIGHT")]
    purity: Option<f64>,

    /// Reveal at most this many tokens per evaluation of the network (high-quality
    /// inference: fewer tokens, more evaluations).
    #[arg(long, value_name = "N")]
    tokens_per_step: Option<usize>,

    /// Follow the rules of an original implementation.
    #[arg(long, value_enum)]
    compat: Option<Compat>,

    /// Number format of the network [default: bf16 where the device computes in it natively, else f32].
    #[arg(long, value_enum)]
    dtype: Option<Precision>,
}

/// Whose rules to follow; only a name for option values.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Compat {
    /// The official code: its reverse rule, and 8-bit values cut off instead of rounded.
    Official,
    /// diffusers' VQDiffusionPipeline.
    Diffusers,
}

/// Everything in a PNG that repeats it, besides prompt, seed and model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    pub sampler: SamplerConfig,
    pub rounding: Rounding,
    pub dtype: Precision,
}

impl SamplerArgs {
    /// Every choice made for `model` on `device`.
    pub fn options(&self, model: &ModelConfig, device: tch::Device) -> Options {
        let usual = model.usual_guidance();
        let (rule, rounding, guidance) = match self.compat {
            None => (ReverseRule::Exact, Rounding::Nearest, usual),
            Some(Compat::Official) => (ReverseRule::Official, Rounding::Truncate, usual),
            Some(Compat::Diffusers) => {
                let guidance = if model.text.is_some() { 5.0 } else { usual };
                (ReverseRule::Diffusers, Rounding::Nearest, guidance)
            }
        };
        let guidance = self.guidance.unwrap_or(guidance);
        let rate = match self.compat {
            Some(Compat::Diffusers) => 1.0,
            _ => model.usual_truncation(guidance),
        };
        let truncation = match (self.top_k, self.truncation.unwrap_or(rate)) {
            (Some(k), _) => Truncation::TopK(k),
            // The official top1.0r drops codes by rounding alone; it is kept as it is.
            (None, 1.0) if rule != ReverseRule::Official => Truncation::Off,
            (None, rate) => Truncation::TopP(rate),
        };
        let revealing =
            (self.purity.is_some() || self.tokens_per_step.is_some()).then(|| Revealing {
                purity: self.purity,
                tokens_per_evaluation: self.tokens_per_step.unwrap_or(usize::MAX),
            });
        Options {
            sampler: SamplerConfig {
                steps: self.steps.unwrap_or(model.usual_steps()),
                times: Times::Even,
                guidance,
                guidance_span: None,
                truncation,
                revealing,
                rule,
            },
            rounding,
            dtype: self.dtype.unwrap_or_else(|| Precision::native(device)),
        }
    }
}
