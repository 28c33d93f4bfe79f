//! From what a client asks for, in whichever API, to an order that the model can fill.

use base64::prelude::{Engine, BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::ApiError;
use super::id::random_seed;
use super::jobs::Order;
use super::loose;
use super::model::Model;
use super::settings::{MOST_PICTURES, MOST_PIXELS, MOST_PROMPT};
use crate::diffusion::purity::Revealing;
use crate::diffusion::sampler::SamplerError;
use crate::diffusion::truncation::Truncation;
use crate::diffusion::{RevealOrder, Times};
use crate::picture::{dimensions, PictureError};
use crate::pipeline::{
    class_named, ConditionError, Edit, EditError, OptionsError, PictureOptions, Subject,
};
use crate::transformer::Conditioning;

/// How much is redrawn where other servers' clients do not say it and there is no mask.
pub const USUAL_STRENGTH: f64 = 0.75;

/// The options of `vqdiffusion sample`, by the same names, in every API.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
pub struct OwnOptions {
    /// What the pictures should not show.
    #[serde(default)]
    pub negative_prompt: Option<String>,
    /// Seed of the first picture; picture i has seed + i. Random if absent or negative.
    #[serde(default, deserialize_with = "loose::seed")]
    #[schema(value_type = Option<i64>)]
    pub seed: Option<u64>,
    /// Reverse steps, 1 to the model's diffusion steps.
    #[serde(default, deserialize_with = "loose::whole")]
    #[schema(value_type = Option<i64>)]
    pub steps: Option<i64>,
    /// Which times the steps visit: `even` or `cosine`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub times: Option<Times>,
    /// Which masked tokens are revealed in the same step: `independent`, or `halton`, an
    /// approximation.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub order: Option<RevealOrder>,
    /// Guidance scale; 1 is none.
    #[serde(default, deserialize_with = "loose::number")]
    #[schema(value_type = Option<f64>)]
    pub guidance: Option<f64>,
    /// Guidance only while the share of visible tokens is between these two.
    #[serde(default)]
    pub guidance_span: Option<[f64; 2]>,
    /// Steps after each full evaluation of the network that are local: faster, an
    /// approximation.
    #[serde(default, deserialize_with = "loose::whole")]
    #[schema(value_type = Option<i64>)]
    pub local_steps: Option<i64>,
    /// Keep the likeliest codes up to this share of the probability, above 0 to 1.
    #[serde(default, deserialize_with = "loose::number")]
    #[schema(value_type = Option<f64>)]
    pub truncation: Option<f64>,
    /// Keep this many likeliest codes.
    #[serde(default, deserialize_with = "loose::whole")]
    #[schema(value_type = Option<i64>)]
    pub top_k: Option<i64>,
    /// Reveal the purest predictions first, sharpened by this weight.
    #[serde(default, deserialize_with = "loose::number")]
    #[schema(value_type = Option<f64>)]
    pub purity: Option<f64>,
    /// Reveal at most this many tokens per evaluation of the network.
    #[serde(default, deserialize_with = "loose::whole")]
    #[schema(value_type = Option<i64>)]
    pub tokens_per_step: Option<i64>,
    /// How much to redraw of the picture that is started from, 0 to 1.
    #[serde(default, deserialize_with = "loose::number")]
    #[schema(value_type = Option<f64>)]
    pub strength: Option<f64>,
}

/// What a client asks for.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// A prompt, or a class by index or name.
    pub prompt: Option<String>,
    /// 1 if absent.
    pub count: Option<i64>,
    pub own: OwnOptions,
    /// The file to start from.
    pub image: Option<Vec<u8>>,
    /// The mask's file; white is redrawn.
    pub mask: Option<Vec<u8>>,
    pub previews: usize,
    /// Whether steps are events, and say the entropy.
    pub steps: bool,
    pub entropy: bool,
}

/// How what the model cannot do is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As the clients of other servers expect: it is left out.
    Lenient,
    /// It is an error.
    Strict,
}

impl Wish {
    /// The order for `model`.
    ///
    /// # Errors
    ///
    /// A field that cannot be so, by its name.
    pub fn order(self, model: &Model, manner: Manner) -> Result<Order, ApiError> {
        let count = self.count.unwrap_or(1);
        if !(1..=MOST_PICTURES as i64).contains(&count) {
            let message = format!("n is {count}, expected 1 to {MOST_PICTURES}");
            return Err(ApiError::field("n", message));
        }
        let subject = subject(self.prompt, model, manner)?;
        let mut options = model.usual().count(count as usize);
        options.seed = self.own.seed.unwrap_or_else(random_seed);
        options = self.own.apply(options, model, manner)?;
        if let Some(image) = &self.image {
            check_size(image, "image")?;
            let strength = self.own.strength.unwrap_or(1.0);
            let edit = Edit::of_bytes(image, "image").map_err(|e| picture(e, "image"))?;
            let edit = edit.strength(strength);
            let edit = match &self.mask {
                Some(mask) => {
                    check_size(mask, "mask")?;
                    edit.mask_bytes(mask, "mask")
                        .map_err(|e| picture(e, "mask"))?
                }
                None => edit,
            };
            // Only that is kept, with the job and in the history.
            let fitted = edit.fitted(&model.config);
            options.edit = Some(fitted.map_err(|e| fault(e.into()))?);
        } else if self.mask.is_some() {
            return Err(ApiError::field("mask", "a mask needs an image"));
        }
        let requests = options.requests(&[subject]).map_err(fault)?;
        loop {
            match options.plan(&model.config) {
                Ok(_) => break,
                Err(OptionsError::Unconditional { .. } | OptionsError::NullClass { .. })
                    if manner == Manner::Lenient =>
                {
                    options.guidance = 1.0;
                    options.negative_prompt = None;
                }
                Err(OptionsError::NegativePrompt | OptionsError::NothingToLeadFrom { .. })
                    if manner == Manner::Lenient =>
                {
                    options.negative_prompt = None;
                }
                Err(error) => return Err(fault(error)),
            }
        }
        Ok(Order {
            requests,
            options,
            previews: self.previews,
            steps: self.steps,
            entropy: self.entropy,
        })
    }
}

impl OwnOptions {
    fn apply(
        &self,
        mut options: PictureOptions,
        model: &Model,
        manner: Manner,
    ) -> Result<PictureOptions, ApiError> {
        // Below 0 as 0, which is refused.
        let tokens = self.tokens_per_step;
        let tokens = tokens.map(|tokens| usize::try_from(tokens).unwrap_or(0));
        if let Some(revealing) = Revealing::asked(self.purity, tokens) {
            options = options.revealing(revealing);
        }
        let timesteps = model.config.denoiser.timesteps;
        if let Some(steps) = self.steps {
            options.steps = match manner {
                Manner::Lenient => steps.clamp(1, timesteps) as usize,
                Manner::Strict => usize::try_from(steps).map_err(|_| {
                    let message = format!("steps is {steps}, expected 1 to {timesteps}");
                    ApiError::field("steps", message)
                })?,
            };
        }
        options.times = self.times.unwrap_or(options.times);
        options.order = self.order.unwrap_or(options.order);
        options.guidance = self.guidance.unwrap_or(options.guidance);
        options.guidance_span = self.guidance_span.or(options.guidance_span);
        if let Some(steps) = self.local_steps {
            options.local_steps = usize::try_from(steps).map_err(|_| {
                let message = format!("local_steps is {steps}, expected 0 or more");
                ApiError::field("local_steps", message)
            })?;
        }
        options.truncation = match (self.top_k, self.truncation) {
            (Some(_), Some(_)) => {
                let message = "top_k and truncation exclude each other";
                return Err(ApiError::field("top_k", message));
            }
            (Some(codes), None) => Some(Truncation::TopK(codes)),
            (None, Some(rate)) => Some(Truncation::TopP(rate)),
            (None, None) => None,
        };
        let negative = self.negative_prompt.clone();
        options.negative_prompt = negative.filter(|prompt| !prompt.trim().is_empty());
        check_length(&options.negative_prompt, "negative_prompt")?;
        Ok(options)
    }
}

fn check_length(text: &Option<String>, param: &str) -> Result<(), ApiError> {
    let length = text.as_ref().map_or(0, |text| text.chars().count());
    if length > MOST_PROMPT {
        let message = format!("{param} has {length} characters, expected at most {MOST_PROMPT}");
        return Err(ApiError::field(param, message));
    }
    // No PNG holds it.
    if text.as_ref().is_some_and(|text| text.contains('\0')) {
        let message = format!("{param} holds a NUL character");
        return Err(ApiError::field(param, message));
    }
    Ok(())
}

fn subject(prompt: Option<String>, model: &Model, manner: Manner) -> Result<Subject, ApiError> {
    check_length(&prompt, "prompt")?;
    let missing = |what: &str| ApiError::field("prompt", format!("prompt is missing: {what}"));
    match model.config.denoiser.condition {
        Conditioning::Text { .. } => match prompt {
            Some(prompt) => Ok(Subject::Text(prompt)),
            None => Err(missing("what the picture should show")),
        },
        Conditioning::Class { classes, .. } => {
            let Some(name) = prompt else {
                return Err(missing(&format!("a class, 0 to {}", classes - 1)));
            };
            let class = match name.trim().parse() {
                Ok(index) if (0..classes).contains(&index) => Ok(index),
                Ok(class) => Err(ConditionError::Class { class, classes }.to_string()),
                Err(_) => class_named(&name, classes).map_err(|e| e.to_string()),
            };
            let class = class.map_err(|message| ApiError::field("prompt", message))?;
            Ok(Subject::Class(class))
        }
        Conditioning::Unconditional if manner == Manner::Strict && prompt.is_some() => {
            let message = "the model is unconditional: it takes no prompt";
            Err(ApiError::field("prompt", message))
        }
        Conditioning::Unconditional => Ok(Subject::Anything),
    }
}

/// Refuses a picture that is too large, before it is decoded.
pub fn check_size(bytes: &[u8], param: &str) -> Result<(), ApiError> {
    let wrong = |message: String| Err(ApiError::field(param, format!("{param}: {message}")));
    match dimensions(bytes) {
        Err(problem) => wrong(problem.to_string()),
        Ok([width, height]) if u64::from(width) * u64::from(height) > MOST_PIXELS => wrong(
            format!("{width} by {height} pixels, expected at most {MOST_PIXELS} in all"),
        ),
        Ok(_) => Ok(()),
    }
}

/// The file in `text`: base64, alone or as a data URL. Nothing is fetched.
pub fn base64_file(text: &str, param: &str) -> Result<Vec<u8>, ApiError> {
    let data = match text.split_once(',') {
        Some((head, data)) if head.starts_with("data:") => data,
        _ => text,
    };
    let data: String = data.split_ascii_whitespace().collect();
    let wrong = || ApiError::field(param, format!("{param} is not base64 of a picture's file"));
    BASE64_STANDARD.decode(data).map_err(|_| wrong())
}

fn picture(error: PictureError, param: &str) -> ApiError {
    ApiError::field(param, format!("{param}: {}", error.problem))
}

/// What is wrong with options, by the field's name.
fn fault(error: OptionsError) -> ApiError {
    let param = match &error {
        OptionsError::Sampler(SamplerError::Option { option, .. }) => match *option {
            "guidance span" => "guidance_span",
            "local steps" => "local_steps",
            "top-k" => "top_k",
            "tokens per evaluation" => "tokens_per_step",
            option => option,
        },
        OptionsError::Sampler(_) => "steps",
        OptionsError::Edit(EditError::EmptyMask { .. }) => "mask",
        OptionsError::Edit(_) => "image",
        OptionsError::Unconditional { .. } | OptionsError::NullClass { .. } => "guidance",
        OptionsError::LocalSteps { .. } => "local_steps",
        OptionsError::NegativePrompt | OptionsError::NothingToLeadFrom { .. } => "negative_prompt",
        OptionsError::Seed { .. } => "seed",
    };
    ApiError::field(param, error.to_string())
}
