//! Arguments that say how a picture is sampled.

use clap::{Args, ValueEnum};
use tch::Device;

use super::arguments::whole;
use super::choices;
use crate::codec::Rounding;
use crate::diffusion::purity::Revealing;
use crate::diffusion::truncation::Truncation;
use crate::diffusion::{RevealOrder, ReverseRule, Times};
use crate::model::ModelConfig;
use crate::pipeline::PictureOptions;
use crate::torch::device::Precision;

#[derive(Args)]
pub struct SamplerArgs {
    /// Reverse steps, 1 to the model's diffusion steps [default: the model's own
    /// choice, else all of them].
    #[arg(long, value_parser = whole::<usize>(0..=u32::MAX.into()))]
    steps: Option<usize>,

    /// Which times the steps visit: few tokens first and many at the end need fewer steps.
    /// Every choice is exact for each token [default: the model's own choice, else even].
    #[arg(long, value_parser = choices::times())]
    times: Option<Times>,

    /// Which masked tokens are revealed in the same step. An approximation unless independent:
    /// each token by itself is revealed as in the exact process, but not each independently of
    /// the others [default: the model's own choice, else independent].
    #[arg(long, value_parser = choices::order())]
    order: Option<RevealOrder>,

    /// Guidance scale; 1 is none [default: the model's own choice, else 5 with a learned null
    /// text, 1.5 with a learned null class, 1 for others].
    #[arg(long)]
    guidance: Option<f64>,

    /// An approximation of guidance throughout: apply it only while the share of visible tokens
    /// is from A to B, each from 0 to 1; at other steps the network is asked once instead of
    /// twice [default: the model's own choice, else 0..1].
    #[arg(long, value_name = "A..B", value_parser = span)]
    guidance_span: Option<Span>,

    /// An approximation: after each full evaluation of the network, N steps are evaluated at
    /// the tokens alone that these steps reveal, on the keys and values that all others had
    /// then. The first third of the steps is always full. For models whose feed-forward part
    /// treats tokens one by one [default: 0, all steps full].
    #[arg(long, value_name = "N", value_parser = whole::<usize>(0..=u32::MAX.into()))]
    local_steps: Option<usize>,

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
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..=u32::MAX.into()))]
    tokens_per_step: Option<usize>,

    /// Follow the rules of an original implementation.
    #[arg(long, value_enum)]
    compat: Option<Compat>,

    /// Number format of the network [default: bf16 where the device computes in it natively, else f32].
    #[arg(long, value_parser = choices::precision())]
    dtype: Option<Precision>,

    /// Number format of the codec's decoder [default: f32].
    #[arg(long, value_parser = choices::precision())]
    decode_dtype: Option<Precision>,
}

/// Two shares.
type Span = [f64; 2];

fn span(text: &str) -> Result<Span, String> {
    let (from, to) = text
        .split_once("..")
        .ok_or("expected A..B, such as 0.1..0.9")?;
    let share = |text: &str| text.trim().parse().map_err(|e| format!("{text:?}: {e}"));
    Ok([share(from)?, share(to)?])
}

/// Whose rules to follow; only a name for option values.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Compat {
    /// The official code: its reverse rule, and 8-bit values cut off instead of rounded.
    Official,
    /// diffusers' VQDiffusionPipeline.
    Diffusers,
}

impl SamplerArgs {
    /// How pictures of `model` are made: what is asked for, else as usual.
    pub fn options(&self, model: &ModelConfig) -> PictureOptions {
        self.apply(PictureOptions::usual(model), model)
    }

    /// `options` with what is asked for.
    pub fn apply(&self, mut options: PictureOptions, model: &ModelConfig) -> PictureOptions {
        match self.compat {
            None => {}
            Some(Compat::Official) => {
                options = options.rule(ReverseRule::Official);
                options.rounding = Rounding::Truncate;
            }
            Some(Compat::Diffusers) => {
                options = options.rule(ReverseRule::Diffusers);
                options.truncation = Some(Truncation::Off);
                if model.text.is_some() {
                    options.guidance = 5.0;
                }
            }
        }
        if let Some(revealing) = Revealing::asked(self.purity, self.tokens_per_step) {
            options = options.revealing(revealing);
        }
        if let Some(steps) = self.steps {
            options.steps = steps;
        }
        if let Some(times) = self.times {
            options.times = times;
        }
        if let Some(order) = self.order {
            options.order = order;
        }
        if let Some(span) = self.guidance_span {
            options.guidance_span = Some(span);
        }
        if let Some(steps) = self.local_steps {
            options.local_steps = steps;
        }
        if let Some(guidance) = self.guidance {
            options.guidance = guidance;
        }
        match (self.top_k, self.truncation) {
            (Some(k), _) => options.truncation = Some(Truncation::TopK(k)),
            (None, Some(rate)) => options.truncation = Some(Truncation::TopP(rate)),
            (None, None) => {}
        }
        if let Some(precision) = self.decode_dtype {
            options.decoding = precision;
        }
        options
    }

    /// Number format of the network on `device`.
    pub fn dtype(&self, device: Device) -> Precision {
        self.dtype.unwrap_or_else(|| Precision::native(device))
    }
}
