//! The token that clients must send, if the server was started with one.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::prelude::{Engine, BASE64_STANDARD};
use sha2::{Digest, Sha256};

use crate::server::error::ApiError;
use crate::server::page;

/// A token's hash: comparing hashes takes no longer for a better guess.
pub struct Token([u8; 32]);

impl Token {
    pub fn new(token: &str) -> Self {
        Token(Sha256::digest(token).into())
    }

    fn is(&self, other: &str) -> bool {
        let other: [u8; 32] = Sha256::digest(other).into();
        let differing = self
            .0
            .iter()
            .zip(other)
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        differing == 0
    }

    /// Whether the Authorization header holds the token: as `Bearer TOKEN`, or as the
    /// password of `Basic`.
    fn authorizes(&self, header: &str) -> bool {
        let Some((scheme, value)) = header.split_once(' ') else {
            return false;
        };
        let value = value.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.is(value);
        }
        let decoded = BASE64_STANDARD.decode(value).unwrap_or_default();
        let basic = String::from_utf8(decoded).unwrap_or_default();
        let password = basic.split_once(':').map(|(_, password)| password);
        scheme.eq_ignore_ascii_case("basic") && password.is_some_and(|given| self.is(given))
    }
}

/// Refuses a request without the token, but for the page, which says nothing, and for what
/// those ask who watch the process.
pub async fn demand(State(token): State<Arc<Token>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let open = ["/health", "/ready"].contains(&path) || page::has(path);
    let header = request.headers().get(AUTHORIZATION);
    let header = header.and_then(|header| header.to_str().ok()).unwrap_or("");
    if open || request.method() == Method::OPTIONS || token.authorizes(header) {
        return next.run(request).await;
    }
    let message = "this server needs its token: Authorization: Bearer TOKEN";
    ApiError::new(StatusCode::UNAUTHORIZED, message).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_bearers_or_a_password() {
        let token = Token::new("s3cret:x");
        let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        assert!(token.authorizes("Bearer s3cret:x"));
        assert!(token.authorizes("bearer  s3cret:x"));
        assert!(token.authorizes(&basic("user:s3cret:x")));
        assert!(token.authorizes(&basic(":s3cret:x")));
        let wrong = [
            "",
            "s3cret:x",
            "Bearer",
            "Bearer ",
            "Bearer s3cret",
            "Bearer s3cret:xx",
            "Basic s3cret:x",
            &basic("s3cret:x"),
            &basic(":"),
            "Digest s3cret:x",
        ];
        for header in wrong {
            assert!(!token.authorizes(header), "{header}");
        }
    }
}
