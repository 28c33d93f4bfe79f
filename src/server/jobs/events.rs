//! What happens to a job, in the order it happens.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::made::Made;
use crate::picture::Picture;
use crate::server::error::{ApiError, ErrorBody};

/// Something that happened to a job.
#[derive(Clone, Debug)]
pub enum Event {
    /// So many jobs are before it.
    Queued { position: usize },
    /// A step of one picture is done; 0 is the state before the first.
    Step(Step),
    /// An unfinished picture.
    Preview(Preview),
    /// A picture is finished.
    Picture { index: usize, made: Arc<Made> },
    /// All are.
    Done,
    /// There will be no more pictures.
    Error(ApiError),
    /// It was given up.
    Cancelled,
}

/// A step of a picture.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Step {
    /// Which picture of the job, from 0.
    pub picture: usize,
    /// Steps done.
    pub done: usize,
    pub steps: usize,
    /// Positions whose token changed, row-major over the token grid.
    pub changed: Vec<usize>,
    /// Their tokens; the number of codes stands for the mask.
    pub codes: Vec<i64>,
    /// Entropy in nats of what these tokens were drawn from; null where the network was
    /// not asked. Only if the job asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entropy: Option<Vec<Option<f32>>>,
}

/// An unfinished picture.
#[derive(Clone, Debug)]
pub struct Preview {
    pub picture: usize,
    /// Which preview of the picture, from 0.
    pub index: usize,
    pub done: usize,
    pub steps: usize,
    pub image: Arc<Picture>,
}

/// A finished picture in a list of events.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Finished {
    /// Which picture of the job, from 0.
    pub index: usize,
    /// Its name below /api/pictures.
    pub id: String,
    pub seed: u64,
}

impl Event {
    /// Whether nothing comes after it.
    pub fn is_last(&self) -> bool {
        matches!(self, Event::Done | Event::Error(_) | Event::Cancelled)
    }

    /// The event's name in a stream.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Queued { .. } => "queued",
            Event::Step(_) => "step",
            Event::Preview(_) => "preview",
            Event::Picture { .. } => "picture",
            Event::Done => "done",
            Event::Error(_) => "error",
            Event::Cancelled => "cancelled",
        }
    }

    /// The event's data in a stream. A preview's picture is fetched, not sent.
    pub fn data(&self) -> serde_json::Value {
        let object = |value: serde_json::Result<serde_json::Value>| value.unwrap_or_default();
        match self {
            Event::Queued { position } => serde_json::json!({ "position": position }),
            Event::Step(step) => object(serde_json::to_value(step)),
            Event::Preview(Preview {
                picture,
                index,
                done,
                steps,
                ..
            }) => serde_json::json!({
                "picture": picture, "index": index, "done": done, "steps": steps,
            }),
            Event::Picture { index, made } => object(serde_json::to_value(Finished {
                index: *index,
                id: made.id.clone(),
                seed: made.picture.record.request.seed,
            })),
            Event::Done | Event::Cancelled => serde_json::json!({}),
            Event::Error(error) => {
                let body: ErrorBody = error.body();
                object(serde_json::to_value(body))
            }
        }
    }
}
