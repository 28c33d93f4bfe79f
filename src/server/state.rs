//! What all routes share.

use std::sync::Arc;

use tokio::sync::watch;

use super::interruptible::Interruptible;
use super::metrics::Metrics;
use super::model::Model;
use super::runs::Runs;

pub struct Server {
    /// None where only runs are shown.
    pub model: Option<Arc<Model>>,
    pub runs: Runs,
    pub metrics: Arc<Metrics>,
    /// The jobs of AUTOMATIC1111's clients.
    pub sdapi: Interruptible,
    /// Whether the server is ending.
    pub ending: watch::Sender<bool>,
}

pub type Shared = Arc<Server>;

impl Server {
    pub fn new(model: Option<Arc<Model>>, runs: Runs, metrics: Arc<Metrics>) -> Self {
        Server {
            model,
            runs,
            metrics,
            sdapi: Interruptible::default(),
            ending: watch::Sender::new(false),
        }
    }
}
