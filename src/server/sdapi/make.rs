//! `txt2img` and `img2img`.

use std::sync::Arc;

use axum::extract::State;
use axum::Json;
use serde::Deserialize;
use serde_json::{json, Value};
use utoipa::ToSchema;

use super::lists::SAMPLER;
use crate::diffusion::Times;
use crate::picture::{decode_mask, png_bytes, Mask};
use crate::server::blocking::blocking;
use crate::server::body::{Admitted, Sent};
use crate::server::error::{ApiError, Failures};
use crate::server::jobs::{CancelOnDrop, Job, Made, Place};
use crate::server::loose;
use crate::server::model::{needed, Model};
use crate::server::shown::{base64, size_of, Format, Shown};
use crate::server::state::Shared;
use crate::server::wish::{base64_file, check_size, Manner, OwnOptions, Wish, USUAL_STRENGTH};

/// Pictures to make. Fields that are not here are ignored, those of the high-resolution pass
/// among them.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct Txt2Img {
    #[serde(default)]
    pub prompt: Option<String>,
    #[serde(default)]
    pub negative_prompt: Option<String>,
    #[serde(default, deserialize_with = "loose::whole")]
    #[schema(value_type = Option<i64>)]
    pub steps: Option<i64>,
    /// Guidance scale.
    #[serde(default, deserialize_with = "loose::number")]
    #[schema(value_type = Option<f64>)]
    pub cfg_scale: Option<f64>,
    /// Random if absent or −1.
    #[serde(default, deserialize_with = "loose::seed")]
    #[schema(value_type = Option<i64>)]
    pub seed: Option<u64>,
    #[serde(default, deserialize_with = "loose::whole")]
    #[schema(value_type = Option<i64>)]
    pub width: Option<i64>,
    #[serde(default, deserialize_with = "loose::whole")]
    #[schema(value_type = Option<i64>)]
    pub height: Option<i64>,
    /// Pictures, times `n_iter`.
    #[serde(default, deserialize_with = "loose::whole")]
    #[schema(value_type = Option<i64>)]
    pub batch_size: Option<i64>,
    #[serde(default, deserialize_with = "loose::whole")]
    #[schema(value_type = Option<i64>)]
    pub n_iter: Option<i64>,
    /// `even` or `cosine`; others are taken for the model's own choice.
    #[serde(default)]
    pub scheduler: Option<String>,
    #[serde(default, deserialize_with = "loose::flag")]
    #[schema(value_type = Option<bool>)]
    pub send_images: Option<bool>,
}

/// A picture to start from.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
pub struct Img2Img {
    #[serde(flatten)]
    pub common: Txt2Img,
    /// Base64; the first is started from.
    #[serde(default)]
    pub init_images: Vec<String>,
    /// Base64; redrawn where it is white.
    #[serde(default)]
    pub mask: Option<String>,
    /// Redrawn where the mask is black instead.
    #[serde(default, deserialize_with = "loose::flag")]
    #[schema(value_type = Option<bool>)]
    pub inpainting_mask_invert: Option<bool>,
    #[serde(default, deserialize_with = "loose::number")]
    #[schema(value_type = Option<f64>)]
    pub denoising_strength: Option<f64>,
}

/// Makes pictures.
#[utoipa::path(post, path = "/sdapi/v1/txt2img", tag = "sdapi", request_body = Txt2Img,
    responses((status = 200, body = Value), Failures))]
pub async fn txt2img(
    State(server): State<Shared>,
    Admitted(place): Admitted,
    Sent(request): Sent<Txt2Img>,
) -> Result<Json<Value>, ApiError> {
    make(server, place, request, Start::default()).await
}

/// Redraws a picture, or a part of it.
#[utoipa::path(post, path = "/sdapi/v1/img2img", tag = "sdapi", request_body = Img2Img,
    responses((status = 200, body = Value), Failures))]
pub async fn img2img(
    State(server): State<Shared>,
    Admitted(place): Admitted,
    Sent(request): Sent<Img2Img>,
) -> Result<Json<Value>, ApiError> {
    let image = request.init_images.first();
    let image = image.ok_or_else(|| ApiError::field("init_images", "init_images is missing"))?;
    let image = base64_file(image, "init_images")?;
    let mask = request.mask.as_ref().filter(|mask| !mask.is_empty());
    let mask = mask.map(|mask| base64_file(mask, "mask")).transpose()?;
    let mask = match (mask, request.inpainting_mask_invert) {
        (Some(mask), Some(true)) => Some(blocking(move || inverted(&mask)).await?),
        (mask, _) => mask,
    };
    let start = Start {
        image: Some(image),
        mask,
        strength: request.denoising_strength.or(Some(USUAL_STRENGTH)),
    };
    make(server, place, request.common, start).await
}

/// What to start from.
#[derive(Default)]
struct Start {
    image: Option<Vec<u8>>,
    mask: Option<Vec<u8>>,
    strength: Option<f64>,
}

fn inverted(mask: &[u8]) -> Result<Vec<u8>, ApiError> {
    check_size(mask, "mask")?;
    let wrong =
        |e: crate::picture::PictureError| ApiError::field("mask", format!("mask: {}", e.problem));
    let mask = decode_mask(mask, "mask".as_ref()).map_err(wrong)?;
    let selected = mask.selected.iter().map(|selected| !selected).collect();
    let inverted = Mask { selected, ..mask };
    png_bytes(&inverted.to_picture(), &[]).map_err(|_| ApiError::internal())
}

async fn make(
    server: Shared,
    place: Place,
    request: Txt2Img,
    start: Start,
) -> Result<Json<Value>, ApiError> {
    let model = needed(&server.model)?.clone();
    let parameters = told(&request);
    let own_size = model.size().map(i64::from);
    let within = match (request.width, request.height) {
        (None, None) => None,
        (width, height) => {
            let size = [width.unwrap_or(own_size[0]), height.unwrap_or(own_size[1])];
            Some(size_of(size[0], size[1], "width")?)
        }
    };
    let format = Format::Png;
    let shown = Shown { format, within };
    let send = request.send_images.unwrap_or(true);
    let order = {
        let model = model.clone();
        blocking(move || wish(request, start).order(&model, Manner::Lenient)).await?
    };
    let job = Arc::new(Job::new(order, place));
    let _guard = CancelOnDrop(job.clone());
    server.sdapi.add(&job);
    model.queue.add(job.clone());
    let made = match job.finished().await {
        // What `interrupt` leaves.
        Err(_) if job.was_given_up() => job.pictures().into_iter().map(|(_, made)| made).collect(),
        made => made?,
    };
    let info = info(&made, shown, &model).to_string();
    let files = blocking(move || {
        let files = made.iter().filter(|_| send);
        files
            .map(|made| Ok(base64(&shown.file(made)?)))
            .collect::<Result<Vec<_>, _>>()
    });
    Ok(Json(json!({
        "images": files.await?,
        "parameters": parameters,
        // A text of JSON, as the clients expect.
        "info": info,
    })))
}

fn wish(request: Txt2Img, start: Start) -> Wish {
    let times = match request.scheduler.as_deref() {
        Some("even") => Some(Times::Even),
        Some("cosine") => Some(Times::Cosine),
        _ => None,
    };
    let batches = request.n_iter.unwrap_or(1);
    Wish {
        prompt: Some(request.prompt.unwrap_or_default()),
        count: Some(request.batch_size.unwrap_or(1).saturating_mul(batches)),
        own: OwnOptions {
            negative_prompt: request.negative_prompt,
            seed: request.seed,
            steps: request.steps,
            times,
            guidance: request.cfg_scale,
            strength: start.strength,
            ..OwnOptions::default()
        },
        image: start.image,
        mask: start.mask,
        steps: true, // for its progress
        ..Wish::default()
    }
}

/// What was asked for, without pictures and what is none of the clients' business.
fn told(request: &Txt2Img) -> Value {
    json!({
        "prompt": request.prompt, "negative_prompt": request.negative_prompt,
        "steps": request.steps, "cfg_scale": request.cfg_scale, "seed": request.seed,
        "width": request.width, "height": request.height,
        "batch_size": request.batch_size, "n_iter": request.n_iter,
    })
}

/// What was made.
fn info(made: &[Arc<Made>], shown: Shown, model: &Model) -> Value {
    let [width, height] = shown.size(model.size());
    let seeds: Vec<u64> = made
        .iter()
        .map(|made| made.picture.record.request.seed)
        .collect();
    let texts: Vec<String> = made.iter().map(|made| made.parameters()).collect();
    let Some(first) = made.first() else {
        return json!({});
    };
    let record = &first.picture.record;
    let prompt = crate::pipeline::label(&record.request.subject, &model.config);
    json!({
        "prompt": prompt,
        "all_prompts": vec![&prompt; made.len()],
        "negative_prompt": record.negative_prompt.clone().unwrap_or_default(),
        "seed": seeds.first(),
        "all_seeds": seeds,
        "width": width,
        "height": height,
        "sampler_name": SAMPLER,
        "cfg_scale": record.settings.sampler.guidance,
        "steps": record.settings.sampler.steps,
        "batch_size": made.len(),
        "sd_model_name": model.name,
        "sd_model_hash": record.model_sha256.get(..10),
        "denoising_strength": record.edit.as_ref().map(|edit| edit.strength),
        "infotexts": texts,
        "index_of_first_image": 0,
    })
}
