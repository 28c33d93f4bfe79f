//! This program's own API: what the others have no room for.

mod hf;
mod jobs;
mod model;
mod pictures;
mod runs;
mod settings;
mod trace;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::state::Shared;

pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(model::show))
        .routes(routes!(model::palette))
        .routes(routes!(jobs::create))
        .routes(routes!(jobs::show, jobs::cancel))
        .routes(routes!(jobs::events))
        .routes(routes!(jobs::preview))
        .routes(routes!(pictures::list))
        .routes(routes!(pictures::show, pictures::remove))
        .routes(routes!(pictures::png))
        .routes(routes!(trace::trace))
        .routes(routes!(trace::step))
        .routes(routes!(settings::of_png))
        .routes(routes!(settings::tokens))
        .routes(routes!(runs::list))
        .routes(routes!(runs::log))
        .routes(routes!(runs::sheet))
        .routes(routes!(hf::make))
}
