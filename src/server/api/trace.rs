//! How a picture came about: its steps, their entropy, and where the words looked.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::Json;
use tch::Tensor;

use super::pictures::find;
use crate::picture::Picture;
use crate::pipeline::{PictureOptions, Pipeline, Record, Request, Trace};
use crate::server::blocking::blocking;
use crate::server::body::Admitted;
use crate::server::error::{ApiError, Failures};
use crate::server::history::Kept;
use crate::server::jobs::Made;
use crate::server::model::needed;
use crate::server::shown::{Format, Shown};
use crate::server::state::Shared;

/// A picture whose way is known, or can be gone again.
enum Way {
    Known(Arc<Made>),
    Again(Box<Record>),
}

impl Way {
    fn of(kept: Kept, model_sha256: Option<&String>) -> Result<Self, ApiError> {
        match kept {
            Kept::Made(made) => Ok(Way::Known(made)),
            Kept::Filed(filed) if filed.record.edit.is_some() => Err(ApiError::bad_request(
                "the picture that it was made from is not known any more",
            )),
            Kept::Filed(filed) if Some(&filed.record.model_sha256) != model_sha256 => {
                Err(ApiError::bad_request("it was made by another model"))
            }
            Kept::Filed(filed) => Ok(Way::Again(Box::new(filed.record))),
        }
    }

    fn request(&self) -> Request {
        match self {
            Way::Known(made) => made.picture.record.request.clone(),
            Way::Again(record) => record.request.clone(),
        }
    }

    fn options(&self) -> PictureOptions {
        match self {
            Way::Known(made) => made.options.clone(),
            Way::Again(record) => record.options(None),
        }
    }

    /// Tokens `[1, L]` after each step.
    fn states(&self, pipeline: &Pipeline) -> Result<Vec<Tensor>, ApiError> {
        match self {
            Way::Known(made) => {
                let states = made.states(pipeline.config().denoiser.mask_token());
                let row = |tokens: &Vec<i64>| Tensor::from_slice(tokens).unsqueeze(0);
                Ok(states.iter().map(row).collect())
            }
            Way::Again(_) => {
                let mut states = Vec::new();
                let mut maker = pipeline.maker(&self.options()).map_err(refused)?;
                let made = maker.make(&[self.request()], &mut |step| {
                    states.push(step.progress.tokens.copy());
                    ControlFlow::Continue(())
                });
                made.map_err(|e| refused(e.into()))?;
                Ok(states)
            }
        }
    }
}

fn refused(error: crate::pipeline::Error) -> ApiError {
    ApiError::bad_request(error.to_string())
}

/// How a picture came about: `grid`, `codes`, `steps` (time, tokens, changed, entropy of
/// all positions) and `words` (text, attention of every token). Asks the network again.
#[utoipa::path(get, path = "/api/pictures/{id}/trace", tag = "api",
    params(("id" = String, Path, description = "The picture's id")),
    responses((status = 200, body = serde_json::Value), Failures))]
pub async fn trace(
    State(server): State<Shared>,
    Admitted(place): Admitted,
    Path(id): Path<String>,
) -> Result<Json<Trace>, ApiError> {
    let model = needed(&server.model)?;
    let way = Way::of(find(&server, &id)?, model.fingerprint.get())?;
    let traced = model.queue.ask(place, move |pipeline| {
        let states = way.states(pipeline)?;
        let maker = pipeline.maker(&way.options()).map_err(refused)?;
        let trace = Trace::new(&maker, &way.request(), &states, &mut || {});
        trace.map_err(|e| refused(e.into()))
    });
    Ok(Json(traced.await??))
}

/// The unfinished picture after so many steps, masked tokens in grey.
#[utoipa::path(get, path = "/api/pictures/{id}/steps/{done}", tag = "api",
    params(("id" = String, Path, description = "The picture's id"),
        ("done" = usize, Path, description = "Steps done, from 1")),
    responses((status = 200, body = Vec<u8>, content_type = "image/png"), Failures))]
pub async fn step(
    State(server): State<Shared>,
    Admitted(place): Admitted,
    Path((id, done)): Path<(String, usize)>,
) -> Result<Response, ApiError> {
    let model = needed(&server.model)?;
    let way = Way::of(find(&server, &id)?, model.fingerprint.get())?;
    let picture = model
        .queue
        .ask(place, move |pipeline| -> Result<Picture, ApiError> {
            let states = way.states(pipeline)?;
            let state = done.checked_sub(1).and_then(|step| states.get(step));
            let state = state.ok_or_else(|| ApiError::not_found("step"))?;
            let maker = pipeline.maker(&way.options()).map_err(refused)?;
            Ok(maker.unfinished(&state.to_device(pipeline.device())))
        });
    let picture = picture.await??;
    let format = Format::Png;
    let shown = Shown {
        format,
        within: None,
    };
    let file = blocking(move || shown.bare_file(&picture)).await?;
    Ok(([(CONTENT_TYPE, "image/png")], file).into_response())
}
