//! The pictures of a job as OpenAI's events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::response::sse::Event as Sent;
use axum::response::Response;
use futures_util::stream;
use serde_json::{json, Value};

use super::answer::Usage;
use crate::server::blocking::blocking;
use crate::server::error::ApiError;
use crate::server::jobs::{CancelOnDrop, Event, Made, Preview};
use crate::server::shown::{base64, Shown};
use crate::server::streams;

struct State {
    job: CancelOnDrop,
    next: usize,
    ended: bool,
    shown: Shown,
    own: [u32; 2],
    kind: &'static str,
}

/// The stream of a job's pictures in `shown`, of the model's size `own`. When the client
/// goes away, so does the job.
pub fn answer(job: CancelOnDrop, shown: Shown, own: [u32; 2], kind: &'static str) -> Response {
    let state = State {
        job,
        next: 0,
        ended: false,
        shown,
        own,
        kind,
    };
    streams::answer(stream::unfold(state, |mut state| async move {
        let event = state.event().await?;
        Some((Ok::<_, Infallible>(event), state))
    }))
}

impl State {
    async fn event(&mut self) -> Option<Sent> {
        while !self.ended {
            let event = self.job.0.event(self.next).await?;
            self.next += 1;
            let sent = match event.as_ref() {
                Event::Preview(preview) => self.partial(preview.clone()).await,
                Event::Picture { made, .. } => self.completed(made.clone()).await,
                Event::Error(error) => Err(error.clone()),
                Event::Cancelled => Err(ApiError::unavailable("the job was given up")),
                Event::Done => return None,
                Event::Queued { .. } | Event::Step(_) => continue,
            };
            return Some(sent.unwrap_or_else(|error| {
                self.ended = true;
                streams::event("error", &error.body())
            }));
        }
        None
    }

    async fn partial(&self, preview: Preview) -> Result<Sent, ApiError> {
        let shown = self.shown;
        let file = blocking(move || shown.bare_file(&preview.image)).await?;
        let mut fields = self.fields("partial_image", &file);
        fields["partial_image_index"] = preview.index.into();
        Ok(self.sent("partial_image", &fields))
    }

    async fn completed(&self, made: Arc<Made>) -> Result<Sent, ApiError> {
        let shown = self.shown;
        let of = made.clone();
        let file = blocking(move || shown.file(&of)).await?;
        let mut fields = self.fields("completed", &file);
        fields["usage"] = json!(Usage::of(std::slice::from_ref(&made)));
        fields["seed"] = made.picture.record.request.seed.into();
        Ok(self.sent("completed", &fields))
    }

    fn fields(&self, what: &str, file: &[u8]) -> Value {
        let [width, height] = self.shown.size(self.own);
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        json!({
            "type": format!("{}.{what}", self.kind),
            "b64_json": base64(file),
            "background": "opaque",
            "created_at": since.map_or(0, |since| since.as_secs()),
            "output_format": self.shown.format.name(),
            "quality": "auto",
            "size": format!("{width}x{height}"),
        })
    }

    fn sent(&self, what: &str, fields: &Value) -> Sent {
        streams::event(&format!("{}.{what}", self.kind), fields)
    }
}
