//! The front door: a model opened, pictures made of it.
//!
//! ```no_run
//! use vqdiffusion::Pipeline;
//!
//! # fn main() -> Result<(), vqdiffusion::Error> {
//! let pipeline = Pipeline::open("checkpoints/emoji.safetensors")?;
//! let made = pipeline.pictures(&["red heart"], &pipeline.usual().seed(3))?;
//! made[0].write_png("heart.png")?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Pipeline::open`] settles device, number format and threads ([`PipelineBuilder`] for
//! other choices); [`Pipeline::usual`] gives the options that suit the model, for which
//! [`PictureOptions`] has a method each; [`Maker`] makes pictures batch by batch and lets
//! an observer follow and stop them. Pictures that start from others are an [`Edit`]
//! among the options; a written PNG holds a [`Record`] that repeats it.

mod canvas;
mod class_names;
mod codec;
mod conditioner;
pub mod convert;
mod edit;
mod error;
mod film;
mod kept_tokens;
mod load;
mod maker;
mod open;
mod options;
mod record;
mod sampling;
mod selection;
mod subject;
mod trace;

pub use canvas::{Canvas, EditError, Margins};
pub use class_names::{class_named, imagenet_names, label, ClassNameError};
pub use codec::LoadedCodec;
pub use conditioner::{learned_null, Conditioner};
pub use edit::{Edit, EditRecord};
pub use error::Error;
pub use film::Film;
pub use kept_tokens::KeptTokens;
pub use load::{check_weights, Pipeline};
pub use maker::{MadePicture, Maker, ObserveStep, SamplingStep};
pub use open::PipelineBuilder;
pub use options::{OptionsError, PictureOptions, PictureSettings};
pub use record::{Record, RecordError};
pub use sampling::{useful_threads, Edits, Origin};
pub use selection::{candidates_of, Ranking, Selection, SelectionError};
pub use subject::{ConditionError, Request, Subject};
pub use trace::{Trace, TracedStep, TracedWord};
