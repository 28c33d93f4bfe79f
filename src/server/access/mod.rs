//! Who may ask: which names the server answers to, which sites may use it, which token is
//! needed, and what browsers are told about its pages.

mod headers;
mod hosts;
mod token;

use std::sync::Arc;

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::Router;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::csrf::{CsrfLayer, ProtectionError};

use self::hosts::Hosts;
use self::token::Token;
use super::error::ApiError;
use super::settings::Settings;

/// Why a server cannot be set up so.
#[derive(Debug, thiserror::Error)]
#[error("origin {0:?}: expected scheme and host, such as https://pictures.example")]
pub struct OriginError(String);

/// `router` behind all guards, the outermost last.
///
/// # Errors
///
/// An allowed origin that is none.
pub fn guarded(router: Router, settings: &Settings) -> Result<Router, OriginError> {
    let mut csrf = CsrfLayer::new();
    let mut origins = Vec::new();
    for origin in &settings.allow_origins {
        let wrong = || OriginError(origin.clone());
        csrf = csrf.add_trusted_origin(origin).map_err(|_| wrong())?;
        origins.push(HeaderValue::from_str(origin).map_err(|_| wrong())?);
    }
    let csrf = csrf.with_rejection_response(|_: ProtectionError| -> Response {
        let message = "requests from other sites are refused (--allow-origin names one)";
        ApiError::new(StatusCode::FORBIDDEN, message).into_response()
    });
    let mut router = router;
    if let Some(token) = &settings.token {
        let token = Arc::new(Token::new(token));
        router = router.layer(from_fn_with_state(token, token::demand));
    }
    router = router.layer(csrf);
    if !origins.is_empty() {
        router = router.layer(cors(origins));
    }
    let hosts = Arc::new(Hosts::new(settings));
    Ok(router
        .layer(from_fn_with_state(hosts, hosts::demand))
        .layer(from_fn(headers::add)))
}

/// Nothing of the kind is said to sites that are not allowed.
fn cors(origins: Vec<HeaderValue>) -> CorsLayer {
    let exposed = ["retry-after", "x-request-id", "x-should-retry"];
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([
            AUTHORIZATION,
            CONTENT_TYPE,
            HeaderName::from_static("last-event-id"),
        ])
        .expose_headers(exposed.map(HeaderName::from_static))
}
