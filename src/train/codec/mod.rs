//! Training of the image codec: a VQ-VAE whose codebook follows the encoder by
//! exponential averages (reconstruction and commitment; no adversarial part).

mod ahead;
pub mod config;
pub mod data;
pub mod line;
mod old_run;
pub mod session;
pub mod start;
pub mod step;
pub mod task;
pub mod weights;

pub use config::{CodecTrainConfig, Reconstruction, Trained};
pub use data::PictureConfig;
pub use line::CodecLine;
pub use task::CodecTask;
pub use weights::CodecWeights;

/// The codec's file, in a checkpoint folder and at the top of a run's.
pub const MODEL: &str = "codec.safetensors";
