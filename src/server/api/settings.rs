//! What a PNG says of how it was made, and the tokens of a picture.

use axum::extract::{Request, State};
use axum::Json;
use serde::Serialize;
use serde_json::{json, Map, Value};
use utoipa::ToSchema;

use crate::diffusion::truncation::Truncation;
use crate::picture::{decode, png_texts, PARAMETERS};
use crate::pipeline::{KeptTokens, Record, Subject};
use crate::server::blocking::blocking;
use crate::server::body::{bytes, Admitted};
use crate::server::error::{ApiError, Failures};
use crate::server::model::{needed, Model};
use crate::server::parameters::read_parameters;
use crate::server::state::Shared;
use crate::server::wish::check_size;

/// What makes a picture again, by the names of the options, and whether this model made it.
pub fn told(record: &Record, model: &Model) -> Value {
    let sampler = &record.settings.sampler;
    let mut told = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            told.insert(name.into(), value);
        }
    };
    put(
        "prompt",
        match &record.request.subject {
            Subject::Text(prompt) => json!(prompt),
            Subject::Class(class) => json!(class.to_string()),
            Subject::Anything => Value::Null,
        },
    );
    put("negative_prompt", json!(record.negative_prompt));
    put("seed", json!(record.request.seed));
    put("steps", json!(sampler.steps));
    put("times", json!(sampler.times));
    put("order", json!(sampler.order));
    put("guidance", json!(sampler.guidance));
    put("guidance_span", json!(sampler.guidance_span));
    let local = sampler.local_steps;
    put("local_steps", json!((local > 0).then_some(local)));
    match sampler.truncation {
        Truncation::Off => put("truncation", json!(1.0)),
        Truncation::TopP(rate) => put("truncation", json!(rate)),
        Truncation::TopK(codes) => put("top_k", json!(codes)),
    }
    if let Some(revealing) = &sampler.revealing {
        put("purity", json!(revealing.purity));
        let tokens = i64::try_from(revealing.tokens_per_evaluation).ok();
        put("tokens_per_step", json!(tokens.filter(|&n| n < i64::MAX)));
    }
    put(
        "strength",
        json!(record.edit.as_ref().map(|edit| edit.strength)),
    );
    put("edited", json!(record.edit.is_some()));
    put("dtype", json!(record.settings.dtype));
    put("model_sha256", json!(record.model_sha256));
    put(
        "this_model",
        json!(model.fingerprint.get() == Some(&record.model_sha256)),
    );
    Value::Object(told)
}

/// The options that made a PNG of this program, or the nearest to what another program's
/// says. The body is the file.
#[utoipa::path(post, path = "/api/settings", tag = "api",
    request_body(content = Vec<u8>, content_type = "image/png"),
    responses((status = 200, body = Value), Failures))]
pub async fn of_png(
    State(server): State<Shared>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let model = needed(&server.model)?.clone();
    let png = bytes(request, &server).await?;
    let read = move || {
        let texts = png_texts(&png).map_err(|e| ApiError::bad_request(e.to_string()))?;
        if let Ok(record) = Record::of_texts(&texts, "the picture") {
            return Ok(told(&record, &model));
        }
        let foreign = texts.iter().find(|(keyword, _)| keyword == PARAMETERS);
        let (_, text) = foreign
            .ok_or_else(|| ApiError::bad_request("the picture does not say how it was made"))?;
        let foreign = read_parameters(text);
        let steps = foreign
            .steps
            .map(|steps| steps.clamp(1, model.config.denoiser.timesteps.max(1) as u64));
        Ok(json!({
            "prompt": foreign.prompt, "negative_prompt": foreign.negative_prompt,
            "steps": steps, "guidance": foreign.guidance, "seed": foreign.seed,
            "edited": false, "this_model": false,
        }))
    };
    Ok(Json(blocking(read).await?))
}

/// Tokens of a picture.
#[derive(Serialize, ToSchema)]
pub struct Tokens {
    /// Token grid as rows, columns.
    pub grid: [i64; 2],
    /// Codes K.
    pub codes: i64,
    /// Row by row.
    pub tokens: Vec<i64>,
    /// Whether they are the picture's own and not the codec's guess.
    pub own: bool,
}

/// The tokens of a picture of any size, scaled to cover the model's. The body is the file.
#[utoipa::path(post, path = "/api/tokens", tag = "api",
    request_body(content = Vec<u8>, content_type = "image/png"),
    responses((status = 200, body = Tokens), Failures))]
pub async fn tokens(
    State(server): State<Shared>,
    Admitted(place): Admitted,
    request: Request,
) -> Result<Json<Tokens>, ApiError> {
    let model = needed(&server.model)?;
    let file = bytes(request, &server).await?;
    let (picture, kept) = blocking(move || {
        check_size(&file, "picture")?;
        let picture = decode(&file).map_err(|e| ApiError::bad_request(e.to_string()))?;
        let texts = png_texts(&file).unwrap_or_default();
        let kept = KeptTokens::of(&texts, &picture);
        Ok((picture, kept))
    })
    .await?;
    let denoiser = &model.config.denoiser;
    let length = denoiser.tokens() as usize;
    let kept = kept.filter(|kept| Some(&kept.model_sha256) == model.fingerprint.get());
    let kept = kept.filter(|kept| kept.tokens.len() == length);
    let own = kept.is_some();
    let tokens = match kept {
        Some(kept) => kept.tokens,
        None => {
            model
                .queue
                .ask(place, move |pipeline| pipeline.tokens(&picture))
                .await?
        }
    };
    Ok(Json(Tokens {
        grid: denoiser.grid,
        codes: denoiser.codes,
        tokens,
        own,
    }))
}
