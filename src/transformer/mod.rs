//! The denoising transformer p_θ(x̂_0 | x_t, t, y) of VQ-Diffusion.
//!
//! Letters of the shape comments: B batch, L image tokens, K codes, D width,
//! S text positions, C text width, H heads, T diffusion steps, A redrawn positions, G of a
//! group of steps.

pub mod attention;
pub mod block;
pub mod config;
pub mod denoiser;
pub mod dropout;
pub mod embedding;
pub mod feed_forward;
pub mod local;
pub mod norm;
pub mod recompute;

pub use config::{Conditioning, DenoiserConfig, NullClass};
pub use denoiser::{Condition, Denoiser};
pub use dropout::{Dropout, DropoutRates};
pub use local::KeptKeys;
