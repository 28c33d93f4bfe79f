//! What Prometheus is told.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::model::Model;

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
    /// A request of this method, by the server's own name of the route, was answered.
    pub fn request(&self, method: String, route: String, status: u16) {
        let requests = self.requests.lock();
        let mut requests = requests.unwrap_or_else(PoisonError::into_inner);
        *requests.entry((method, route, status)).or_default() += 1;
    }

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

    /// Prometheus text.
    pub fn text(&self, model: Option<&Model>) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, values: &[(String, f64)]| {
            let _ = writeln!(text, "# HELP vqdiffusion_{name} {help}");
            let _ = writeln!(text, "# TYPE vqdiffusion_{name} {kind}");
            for (labels, value) in values {
                let _ = writeln!(text, "vqdiffusion_{name}{labels} {value}");
            }
        };
        let requests = self
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let requests: Vec<(String, f64)> = requests
            .into_iter()
            .map(|((method, route, status), count)| {
                let labels =
                    format!("{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}");
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
            &of(&self.pictures),
        );
        family(
            "steps_total",
            "counter",
            "Reverse steps made.",
            &of(&self.steps),
        );
        family(
            "faults_total",
            "counter",
            "Jobs ended by a fault.",
            &of(&self.faults),
        );
        let busy = self.busy.load(Ordering::Relaxed) as f64 / 1e6;
        let help = "Seconds spent on finished pictures.";
        family("sampling_seconds_total", "counter", help, &one(busy));
        if let Some(model) = model {
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
        text
    }
}
