//! The networks whose features the measures compare.

pub mod clip;
pub mod dinov2;
pub mod inception;
pub mod lpips;
pub mod resnet;
pub mod weights;

pub use clip::Clip;
pub use dinov2::Dinov2;
pub use inception::Inception;
pub use lpips::Lpips;
pub use resnet::ResNet;
