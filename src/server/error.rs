//! What a client is told when something is wrong: OpenAI's error object, everywhere.

use axum::http::header::{HeaderValue, RETRY_AFTER};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::Json;
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::torch::fault::Fault;

/// Why a request gets no answer of its own.
#[derive(Clone, Debug)]
pub struct ApiError {
    pub status: StatusCode,
    pub message: String,
    /// The field that is wrong.
    pub param: Option<String>,
    /// Seconds after which it is worth trying again.
    pub retry_after: Option<u64>,
    /// Whether trying again can help, where the status does not say it.
    pub retry: Option<bool>,
}

/// OpenAI's error object.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    pub error: ErrorObject,
}

/// What is wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorObject {
    pub message: String,
    /// `invalid_request_error`, `authentication_error`, `permission_error`,
    /// `rate_limit_error` or `server_error`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The field that is wrong.
    pub param: Option<String>,
    /// The reason as one word.
    pub code: &'static str,
}

impl ApiError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        ApiError {
            status,
            message: message.into(),
            param: None,
            retry_after: None,
            retry: None,
        }
    }

    /// The field `param` cannot be so.
    pub fn field(param: &str, message: impl Into<String>) -> Self {
        ApiError {
            param: Some(param.into()),
            ..Self::new(StatusCode::BAD_REQUEST, message)
        }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// There is no such thing.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no such {what}"))
    }

    /// No place in the queue; one is expected after `seconds`.
    pub fn busy(seconds: u64) -> Self {
        ApiError {
            retry_after: Some(seconds),
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                format!("the queue is full; try again in {seconds} s"),
            )
        }
    }

    /// The server is ending, or does not serve this.
    pub fn unavailable(message: impl Into<String>) -> Self {
        ApiError {
            retry: Some(false),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
        }
    }

    /// The work panicked.
    pub fn fault(fault: &Fault) -> Self {
        match fault {
            Fault::Memory(asked) => {
                Self::unavailable(format!("not enough memory for this: {asked}"))
            }
            Fault::Torch(_) | Fault::Program(_) => Self::internal(),
        }
    }

    /// The program's fault; the log says more.
    pub fn internal() -> Self {
        ApiError {
            retry: Some(false),
            ..Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "a fault of the server; its log says more",
            )
        }
    }

    /// The error object.
    pub fn body(&self) -> ErrorBody {
        let (kind, code) = match self.status.as_u16() {
            401 => ("authentication_error", "invalid_api_key"),
            403 => ("permission_error", "forbidden"),
            404 => ("invalid_request_error", "not_found"),
            405 => ("invalid_request_error", "method_not_allowed"),
            413 => ("invalid_request_error", "too_large"),
            415 => ("invalid_request_error", "unsupported_media_type"),
            429 => ("rate_limit_error", "queue_full"),
            503 => ("server_error", "unavailable"),
            500.. => ("server_error", "internal"),
            _ => ("invalid_request_error", "invalid_value"),
        };
        ErrorBody {
            error: ErrorObject {
                message: self.message.clone(),
                kind,
                param: self.param.clone(),
                code,
            },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if let Some(retry) = self.retry {
            let value = if retry { "true" } else { "false" };
            headers.insert("x-should-retry", HeaderValue::from_static(value));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer");
            headers.insert("www-authenticate", challenge);
        }
        response
    }
}

/// The answers that every route may give instead of its own; for the description of the
/// API alone.
#[derive(IntoResponses)]
#[allow(dead_code)]
pub enum Failures {
    /// Something in the request cannot be so.
    #[response(status = 400)]
    BadRequest(#[to_schema] ErrorBody),
    /// The token is missing or wrong.
    #[response(status = 401)]
    Unauthorized(#[to_schema] ErrorBody),
    /// A Host or a site that is not allowed.
    #[response(status = 403)]
    Forbidden(#[to_schema] ErrorBody),
    /// There is no such thing.
    #[response(status = 404)]
    NotFound(#[to_schema] ErrorBody),
    /// Another method is needed.
    #[response(status = 405)]
    MethodNotAllowed(#[to_schema] ErrorBody),
    /// The body is too large.
    #[response(status = 413)]
    TooLarge(#[to_schema] ErrorBody),
    /// The body is of another type than the route takes.
    #[response(status = 415)]
    UnsupportedMediaType(#[to_schema] ErrorBody),
    /// The queue is full; Retry-After says when to try again.
    #[response(status = 429)]
    Busy(#[to_schema] ErrorBody),
    /// A fault of the server.
    #[response(status = 500)]
    Internal(#[to_schema] ErrorBody),
    /// Not enough memory, no model, or the server is ending.
    #[response(status = 503)]
    Unavailable(#[to_schema] ErrorBody),
}
