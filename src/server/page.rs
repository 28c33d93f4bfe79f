//! The page: its files lie in the binary, so that it works without a network.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use crate::files::sha256;

/// A file of the page: path, media type, bytes.
type File = (&'static str, &'static str, &'static [u8]);

macro_rules! files {
    ($($path:literal $kind:literal $name:literal,)*) => {
        &[$(($path, $kind, include_bytes!(concat!("../../web/", $name))),)*]
    };
}

const FILES: &[File] = files! {
    "/" "text/html; charset=utf-8" "index.html",
    "/app.css" "text/css; charset=utf-8" "app.css",
    "/icon.svg" "image/svg+xml" "icon.svg",
    "/main.js" "text/javascript; charset=utf-8" "main.js",
    "/server.js" "text/javascript; charset=utf-8" "server.js",
    "/tokens.js" "text/javascript; charset=utf-8" "tokens.js",
    "/make.js" "text/javascript; charset=utf-8" "make.js",
    "/inside.js" "text/javascript; charset=utf-8" "inside.js",
    "/redraw.js" "text/javascript; charset=utf-8" "redraw.js",
    "/gallery.js" "text/javascript; charset=utf-8" "gallery.js",
    "/compare.js" "text/javascript; charset=utf-8" "compare.js",
    "/runs.js" "text/javascript; charset=utf-8" "runs.js",
    "/chart.js" "text/javascript; charset=utf-8" "chart.js",
};

/// Whether `path` is one of the page's.
pub fn has(path: &str) -> bool {
    FILES.iter().any(|(file, _, _)| *file == path)
}

/// The paths of the page's files.
pub fn paths() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(path, _, _)| *path)
}

/// The file at the request's path; nothing if the browser has it already.
pub async fn file(uri: Uri, headers: HeaderMap) -> Response {
    let Some((_, kind, bytes)) = FILES.iter().find(|(path, _, _)| *path == uri.path()) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let tag = format!("\"{}\"", &sha256(bytes)[..16]);
    // Asked for again each time: another version of the program has other files.
    let fixed = [(ETAG, tag.clone()), (CACHE_CONTROL, "no-cache".into())];
    let known = headers
        .get(IF_NONE_MATCH)
        .and_then(|known| known.to_str().ok());
    let has_it = known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag));
    match has_it {
        true => (StatusCode::NOT_MODIFIED, fixed).into_response(),
        false => (fixed, [(CONTENT_TYPE, *kind)], *bytes).into_response(),
    }
}
