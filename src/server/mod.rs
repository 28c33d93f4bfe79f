//! Pictures over HTTP: OpenAI's image API, a part of AUTOMATIC1111's, this program's own,
//! and a page that uses it.
//!
//! ```text
//! request ─access (Host, site, token)→ route ─body→ Wish ─wish→ Order ─queue→ Job
//!                                                                  │ one thread, one model
//! answer or stream of events ←─────────── events of the job ←──────┘
//! ```
//!
//! A client's place in the queue is taken before its body is read; the thread that samples
//! takes pictures of jobs that are alike together, asks before every step whether anybody
//! still waits for them, and outlives what panics.

mod access;
mod api;
mod blocking;
mod body;
mod error;
mod history;
mod id;
mod interruptible;
mod jobs;
mod listen;
mod loose;
mod metrics;
mod model;
mod openai;
mod page;
mod parameters;
mod routes;
mod runs;
mod sdapi;
mod settings;
mod shown;
mod state;
mod streams;
mod wish;

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use self::jobs::{Made, Sampler, SamplerEnd};
use self::listen::ListenError;
use self::metrics::Metrics;
use self::model::{palette, Model, Phase};
use self::runs::Runs;
pub use self::settings::{ServedModel, Settings};
use self::state::Server;
use crate::pipeline::Pipeline;

/// Why a server could not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Origin(#[from] access::OriginError),
    #[error(transparent)]
    Pipeline(#[from] crate::pipeline::Error),
    #[error("the model's thread could not be started: {0}")]
    Thread(#[source] std::io::Error),
    #[error("the device does not answer any more; start the server again")]
    DeviceLost,
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Jobs that were given up.
    pub given_up: usize,
}

/// Serves `model` and the runs of `settings` until `stop` is set, and then for as long as
/// the jobs take, at most the grace period. `listening` is told the address, before the
/// weights are read.
///
/// # Errors
///
/// An address that cannot be listened on, a model that cannot be read, a device that is
/// lost.
pub fn serve(
    settings: &Settings,
    model: Option<ServedModel>,
    stop: &AtomicBool,
    listening: impl FnOnce(SocketAddr),
) -> Result<Ended, ServeError> {
    let metrics = Arc::new(Metrics::default());
    let served = model
        .as_ref()
        .map(|served| Arc::new(Model::new(served, settings)));
    let runs = Runs::new(settings.runs.clone());
    let server = Arc::new(Server::new(served.clone(), runs, metrics.clone()));
    let router = access::guarded(routes::router(server.clone()), settings)?;
    let listener = listen::Listener::bind(settings)?;
    listening(listener.address());

    let thread = match (model, served.clone()) {
        (Some(source), Some(model)) => {
            let work = move || sample(source, &model, &metrics);
            let thread = thread::Builder::new().name("sampler".into());
            Some(thread.spawn(work).map_err(ServeError::Thread)?)
        }
        _ => None,
    };
    let given_up = listener.run(router, &server, settings.grace, stop);
    let Some(thread) = thread else {
        return Ok(Ended { given_up });
    };
    // A step or the reading of weights may be under way; the process ends without them.
    let patience = Instant::now() + Duration::from_secs(5);
    while !thread.is_finished() && Instant::now() < patience {
        thread::sleep(Duration::from_millis(5));
    }
    if !thread.is_finished() {
        return Ok(Ended { given_up });
    }
    match thread.join() {
        Ok(Ok(SamplerEnd::Closed)) => Ok(Ended { given_up }),
        Ok(Ok(SamplerEnd::DeviceLost)) => Err(ServeError::DeviceLost),
        Ok(Err(error)) => Err(error.into()),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Ends the queue when the thread does, however it does.
struct EndsWith<'a>(&'a Model);

impl Drop for EndsWith<'_> {
    fn drop(&mut self) {
        self.0.queue.give_up();
        self.0.phase.send_replace(Phase::Ended);
    }
}

/// What the thread of the model does.
fn sample(
    source: ServedModel,
    model: &Model,
    metrics: &Arc<Metrics>,
) -> Result<SamplerEnd, crate::pipeline::Error> {
    let _ends = EndsWith(model);
    tch::set_num_threads(source.threads);
    let pipeline = Pipeline::load(&source.checkpoint, source.device, source.precision)?;
    drop(source);
    log::info!("{}", pipeline.report());
    let _ = model.fingerprint.set(pipeline.fingerprint().to_string());
    model.phase.send_replace(Phase::Ready);
    let colours = || palette(&pipeline);
    // Only the page's colours: without them it shows grey.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(colours)) {
        Ok(colours) => drop(model.palette.set(colours)),
        Err(_) => log::warn!("the colours of the codes could not be computed"),
    }
    let sampler = Sampler {
        pipeline: &pipeline,
        queue: &model.queue,
        batch: model.batch,
        name: &model.name,
        heard: &Heard { model, metrics },
    };
    Ok(sampler.run())
}

struct Heard<'a> {
    model: &'a Model,
    metrics: &'a Metrics,
}

impl jobs::Heard for Heard<'_> {
    fn made(&self, made: &Arc<Made>, seconds: f64) {
        self.model.history.keep(made);
        self.metrics.picture(seconds);
    }

    fn step(&self) {
        self.metrics.step();
    }

    fn fault(&self) {
        self.metrics.fault();
    }
}
