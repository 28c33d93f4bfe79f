//! The part of AUTOMATIC1111's API that its clients use: Open WebUI, SillyTavern, LibreChat,
//! plugins of GIMP.

mod lists;
mod make;
mod progress;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::state::Shared;

pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(make::txt2img))
        .routes(routes!(make::img2img))
        .routes(routes!(progress::show))
        .routes(routes!(progress::interrupt))
        .routes(routes!(lists::options, lists::set_options))
        .routes(routes!(lists::samplers))
        .routes(routes!(lists::schedulers))
        .routes(routes!(lists::models))
        .routes(routes!(lists::vaes))
        .routes(routes!(lists::upscalers))
        .routes(routes!(lists::latent_upscale_modes))
}
