//! VQ-Diffusion and Improved VQ-Diffusion on libtorch: discrete-diffusion
//! text-to-image generation (arXiv 2111.14822, arXiv 2205.16007).

pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clip;
pub mod codec;
pub mod data;
pub mod diffusion;
pub mod evaluate;
pub mod experiment;
pub mod files;
pub mod guard;
pub mod memory;
pub mod model;
pub mod picture;
pub mod pipeline;
pub mod random;
pub mod size;
pub mod torch;
pub mod train;
pub mod transformer;
pub mod yaml;

pub use picture::Picture;
pub use pipeline::{
    Edit, Error, MadePicture, Maker, Margins, PictureOptions, Pipeline, PipelineBuilder, Record,
    Request, SamplingStep, Subject,
};
pub use torch::device::{DeviceChoice, Precision};
