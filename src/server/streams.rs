//! Streams of server-sent events.

use std::convert::Infallible;

use axum::response::sse::{Event as Sent, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{stream, Stream, StreamExt};
use tokio::time::timeout;

use super::settings::KEEP_ALIVE;

/// An answer of `events`, with comments where nothing happens.
pub fn answer(events: impl Stream<Item = Result<Sent, Infallible>> + Send + 'static) -> Response {
    let kept_alive = stream::unfold(Box::pin(events), |mut events| async move {
        match timeout(KEEP_ALIVE, events.next()).await {
            Ok(event) => Some((event?, events)),
            Err(_) => Some((Ok(Sent::default().comment("waiting")), events)),
        }
    });
    let mut response = Sse::new(kept_alive).into_response();
    // Proxies must not wait for the end.
    let unbuffered = axum::http::HeaderValue::from_static("no");
    response
        .headers_mut()
        .insert("x-accel-buffering", unbuffered);
    response
}

/// An event of this name with a value's JSON.
pub fn event(name: &str, value: &impl serde::Serialize) -> Sent {
    let data = serde_json::to_string(value).unwrap_or_else(|_| "{}".into());
    Sent::default().event(name).data(data)
}
