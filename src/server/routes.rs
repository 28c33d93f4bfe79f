//! All routes, and their description.

use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{from_fn, from_fn_with_state, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ErrorBody, ErrorObject, Failures};
use super::model::Phase;
use super::settings::MOST_BODY;
use super::state::Shared;
use super::{api, openai, page, sdapi};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "vqdiffusion",
        description = "Pictures from text by VQ-Diffusion: OpenAI's image API, a part of \
        AUTOMATIC1111's, and this program's own.",
    ),
    components(schemas(ErrorBody, ErrorObject))
)]
struct Description;

/// Everything that is served, without the guards.
pub fn router(server: Shared) -> Router {
    let (router, mut description) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(health))
        .routes(routes!(ready))
        .routes(routes!(metrics))
        .merge(openai::router())
        .merge(sdapi::router())
        .merge(api::router())
        .split_for_parts();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = description.components.get_or_insert_default();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    let description = Json(description);
    let mut router = router.route("/openapi.json", get(|| async move { description }));
    for path in page::paths() {
        router = router.route(path, get(page::file));
    }
    router
        .fallback(|| async { ApiError::not_found("route") })
        .layer(from_fn(options))
        .layer(DefaultBodyLimit::max(MOST_BODY))
        .route_layer(from_fn_with_state(server.clone(), count))
        .with_state(server)
}

/// Clients ask what a route can do before they use it.
async fn options(request: Request, next: Next) -> Response {
    if request.method() != Method::OPTIONS {
        return next.run(request).await;
    }
    let allow = HeaderValue::from_static("GET, HEAD, POST, DELETE, OPTIONS");
    (StatusCode::NO_CONTENT, [("allow", allow)]).into_response()
}

/// Whether the process is well.
#[derive(Serialize, ToSchema)]
struct Health {
    status: &'static str,
}

/// Whether the process answers.
#[utoipa::path(get, path = "/health", tag = "process",
    responses((status = 200, body = Health), Failures))]
async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether the model is loaded.
#[utoipa::path(get, path = "/ready", tag = "process",
    responses((status = 200, body = Health), Failures))]
async fn ready(State(server): State<Shared>) -> Result<Json<Health>, ApiError> {
    let phase = server.model.as_ref().map(|model| *model.phase.borrow());
    match phase {
        _ if *server.ending.borrow() => Err(ApiError::unavailable("the server is ending")),
        Some(Phase::Loading) => Err(ApiError {
            retry_after: Some(1),
            retry: Some(true),
            ..ApiError::unavailable("the model is being loaded")
        }),
        Some(Phase::Ended) => Err(ApiError::unavailable("the model's thread has ended")),
        Some(Phase::Ready) | None => Ok(Json(Health { status: "ready" })),
    }
}

/// Counters and gauges of the server.
#[utoipa::path(get, path = "/metrics", tag = "process",
    responses((status = 200, description = "Prometheus text", body = String,
        content_type = "text/plain"), Failures))]
async fn metrics(State(server): State<Shared>) -> Response {
    let text = server.metrics.text(server.model.as_deref());
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, kind)], text).into_response()
}

/// Counts a request by its route.
async fn count(State(server): State<Shared>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("other", MatchedPath::as_str).to_string();
    let method = match request.method().as_str() {
        method @ ("GET" | "HEAD" | "POST" | "DELETE" | "OPTIONS" | "PUT" | "PATCH") => method,
        _ => "other",
    };
    let method = method.to_string();
    let response = next.run(request).await;
    server
        .metrics
        .request(method, route, response.status().as_u16());
    response
}
