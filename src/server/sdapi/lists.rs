//! What there is to choose from: mostly one thing.

use axum::extract::State;
use axum::Json;
use serde_json::{json, Value};

use crate::server::body::Sent;
use crate::server::error::Failures;
use crate::server::state::Shared;

/// What the client may change: nothing.
#[utoipa::path(get, path = "/sdapi/v1/options", tag = "sdapi",
    responses((status = 200, body = Value), Failures))]
pub async fn options(State(server): State<Shared>) -> Json<Value> {
    let name = server.model.as_ref().map_or("", |model| &model.name);
    let hash = server
        .model
        .as_ref()
        .and_then(|model| model.fingerprint.get());
    Json(json!({
        "sd_model_checkpoint": name,
        "sd_checkpoint_hash": hash,
        "sd_vae": "None",
        "samples_format": "png",
    }))
}

/// Accepted, and changes nothing: clients choose the model first.
#[utoipa::path(post, path = "/sdapi/v1/options", tag = "sdapi", request_body = Value,
    responses((status = 200, body = Value), Failures))]
pub async fn set_options(Sent(_): Sent<serde_json::Map<String, Value>>) -> Json<Value> {
    Json(Value::Null)
}

/// One sampler.
#[utoipa::path(get, path = "/sdapi/v1/samplers", tag = "sdapi",
    responses((status = 200, body = Vec<Value>), Failures))]
pub async fn samplers() -> Json<Value> {
    Json(json!([{ "name": SAMPLER, "aliases": ["vq_diffusion"], "options": {} }]))
}

/// The one sampler's name.
pub const SAMPLER: &str = "VQ-Diffusion";

/// Which times the steps visit.
#[utoipa::path(get, path = "/sdapi/v1/schedulers", tag = "sdapi",
    responses((status = 200, body = Vec<Value>), Failures))]
pub async fn schedulers() -> Json<Value> {
    let schedulers = [
        ("automatic", "Automatic"),
        ("even", "Even"),
        ("cosine", "Cosine"),
    ];
    let described = |(name, label)| {
        json!({
            "name": name, "label": label, "aliases": null,
            "default_rho": -1.0, "need_inner_model": false,
        })
    };
    Json(schedulers.map(described).into_iter().collect())
}

/// The model that is served; files are not named.
#[utoipa::path(get, path = "/sdapi/v1/sd-models", tag = "sdapi",
    responses((status = 200, body = Vec<Value>), Failures))]
pub async fn models(State(server): State<Shared>) -> Json<Value> {
    let described = server.model.iter().map(|model| {
        let sha256 = model.fingerprint.get();
        let hash = sha256.and_then(|sha256| sha256.get(..10));
        json!({
            "title": model.name, "model_name": model.name, "filename": model.name,
            "hash": hash, "sha256": sha256, "config": null,
        })
    });
    Json(described.collect())
}

/// None: the codec belongs to the model.
#[utoipa::path(get, path = "/sdapi/v1/sd-vae", tag = "sdapi",
    responses((status = 200, body = Vec<Value>), Failures))]
pub async fn vaes() -> Json<Value> {
    Json(json!([]))
}

/// None.
#[utoipa::path(get, path = "/sdapi/v1/upscalers", tag = "sdapi",
    responses((status = 200, body = Vec<Value>), Failures))]
pub async fn upscalers() -> Json<Value> {
    Json(json!([{
        "name": "None", "model_name": null, "model_path": null, "model_url": null, "scale": 4.0,
    }]))
}

/// None.
#[utoipa::path(get, path = "/sdapi/v1/latent-upscale-modes", tag = "sdapi",
    responses((status = 200, body = Vec<Value>), Failures))]
pub async fn latent_upscale_modes() -> Json<Value> {
    Json(json!([]))
}
