//! `progress` and `interrupt`, which know of this API's jobs alone.

use axum::extract::State;
use axum::Json;
use serde_json::{json, Value};

use crate::server::error::Failures;
use crate::server::jobs::Event;
use crate::server::state::Shared;

/// How far the first job of this API is.
#[utoipa::path(get, path = "/sdapi/v1/progress", tag = "sdapi",
    responses((status = 200, body = Value), Failures))]
pub async fn show(State(server): State<Shared>) -> Json<Value> {
    let jobs = server.sdapi.jobs();
    let (mut done, mut steps) = (0, 0);
    let job = jobs.first();
    let mut finished = 0;
    if let Some(job) = job {
        for event in job.events() {
            match event.as_ref() {
                Event::Step(step) => (done, steps) = (step.done, step.steps),
                Event::Picture { .. } => finished += 1,
                _ => {}
            }
        }
    }
    let pictures = job.map_or(0, |job| job.order.requests.len());
    let within = done as f64 / steps.max(1) as f64;
    let progress =
        (finished as f64 + within * f64::from(u8::from(done < steps))) / pictures.max(1) as f64;
    Json(json!({
        "progress": progress,
        "eta_relative": 0.0,
        "state": {
            "skipped": false,
            "interrupted": false,
            "job": job.map_or("", |job| &job.id),
            "job_count": jobs.len(),
            "job_no": 0,
            "sampling_step": done,
            "sampling_steps": steps,
        },
        "current_image": null,
        "textinfo": null,
    }))
}

/// Gives up all jobs of this API.
#[utoipa::path(post, path = "/sdapi/v1/interrupt", tag = "sdapi",
    responses((status = 200, body = Value), Failures))]
pub async fn interrupt(State(server): State<Shared>) -> Json<Value> {
    for job in server.sdapi.jobs() {
        job.cancel();
    }
    Json(json!({}))
}
