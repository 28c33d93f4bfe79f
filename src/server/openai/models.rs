//! `GET /v1/models`.

use axum::extract::{Path, State};
use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use crate::server::error::{ApiError, Failures};
use crate::server::model::Model;
use crate::server::state::Shared;

/// A model that can be named in requests; any name is accepted there.
#[derive(Serialize, ToSchema)]
pub struct ModelObject {
    pub id: String,
    pub object: &'static str,
    /// Always 0: it is not known.
    pub created: u64,
    pub owned_by: &'static str,
}

#[derive(Serialize, ToSchema)]
pub struct ModelList {
    pub object: &'static str,
    pub data: Vec<ModelObject>,
}

fn object(model: &Model) -> ModelObject {
    ModelObject {
        id: model.name.clone(),
        object: "model",
        created: 0,
        owned_by: "vqdiffusion",
    }
}

/// The model that is served.
#[utoipa::path(get, path = "/v1/models", tag = "openai",
    responses((status = 200, body = ModelList), Failures))]
pub async fn list(State(server): State<Shared>) -> Json<ModelList> {
    Json(ModelList {
        object: "list",
        data: server.model.iter().map(|model| object(model)).collect(),
    })
}

/// The model called so.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "openai",
    params(("model" = String, Path, description = "Its id")),
    responses((status = 200, body = ModelObject), Failures))]
pub async fn one(
    State(server): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<ModelObject>, ApiError> {
    let model = server.model.as_ref().filter(|model| model.name == name);
    let model = model.ok_or_else(|| ApiError::not_found("model"))?;
    Ok(Json(object(model)))
}
