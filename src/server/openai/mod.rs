//! OpenAI's image API: what its clients send and read.

mod answer;
mod edits;
mod generations;
mod models;
mod stream;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::state::Shared;

pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(models::list))
        .routes(routes!(models::one))
        .routes(routes!(generations::make))
        .routes(routes!(edits::make))
}
