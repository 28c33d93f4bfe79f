//! Training of the image codec: a VQ-VAE whose codebook follows the encoder by
//! exponential averages (reconstruction and commitment; no adversarial part).

pub mod checkpoint;
pub mod config;
pub mod run;
pub mod start;
pub mod trainer;

pub use config::{CodecTrainConfig, Reconstruction, Trained};
pub use trainer::{CodecStep, CodecTrainer};
