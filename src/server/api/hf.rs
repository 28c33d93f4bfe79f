//! What `huggingface_hub.InferenceClient(".../api/hf").text_to_image` sends.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::server::blocking::blocking;
use crate::server::body::{Admitted, Sent};
use crate::server::error::{ApiError, Failures};
use crate::server::jobs::{CancelOnDrop, Job};
use crate::server::loose;
use crate::server::model::needed;
use crate::server::shown::{size_of, Format, Shown};
use crate::server::state::Shared;
use crate::server::wish::{Manner, OwnOptions, Wish};

/// A picture to make.
#[derive(Debug, Deserialize, ToSchema)]
pub struct TextToImage {
    /// What to show.
    pub inputs: String,
    #[serde(default)]
    pub parameters: Parameters,
}

/// Options by the names of that client; ours by their own.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Parameters {
    #[serde(default, deserialize_with = "loose::whole")]
    #[schema(value_type = Option<i64>)]
    width: Option<i64>,
    #[serde(default, deserialize_with = "loose::whole")]
    #[schema(value_type = Option<i64>)]
    height: Option<i64>,
    #[serde(default, deserialize_with = "loose::whole")]
    #[schema(value_type = Option<i64>)]
    num_inference_steps: Option<i64>,
    #[serde(default, deserialize_with = "loose::number")]
    #[schema(value_type = Option<f64>)]
    guidance_scale: Option<f64>,
    #[serde(flatten)]
    own: OwnOptions,
}

/// Makes a picture.
#[utoipa::path(post, path = "/api/hf", tag = "api", request_body = TextToImage,
    responses((status = 200, body = Vec<u8>, content_type = "image/png"), Failures))]
pub async fn make(
    State(server): State<Shared>,
    Admitted(place): Admitted,
    Sent(request): Sent<TextToImage>,
) -> Result<Response, ApiError> {
    let model = needed(&server.model)?.clone();
    let TextToImage { inputs, parameters } = request;
    let own_size = model.size().map(i64::from);
    let within = match (parameters.width, parameters.height) {
        (None, None) => None,
        (width, height) => {
            let size = [width.unwrap_or(own_size[0]), height.unwrap_or(own_size[1])];
            Some(size_of(size[0], size[1], "width")?)
        }
    };
    let own = parameters.own;
    let wish = Wish {
        prompt: Some(inputs),
        own: OwnOptions {
            steps: parameters.num_inference_steps.or(own.steps),
            guidance: parameters.guidance_scale.or(own.guidance),
            ..own
        },
        ..Wish::default()
    };
    let job = Arc::new(Job::new(wish.order(&model, Manner::Lenient)?, place));
    let _guard = CancelOnDrop(job.clone());
    model.queue.add(job.clone());
    let made = job.finished().await?;
    let made = made.into_iter().next().ok_or_else(ApiError::internal)?;
    let format = Format::Png;
    let file = blocking(move || Shown { format, within }.file(&made)).await?;
    Ok(([(CONTENT_TYPE, format.media_type())], file).into_response())
}
