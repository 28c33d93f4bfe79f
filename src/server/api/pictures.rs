//! The gallery.

// What the macro of `IntoParams` makes.
#![allow(unused_qualifications)]

use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::Json;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::settings::told;
use crate::pipeline::label;
use crate::server::blocking::blocking;
use crate::server::error::{ApiError, Failures};
use crate::server::history::{Filed, Kept};
use crate::server::jobs::Made;
use crate::server::model::{needed, Model};
use crate::server::shown::{size_of, Format, Shown};
use crate::server::state::Shared;

/// A picture, and what made it.
#[derive(Serialize, ToSchema)]
pub struct PictureInfo {
    pub id: String,
    /// What it shows, in words.
    pub label: String,
    /// Seconds since 1970.
    pub created: u64,
    /// `session` or `folder`.
    pub place: &'static str,
    /// What makes it again.
    pub settings: Value,
    /// Whether it is known how it came about, step by step.
    pub steps: bool,
}

impl PictureInfo {
    fn made(made: &Made, model: &Model) -> Self {
        let record = &made.picture.record;
        PictureInfo {
            id: made.id.clone(),
            label: label(&record.request.subject, &model.config),
            created: made.created,
            place: "session",
            settings: told(record, model),
            steps: true,
        }
    }

    fn filed(filed: &Filed, model: &Model) -> Self {
        PictureInfo {
            id: filed.id.clone(),
            label: label(&filed.record.request.subject, &model.config),
            created: filed.created,
            place: "folder",
            settings: told(&filed.record, model),
            steps: false,
        }
    }
}

/// The pictures of the session, then those of the server's folder, the newest first.
#[utoipa::path(get, path = "/api/pictures", tag = "api",
    responses((status = 200, body = Vec<PictureInfo>), Failures))]
pub async fn list(State(server): State<Shared>) -> Result<Json<Vec<PictureInfo>>, ApiError> {
    let model = needed(&server.model)?.clone();
    let pictures = blocking(move || {
        let session = model.history.session();
        let mut pictures: Vec<_> = session
            .iter()
            .map(|m| PictureInfo::made(m, &model))
            .collect();
        let folder = model.history.folder();
        pictures.extend(folder.iter().map(|filed| PictureInfo::filed(filed, &model)));
        Ok(pictures)
    });
    Ok(Json(pictures.await?))
}

pub fn find(server: &Shared, id: &str) -> Result<Kept, ApiError> {
    let found = needed(&server.model)?.history.find(id);
    found.ok_or_else(|| ApiError::not_found("picture"))
}

/// A picture's settings.
#[utoipa::path(get, path = "/api/pictures/{id}", tag = "api",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, body = PictureInfo), Failures))]
pub async fn show(
    State(server): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<PictureInfo>, ApiError> {
    let model = needed(&server.model)?;
    Ok(Json(match find(&server, &id)? {
        Kept::Made(made) => PictureInfo::made(&made, model),
        Kept::Filed(filed) => PictureInfo::filed(&filed, model),
    }))
}

/// Forgets a picture; its file in the server's folder is removed too.
#[utoipa::path(delete, path = "/api/pictures/{id}", tag = "api",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 204, description = "It is gone"), Failures))]
pub async fn remove(
    State(server): State<Shared>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    match needed(&server.model)?.history.remove(&id) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::not_found("picture")),
    }
}

/// A size to fit into.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Within {
    /// Pixels.
    width: Option<i64>,
    /// Pixels.
    height: Option<i64>,
}

/// A picture's PNG, which says how it was made.
#[utoipa::path(get, path = "/api/pictures/{id}/png", tag = "api",
    params(("id" = String, Path, description = "Its id"), Within),
    responses((status = 200, body = Vec<u8>, content_type = "image/png"), Failures))]
pub async fn png(
    State(server): State<Shared>,
    Path(id): Path<String>,
    Query(within): Query<Within>,
) -> Result<Response, ApiError> {
    let within = match (within.width, within.height) {
        (None, None) => None,
        (width, height) => {
            let most = i64::from(crate::server::settings::LARGEST_SIDE);
            Some(size_of(
                width.unwrap_or(most),
                height.unwrap_or(most),
                "width",
            )?)
        }
    };
    let kept = find(&server, &id)?;
    let file = blocking(move || match kept {
        Kept::Made(made) => Shown {
            format: Format::Png,
            within,
        }
        .file(&made),
        Kept::Filed(filed) => filed.png().ok_or_else(|| ApiError::not_found("picture")),
    });
    Ok(([(CONTENT_TYPE, "image/png")], file.await?).into_response())
}
