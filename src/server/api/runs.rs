//! Training runs.

// What the macro of `IntoParams` makes.
#![allow(unused_qualifications)]

use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::Json;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::server::blocking::blocking;
use crate::server::error::{ApiError, Failures};
use crate::server::runs::{Lines, Run};
use crate::server::state::Shared;

/// The training runs.
#[utoipa::path(get, path = "/api/runs", tag = "runs",
    responses((status = 200, body = Vec<Run>), Failures))]
pub async fn list(State(server): State<Shared>) -> Result<Json<Vec<Run>>, ApiError> {
    Ok(Json(blocking(move || Ok(server.runs.list())).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct After {
    /// The byte to go on at: `next` of the last answer.
    #[serde(default)]
    after: Option<u64>,
}

/// The lines of a run's log from a byte on.
#[utoipa::path(get, path = "/api/runs/{id}/log", tag = "runs",
    params(("id" = String, Path, description = "The run's id"), After),
    responses((status = 200, body = Lines), Failures))]
pub async fn log(
    State(server): State<Shared>,
    Path(id): Path<String>,
    Query(After { after }): Query<After>,
) -> Result<Json<Lines>, ApiError> {
    let lines = blocking(move || {
        let lines = server.runs.lines(&id, after.unwrap_or(0));
        lines.ok_or_else(|| ApiError::not_found("run"))
    });
    Ok(Json(lines.await?))
}

/// The sample sheet of a step.
#[utoipa::path(get, path = "/api/runs/{id}/previews/{step}", tag = "runs",
    params(("id" = String, Path, description = "The run's id"),
        ("step" = u64, Path, description = "One of `sheets`")),
    responses((status = 200, body = Vec<u8>, content_type = "image/png"), Failures))]
pub async fn sheet(
    State(server): State<Shared>,
    Path((id, step)): Path<(String, u64)>,
) -> Result<Response, ApiError> {
    let file = blocking(move || {
        let sheet = server.runs.sheet(&id, step);
        sheet.ok_or_else(|| ApiError::not_found("sheet"))
    });
    Ok(([(CONTENT_TYPE, "image/png")], file.await?).into_response())
}
