//! `POST /v1/images/generations`, and what edits have in common with it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::Json;
use serde::Deserialize;
use utoipa::ToSchema;

use super::answer::{AnswerOptions, ImagesAnswer};
use super::stream;
use crate::server::blocking::blocking;
use crate::server::body::{Admitted, Sent};
use crate::server::error::{ApiError, Failures};
use crate::server::jobs::{CancelOnDrop, Job, Place};
use crate::server::loose;
use crate::server::model::needed;
use crate::server::state::Shared;
use crate::server::wish::{Manner, OwnOptions, Wish};

/// Pictures to make. Any `model` is accepted; fields that are not here are ignored.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Generation {
    /// What to show; a class by index or name for models of classes.
    #[serde(default)]
    pub prompt: Option<String>,
    /// Pictures, 1 to 10.
    #[serde(default, deserialize_with = "loose::whole")]
    #[schema(value_type = Option<i64>)]
    pub n: Option<i64>,
    #[serde(flatten)]
    pub answer: AnswerOptions,
    #[serde(flatten)]
    pub own: OwnOptions,
}

/// Makes pictures.
#[utoipa::path(post, path = "/v1/images/generations", tag = "openai",
    request_body = Generation,
    responses((status = 200, description = "Pictures; a stream of events if asked for",
        content((ImagesAnswer = "application/json"), (String = "text/event-stream"))), Failures))]
pub async fn make(
    State(server): State<Shared>,
    Admitted(place): Admitted,
    Sent(generation): Sent<Generation>,
) -> Result<Response, ApiError> {
    let Generation {
        prompt,
        n,
        answer,
        own,
    } = generation;
    let wish = Wish {
        prompt,
        count: n,
        own,
        ..Wish::default()
    };
    answered(server, place, wish, answer, "image_generation").await
}

/// The answer of `wish`; events begin with `kind`.
pub async fn answered(
    server: Shared,
    place: Place,
    mut wish: Wish,
    answer: AnswerOptions,
    kind: &'static str,
) -> Result<Response, ApiError> {
    let model = needed(&server.model)?.clone();
    let shown = answer.shown()?;
    wish.previews = answer.partial()?;
    let order = {
        let model = model.clone();
        blocking(move || wish.order(&model, Manner::Lenient)).await?
    };
    let job = Arc::new(Job::new(order, place));
    model.queue.add(job.clone());
    let guard = CancelOnDrop(job.clone());
    if answer.streams() {
        return Ok(stream::answer(guard, shown, model.size(), kind));
    }
    let made = job.finished().await?;
    let own = model.size();
    let answer = blocking(move || ImagesAnswer::new(&made, shown, own)).await?;
    Ok(Json(answer).into_response())
}
