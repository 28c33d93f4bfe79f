//! VQ-Diffusion and Improved VQ-Diffusion on libtorch: discrete-diffusion
//! text-to-image generation (arXiv 2111.14822, arXiv 2205.16007).
//!
//! ```
//! use vqdiffusion::Pipeline;
//!
//! # fn main() -> Result<(), vqdiffusion::Error> {
//! let pipeline = Pipeline::open("checkpoints/emoji.safetensors")?;
//! let options = pipeline.usual().seed(3).steps(5);
//! let made = pipeline.pictures(&["red heart"], &options)?;
//! # let folder = tempfile::tempdir().expect("a folder");
//! # let folder = folder.path();
//! made[0].write_png(folder.join("heart.png"))?;
//! # let again = vqdiffusion::Record::read(folder.join("heart.png"))?;
//! # assert_eq!(pipeline.repeat(&again, None)?.picture, made[0].picture);
//! # Ok(())
//! # }
//! ```
//!
//! # Where to read
//!
//! [`pipeline`] is the front door and says what its types are for; `examples/` has small
//! programs on it: `sample`, `edit`, `convert`, `train`, `tokens`. Then by question:
//!
//! | question | room |
//! |---|---|
//! | How does the method work? | [`diffusion`]: schedule, posterior, objective, samplers, by equation |
//! | What are the networks? | [`transformer`], [`codec`], [`clip`]; the whole model's shape is [`model`] |
//! | How is a model trained? | [`experiment`] (its YAML), [`train`], [`data`] |
//! | Which files are read and written? | [`checkpoint`], [`picture`], [`files`] |
//! | How good is it? | [`evaluate`] |
//! | How is it served? | `server` (feature `serve`) |
//! | What does libtorch need? | [`torch`] |
//!
//! The command line is `cli`, behind the feature of that name, which is on by default;
//! `default-features = false` leaves it and the terminal's crates out, and so the HTTP
//! server with its own (feature `serve`).
//!
//! Errors are types of their rooms that keep their source; [`Error`] is the front door's.
//! All are `Send + Sync + 'static`. Messages go to the [`log`] crate.

pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clip;
pub mod codec;
pub mod config_error;
pub mod data;
pub mod diffusion;
pub mod evaluate;
pub mod experiment;
pub mod files;
pub mod guard;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod picture;
pub mod pipeline;
pub mod random;
pub mod ranks;
#[cfg(feature = "serve")]
pub mod server;
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
