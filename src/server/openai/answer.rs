//! What OpenAI's clients say of the answer, and the answer.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::server::error::ApiError;
use crate::server::jobs::Made;
use crate::server::loose;
use crate::server::shown::{base64, size_of, Format, Shown};

/// What is said of the answer, in generations and edits alike. Fields that are not here are
/// ignored.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct AnswerOptions {
    /// WIDTHxHEIGHT to fit into; the model's own size if absent or `auto`.
    #[serde(default)]
    pub size: Option<String>,
    /// `png` or `jpeg`.
    #[serde(default)]
    pub output_format: Option<String>,
    /// Quality of a JPEG, 0 to 100.
    #[serde(default, deserialize_with = "loose::whole")]
    #[schema(value_type = Option<i64>)]
    pub output_compression: Option<i64>,
    /// `opaque` or `auto`.
    #[serde(default)]
    pub background: Option<String>,
    /// Whether to answer with a stream of events.
    #[serde(default, deserialize_with = "loose::flag")]
    #[schema(value_type = Option<bool>)]
    pub stream: Option<bool>,
    /// Unfinished pictures in the stream, 0 to 3.
    #[serde(default, deserialize_with = "loose::whole")]
    #[schema(value_type = Option<i64>)]
    pub partial_images: Option<i64>,
}

impl AnswerOptions {
    /// How pictures are to be given.
    ///
    /// # Errors
    ///
    /// What this server cannot do.
    pub fn shown(&self) -> Result<Shown, ApiError> {
        if self.background.as_deref() == Some("transparent") {
            let message = "background is transparent, expected opaque or auto";
            return Err(ApiError::field("background", message));
        }
        let compression = self.output_compression.unwrap_or(100);
        if !(0..=100).contains(&compression) {
            let message = format!("output_compression is {compression}, expected 0 to 100");
            return Err(ApiError::field("output_compression", message));
        }
        let format = match self.output_format.as_deref() {
            None | Some("" | "png" | "auto") => Format::Png,
            Some("jpeg" | "jpg") => Format::Jpeg((compression as u8).clamp(1, 95)),
            Some(other) => {
                let message = format!("output_format is {other:?}, expected png or jpeg");
                return Err(ApiError::field("output_format", message));
            }
        };
        let within = match self.size.as_deref().map(str::trim) {
            None | Some("" | "auto") => None,
            Some(size) => {
                let sides = size.split_once(['x', 'X']);
                let sides = sides.and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
                let wrong = || {
                    let message = format!("size is {size:?}, expected auto or WIDTHxHEIGHT");
                    ApiError::field("size", message)
                };
                let (width, height) = sides.ok_or_else(wrong)?;
                Some(size_of(width, height, "size")?)
            }
        };
        Ok(Shown { format, within })
    }

    pub fn streams(&self) -> bool {
        self.stream == Some(true)
    }

    /// Unfinished pictures that are wanted.
    ///
    /// # Errors
    ///
    /// More than three.
    pub fn partial(&self) -> Result<usize, ApiError> {
        let partial = self.partial_images.unwrap_or(0);
        match (0..=3).contains(&partial) {
            true if self.streams() => Ok(partial as usize),
            true => Ok(0),
            false => {
                let message = format!("partial_images is {partial}, expected 0 to 3");
                Err(ApiError::field("partial_images", message))
            }
        }
    }
}

#[derive(Serialize, ToSchema)]
pub struct ImagesAnswer {
    /// Seconds since 1970.
    pub created: u64,
    pub background: &'static str,
    pub data: Vec<ImageData>,
    pub output_format: &'static str,
    pub quality: &'static str,
    /// The true size.
    pub size: String,
    pub usage: Usage,
}

#[derive(Serialize, ToSchema)]
pub struct ImageData {
    /// The picture's file.
    pub b64_json: String,
    /// Ours: what repeats the picture.
    pub seed: u64,
}

/// Text positions of the prompts, image tokens of the pictures.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Usage {
    pub input_tokens: usize,
    pub input_tokens_details: InputTokens,
    pub output_tokens: usize,
    pub total_tokens: usize,
}

#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct InputTokens {
    pub image_tokens: usize,
    pub text_tokens: usize,
}

impl Usage {
    pub fn of(made: &[Arc<Made>]) -> Self {
        let text: usize = made.iter().map(|made| made.prompt_tokens).sum();
        let output: usize = made.iter().map(|made| made.picture.tokens.len()).sum();
        let started = made.iter().filter(|made| made.options.edit.is_some());
        let image: usize = started.map(|made| made.picture.tokens.len()).sum();
        Usage {
            input_tokens: text + image,
            input_tokens_details: InputTokens {
                image_tokens: image,
                text_tokens: text,
            },
            output_tokens: output,
            total_tokens: text + image + output,
        }
    }
}

impl ImagesAnswer {
    pub fn new(made: &[Arc<Made>], shown: Shown, own: [u32; 2]) -> Result<Self, ApiError> {
        let data = made.iter().map(|made| {
            Ok(ImageData {
                b64_json: base64(&shown.file(made)?),
                seed: made.picture.record.request.seed,
            })
        });
        let [width, height] = shown.size(own);
        Ok(ImagesAnswer {
            created: made.last().map_or(0, |made| made.created),
            background: "opaque",
            data: data.collect::<Result<_, ApiError>>()?,
            output_format: shown.format.name(),
            quality: "auto",
            size: format!("{width}x{height}"),
            usage: Usage::of(made),
        })
    }
}
