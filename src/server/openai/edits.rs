//! `POST /v1/images/edits`: a form with a picture, and a mask whose transparent pixels are
//! redrawn.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::answer::{AnswerOptions, ImagesAnswer};
use super::generations::answered;
use crate::picture::{png_bytes, transparent};
use crate::server::blocking::blocking;
use crate::server::body::{from_value, Admitted, Form};
use crate::server::error::{ApiError, Failures};
use crate::server::loose;
use crate::server::state::Shared;
use crate::server::wish::{check_size, OwnOptions, Wish, USUAL_STRENGTH};

/// A picture to start from. Any `model` is accepted; fields that are not here are ignored.
#[derive(ToSchema)]
#[allow(dead_code)]
pub struct EditForm {
    /// PNG, JPEG, WebP or GIF; of a list, the first.
    #[schema(value_type = String, format = Binary)]
    image: Vec<u8>,
    /// Redrawn where it is transparent; the picture itself if it has such pixels.
    #[schema(value_type = Option<String>, format = Binary)]
    mask: Option<Vec<u8>>,
    #[schema(inline)]
    prompt: Option<String>,
    /// Pictures, 1 to 10.
    n: Option<i64>,
    size: Option<String>,
    output_format: Option<String>,
    stream: Option<bool>,
    partial_images: Option<i64>,
    seed: Option<i64>,
    steps: Option<i64>,
    guidance: Option<f64>,
    truncation: Option<f64>,
    negative_prompt: Option<String>,
    strength: Option<f64>,
}

#[derive(Deserialize)]
struct Texts {
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default, deserialize_with = "loose::whole")]
    n: Option<i64>,
    #[serde(flatten)]
    answer: AnswerOptions,
    #[serde(flatten)]
    own: OwnOptions,
}

/// Redraws a picture, or a part of it.
#[utoipa::path(post, path = "/v1/images/edits", tag = "openai",
    request_body(content = EditForm, content_type = "multipart/form-data"),
    responses((status = 200, description = "Pictures; a stream of events if asked for",
        content((ImagesAnswer = "application/json"), (String = "text/event-stream"))), Failures))]
pub async fn make(
    State(server): State<Shared>,
    Admitted(place): Admitted,
    form: Form,
) -> Result<Response, ApiError> {
    let Form { texts, files } = form;
    let Texts {
        prompt,
        n,
        answer,
        mut own,
    } = from_value(Value::Object(texts))?;
    let (mut image, mut mask) = (None, None);
    for (name, bytes) in files {
        match name.as_str() {
            "image" | "image[]" => image = image.or(Some(bytes)),
            "mask" => mask = Some(bytes),
            _ => {}
        }
    }
    let image = image.ok_or_else(|| ApiError::field("image", "image is missing"))?;
    let (image, mask) = blocking(move || {
        let mask = match mask {
            Some(mask) => Some(white_where_transparent(&mask, "mask")?),
            None => white_where_transparent(&image, "image").ok(),
        };
        Ok((image, mask))
    })
    .await?;
    if mask.is_none() {
        own.strength = own.strength.or(Some(USUAL_STRENGTH));
    }
    let wish = Wish {
        prompt,
        count: n,
        own,
        image: Some(image),
        mask,
        ..Wish::default()
    };
    answered(server, place, wish, answer, "image_edit").await
}

/// The mask whose white is where `bytes` are transparent.
fn white_where_transparent(bytes: &[u8], param: &str) -> Result<Vec<u8>, ApiError> {
    check_size(bytes, param)?;
    let wrong = |message: String| ApiError::field(param, format!("{param}: {message}"));
    let mask = transparent(bytes).map_err(|problem| wrong(problem.to_string()))?;
    if !mask.selected.contains(&true) {
        let message = "no pixel is transparent, expected alpha 0 where to redraw";
        return Err(wrong(message.into()));
    }
    png_bytes(&mask.to_picture(), &[]).map_err(|_| ApiError::internal())
}
