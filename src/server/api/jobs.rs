//! Jobs: made, followed, come back to, given up.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::Json;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::picture::{png_bytes, Mask};
use crate::server::blocking::blocking;
use crate::server::body::{Admitted, Sent};
use crate::server::error::{ApiError, Failures};
use crate::server::history::Kept;
use crate::server::jobs::{Event, Job, Preview};
use crate::server::loose;
use crate::server::model::{needed, Model};
use crate::server::shown::{Format, Shown};
use crate::server::state::Shared;
use crate::server::streams;
use crate::server::wish::{base64_file, Manner, OwnOptions, Wish};

/// Pictures to make. Fields that are not here are refused, and so is what the model cannot
/// do.
#[derive(Debug, Deserialize, ToSchema)]
pub struct JobRequest {
    /// What to show; a class by index or name for models of classes.
    #[serde(default)]
    pub prompt: Option<String>,
    /// Pictures, 1 to 10.
    #[serde(default, deserialize_with = "loose::whole")]
    #[schema(value_type = Option<i64>)]
    pub n: Option<i64>,
    /// The id of a picture to start from; its own tokens are kept where nothing is redrawn.
    #[serde(default)]
    pub picture: Option<String>,
    /// A picture to start from instead, as base64 of its file.
    #[serde(default)]
    pub image: Option<String>,
    /// Base64 of a mask's file; redrawn where it is white.
    #[serde(default)]
    pub mask: Option<String>,
    /// Tokens to redraw instead, by position in the token grid, row by row.
    #[serde(default)]
    pub redraw: Option<Vec<usize>>,
    /// Whether the steps say the entropy of what was drawn.
    #[serde(default, deserialize_with = "loose::flag")]
    #[schema(value_type = Option<bool>)]
    pub entropy: Option<bool>,
    /// Unfinished pictures of each, 0 to 3.
    #[serde(default, deserialize_with = "loose::whole")]
    #[schema(value_type = Option<i64>)]
    pub previews: Option<i64>,
    #[serde(flatten)]
    pub own: OwnOptions,
    #[serde(flatten)]
    #[schema(ignore)]
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

/// Where a job is.
#[derive(Serialize, ToSchema)]
pub struct JobState {
    pub id: String,
    /// `queued`, `running`, `done`, `error` or `cancelled`.
    pub state: &'static str,
    /// Jobs before it, while it is queued.
    pub position: Option<usize>,
    /// Pictures asked for.
    pub n: usize,
    /// Seed of the first.
    pub seed: u64,
    /// Ids of the finished pictures.
    pub pictures: Vec<String>,
    /// What ended it.
    pub error: Option<String>,
}

impl JobState {
    fn of(job: &Job) -> Self {
        let (mut state, mut position, mut error) = ("queued", None, None);
        for event in job.events() {
            (state, position) = match event.as_ref() {
                Event::Queued { position } => ("queued", Some(*position)),
                Event::Step(_) | Event::Preview(_) | Event::Picture { .. } => ("running", None),
                Event::Done => ("done", None),
                Event::Cancelled => ("cancelled", None),
                Event::Error(why) => {
                    error = Some(why.message.clone());
                    ("error", None)
                }
            };
        }
        JobState {
            id: job.id.clone(),
            state,
            position,
            n: job.order.requests.len(),
            seed: job.order.options.seed,
            pictures: job
                .pictures()
                .iter()
                .map(|(_, made)| made.id.clone())
                .collect(),
            error,
        }
    }
}

/// Makes a job. It goes on when the client goes away.
#[utoipa::path(post, path = "/api/jobs", tag = "api", request_body = JobRequest,
    responses((status = 202, body = JobState), Failures))]
pub async fn create(
    State(server): State<Shared>,
    Admitted(place): Admitted,
    Sent(request): Sent<JobRequest>,
) -> Result<(StatusCode, Json<JobState>), ApiError> {
    let model = needed(&server.model)?.clone();
    let order = {
        let model = model.clone();
        blocking(move || wish(request, &model)?.order(&model, Manner::Strict)).await?
    };
    let job = Arc::new(Job::new(order, place));
    model.history.keep_job(&job);
    model.queue.add(job.clone());
    Ok((StatusCode::ACCEPTED, Json(JobState::of(&job))))
}

fn wish(request: JobRequest, model: &Model) -> Result<Wish, ApiError> {
    if let Some(field) = request.unknown.keys().next() {
        return Err(ApiError::field(
            field,
            format!("there is no field {field:?}"),
        ));
    }
    let previews = request.previews.unwrap_or(0);
    if !(0..=3).contains(&previews) {
        let message = format!("previews is {previews}, expected 0 to 3");
        return Err(ApiError::field("previews", message));
    }
    let image = match (&request.picture, &request.image) {
        (Some(_), Some(_)) => {
            let message = "picture and image exclude each other";
            return Err(ApiError::field("picture", message));
        }
        (Some(id), None) => {
            let missing = || ApiError::field("picture", "there is no such picture");
            Some(match model.history.find(id).ok_or_else(missing)? {
                Kept::Made(made) => made.png().map_err(|_| ApiError::internal())?.to_vec(),
                Kept::Filed(filed) => filed.png().ok_or_else(missing)?,
            })
        }
        (None, Some(image)) => Some(base64_file(image, "image")?),
        (None, None) => None,
    };
    let mask = match (&request.redraw, &request.mask) {
        (Some(_), Some(_)) => {
            let message = "redraw and mask exclude each other";
            return Err(ApiError::field("redraw", message));
        }
        (Some(tokens), None) => Some(mask_of(tokens, model)?),
        (None, Some(mask)) => Some(base64_file(mask, "mask")?),
        (None, None) => None,
    };
    if image.is_none() && mask.is_some() {
        let message = "a mask or tokens to redraw need a picture or an image";
        return Err(ApiError::field("picture", message));
    }
    if image.is_some() && mask.is_none() && request.own.strength.is_none() {
        let message = "strength is missing: how much of the picture to redraw, 0 to 1; \
                       or give redraw or mask";
        return Err(ApiError::field("strength", message));
    }
    Ok(Wish {
        prompt: request.prompt,
        count: request.n,
        own: request.own,
        image,
        mask,
        previews: previews as usize,
        steps: true,
        entropy: request.entropy.unwrap_or(false),
    })
}

/// A mask with a pixel for each token.
fn mask_of(tokens: &[usize], model: &Model) -> Result<Vec<u8>, ApiError> {
    let [rows, columns] = model.config.denoiser.grid;
    let mut mask = Mask {
        width: columns as u32,
        height: rows as u32,
        selected: vec![false; (rows * columns) as usize],
    };
    for &token in tokens {
        let most = mask.selected.len() - 1;
        let cell = mask.selected.get_mut(token).ok_or_else(|| {
            let message = format!("redraw has {token}, expected tokens 0 to {most}");
            ApiError::field("redraw", message)
        })?;
        *cell = true;
    }
    png_bytes(&mask.to_picture(), &[]).map_err(|_| ApiError::internal())
}

fn job(server: &Shared, id: &str) -> Result<Arc<Job>, ApiError> {
    let job = needed(&server.model)?.history.job(id);
    job.ok_or_else(|| ApiError::not_found("job"))
}

/// Where a job is.
#[utoipa::path(get, path = "/api/jobs/{id}", tag = "api",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, body = JobState), Failures))]
pub async fn show(
    State(server): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<JobState>, ApiError> {
    Ok(Json(JobState::of(&*job(&server, &id)?)))
}

/// Gives a job up, a running one before its next step.
#[utoipa::path(delete, path = "/api/jobs/{id}", tag = "api",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, body = JobState), Failures))]
pub async fn cancel(
    State(server): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<JobState>, ApiError> {
    let job = job(&server, &id)?;
    job.cancel();
    Ok(Json(JobState::of(&job)))
}

/// What happens to a job, from its beginning, or behind the event that Last-Event-ID names:
/// `queued`, `step`, `preview`, `picture`, `done`, `error`, `cancelled`.
#[utoipa::path(get, path = "/api/jobs/{id}/events", tag = "api",
    params(("id" = String, Path, description = "Its id"),
        ("Last-Event-ID" = Option<u64>, Header, description = "The last event that is known")),
    responses((status = 200, body = String, content_type = "text/event-stream"), Failures))]
pub async fn events(
    State(server): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let job = job(&server, &id)?;
    let last = headers
        .get("last-event-id")
        .and_then(|last| last.to_str().ok());
    let next = last.and_then(|last| last.parse::<usize>().ok());
    let next = next.map_or(0, |last| last.saturating_add(1));
    let events = stream::unfold((job, next), |(job, next)| async move {
        let event = job.event(next).await?;
        let sent = streams::event(event.name(), &event.data()).id(next.to_string());
        Some((Ok::<_, Infallible>(sent), (job, next + 1)))
    });
    Ok(streams::answer(events))
}

/// An unfinished picture of a job.
#[utoipa::path(get, path = "/api/jobs/{id}/previews/{picture}/{index}", tag = "api",
    params(("id" = String, Path, description = "The job's id"),
        ("picture" = usize, Path, description = "Which picture of the job, from 0"),
        ("index" = usize, Path, description = "Which preview of it, from 0")),
    responses((status = 200, body = Vec<u8>, content_type = "image/png"), Failures))]
pub async fn preview(
    State(server): State<Shared>,
    Path((id, picture, index)): Path<(String, usize, usize)>,
) -> Result<Response, ApiError> {
    let job = job(&server, &id)?;
    let wanted = |preview: &Preview| preview.picture == picture && preview.index == index;
    let found = job.events().iter().find_map(|event| match event.as_ref() {
        Event::Preview(preview) if wanted(preview) => Some(preview.image.clone()),
        _ => None,
    });
    let image = found.ok_or_else(|| ApiError::not_found("preview"))?;
    let format = Format::Png;
    let shown = Shown {
        format,
        within: None,
    };
    let file = blocking(move || shown.bare_file(&image)).await?;
    Ok(([(CONTENT_TYPE, "image/png")], file).into_response())
}
