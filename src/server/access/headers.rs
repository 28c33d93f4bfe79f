//! What every answer says: who asked, what browsers may do with it; and that an error is an
//! error object, whoever made it.

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::header::{HeaderName, HeaderValue, CACHE_CONTROL, CONTENT_TYPE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::server::error::ApiError;
use crate::server::id::random_id;

/// Scripts, styles and requests of this server alone; no frames, forms or inline scripts.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data: blob:; manifest-src 'self'; \
    frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Bytes of a message that a library made, at most.
const MOST_MESSAGE: usize = 4_096;

pub async fn add(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let mut response = as_error_object(response).await;
    let headers = response.headers_mut();
    let fixed = [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("x-frame-options", "DENY"),
    ];
    for (name, value) in fixed {
        let name = HeaderName::from_static(name);
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Pictures and states are not kept by anyone on the way.
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(&format!("req_{}", random_id())) {
        headers.insert("x-request-id", id);
    }
    response
}

/// `response` with the text of a library's refusal in an error object.
async fn as_error_object(response: Response) -> Response {
    let status = response.status();
    let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|kind| {
        kind.to_str()
            .is_ok_and(|kind| kind.starts_with("application/json"))
    });
    if !(status.is_client_error() || status.is_server_error()) || is_json {
        return response;
    }
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, MOST_MESSAGE).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let message = match (text.trim(), status.as_u16()) {
        ("", 405) => "this route takes another method; the Allow header names it",
        ("", _) => status.canonical_reason().unwrap_or("refused"),
        (text, _) => text,
    };
    let mut answer = ApiError::new(status, message).into_response();
    for name in ["allow", "retry-after"] {
        if let Some(value) = parts.headers.get(name) {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    answer
}
