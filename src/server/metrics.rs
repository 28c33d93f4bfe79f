//! What Prometheus is told.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Shared;

#[derive(Default)]
pub struct Metrics {
    /// By method, route and status. Routes are the server's, never the client's text.
    requests: Mutex<BTreeMap<(String, String, u16), u64>>,
    pictures: AtomicU64,
    steps: AtomicU64,
    faults: AtomicU64,
    /// Microseconds of sampling.
    busy: AtomicU64,
}

impl Metrics {
    pub fn picture(&self, seconds: f64) {
        self.pictures.fetch_add(1, Ordering::Relaxed);
        self.busy
            .fetch_add((seconds * 1e6) as u64, Ordering::Relaxed);
    }

    pub fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    pub fn fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts a request by its route.
pub async fn count(State(server): State<Shared>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("other", MatchedPath::as_str).to_string();
    let method = match request.method().as_str() {
        method @ ("GET" | "HEAD" | "POST" | "DELETE" | "OPTIONS" | "PUT" | "PATCH") => method,
        _ => "other",
    };
    let method = method.to_string();
    let response = next.run(request).await;
    let key = (method, route, response.status().as_u16());
    let requests = server.metrics.requests.lock();
    *requests
        .unwrap_or_else(PoisonError::into_inner)
        .entry(key)
        .or_default() += 1;
    response
}

/// Counters and gauges of the server.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "process",
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain"),
        super::error::Failures)
)]
pub async fn show(State(server): State<Shared>) -> Response {
    let metrics = &server.metrics;
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, values: &[(String, f64)]| {
        let _ = writeln!(text, "# HELP vqdiffusion_{name} {help}");
        let _ = writeln!(text, "# TYPE vqdiffusion_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "vqdiffusion_{name}{labels} {value}");
        }
    };
    let requests = metrics
        .requests
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let requests: Vec<(String, f64)> = requests
        .into_iter()
        .map(|((method, route, status), count)| {
            let labels = format!("{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}");
            (labels, count as f64)
        })
        .collect();
    let one = |value: f64| vec![(String::new(), value)];
    let of = |counter: &AtomicU64| one(counter.load(Ordering::Relaxed) as f64);
    family("requests_total", "counter", "Answered requests.", &requests);
    family(
        "pictures_total",
        "counter",
        "Pictures made.",
        &of(&metrics.pictures),
    );
    family(
        "steps_total",
        "counter",
        "Reverse steps made.",
        &of(&metrics.steps),
    );
    family(
        "faults_total",
        "counter",
        "Jobs ended by a fault.",
        &of(&metrics.faults),
    );
    let busy = metrics.busy.load(Ordering::Relaxed) as f64 / 1e6;
    let help = "Seconds spent on finished pictures.";
    family("sampling_seconds_total", "counter", help, &one(busy));
    if let Some(model) = &server.model {
        let (waiting, at_work) = model.queue.depth();
        family(
            "jobs_waiting",
            "gauge",
            "Jobs that wait.",
            &one(waiting as f64),
        );
        family(
            "jobs_running",
            "gauge",
            "Jobs at work.",
            &one(at_work as f64),
        );
        let ready = f64::from(u8::from(model.is_ready()));
        family(
            "ready",
            "gauge",
            "Whether the model is loaded.",
            &one(ready),
        );
    }
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, kind)], text).into_response()
}
