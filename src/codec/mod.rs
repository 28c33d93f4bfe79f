//! The image codec: pictures to token grids and back.
//!
//! Letters of the shape comments: B batch, H W picture sides, h w grid sides,
//! L = h·w tokens, N codebook entries, E embedding width, Z latent channels.

pub mod codebook;
pub mod config;
pub mod decoder;
pub mod encoder;
pub mod image_codec;
pub mod layers;
pub mod price;
pub mod quantizer;
pub mod usage;

pub use config::{CodecConfig, QuantizerKind};
pub use image_codec::{ImageCodec, Rounding};
