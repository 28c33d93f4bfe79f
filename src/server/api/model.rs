//! The model: what it can do, its usual options, the limits.

use axum::extract::State;
use axum::Json;
use serde::Serialize;
use serde_json::{json, Value};
use utoipa::ToSchema;

use crate::diffusion::truncation::Truncation;
use crate::server::error::{ApiError, Failures};
use crate::server::model::needed;
use crate::server::settings::{
    LARGEST_SIDE, MOST_BODY, MOST_JOBS, MOST_PICTURES, MOST_PIXELS, MOST_PROMPT,
};
use crate::server::state::Shared;
use crate::transformer::Conditioning;

/// What is served.
#[derive(Serialize, ToSchema)]
pub struct ModelInfo {
    pub name: String,
    /// Whether its weights are read.
    pub ready: bool,
    /// SHA-256 of the weights, once they are read.
    pub sha256: Option<String>,
    pub device: String,
    /// `f32`, `bf16` or `f16`.
    pub dtype: String,
    /// Token grid as rows, columns.
    pub grid: [i64; 2],
    /// Pixels of a token's side.
    pub factor: i64,
    /// Width and height of a picture.
    pub size: [u32; 2],
    /// Codes K; the number also stands for the mask.
    pub codes: i64,
    /// Diffusion steps T.
    pub timesteps: i64,
    /// What a picture shows: `text`, `class` or `anything`.
    pub subject: &'static str,
    /// Classes of a model of classes.
    pub classes: Option<i64>,
    /// Whether guidance has something to lead away from.
    pub guided: bool,
    /// Options where nothing else is asked for.
    pub usual: Value,
    /// What is refused.
    pub limits: Value,
    /// Whether there are runs to look at.
    pub runs: bool,
    /// The program's version.
    pub version: &'static str,
}

/// The model that is served.
#[utoipa::path(get, path = "/api/model", tag = "api",
    responses((status = 200, body = ModelInfo), Failures))]
pub async fn show(State(server): State<Shared>) -> Result<Json<ModelInfo>, ApiError> {
    let model = needed(&server.model)?;
    let denoiser = &model.config.denoiser;
    let (subject, classes) = match denoiser.condition {
        Conditioning::Text { .. } => ("text", None),
        Conditioning::Class { classes, .. } => ("class", Some(classes)),
        Conditioning::Unconditional => ("anything", None),
    };
    let usual = model.usual();
    let truncation = match usual.sampler().truncation {
        Truncation::TopP(rate) => rate,
        Truncation::Off | Truncation::TopK(_) => 1.0,
    };
    let guided = model.config.text.is_some() || denoiser.condition.null_class().is_some();
    Ok(Json(ModelInfo {
        name: model.name.clone(),
        ready: model.is_ready(),
        sha256: model.fingerprint.get().cloned(),
        device: model.device.clone(),
        dtype: model.precision.to_string(),
        grid: denoiser.grid,
        factor: model.config.codec.factor(),
        size: model.size(),
        codes: denoiser.codes,
        timesteps: denoiser.timesteps,
        subject,
        classes,
        guided,
        usual: json!({
            "steps": usual.steps,
            "times": usual.times,
            "order": usual.order,
            "guidance": usual.guidance,
            "guidance_span": usual.guidance_span,
            "truncation": truncation,
            "strength": 1.0,
        }),
        limits: json!({
            "n": MOST_PICTURES, "prompt": MOST_PROMPT, "body": MOST_BODY, "jobs": MOST_JOBS,
            "pixels": MOST_PIXELS, "side": LARGEST_SIDE,
        }),
        runs: !server.runs.is_empty(),
        version: env!("CARGO_PKG_VERSION"),
    }))
}

/// The mean colour of each code, by code.
#[utoipa::path(get, path = "/api/palette", tag = "api",
    responses((status = 200, body = Vec<[u8; 3]>), Failures))]
pub async fn palette(State(server): State<Shared>) -> Result<Json<Vec<[u8; 3]>>, ApiError> {
    let model = needed(&server.model)?;
    let colours = model.palette.get().cloned();
    colours.map(Json).ok_or_else(|| ApiError {
        retry_after: Some(1),
        retry: Some(true),
        ..ApiError::unavailable("the model is being loaded")
    })
}
