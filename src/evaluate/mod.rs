//! Models, or pictures of any origin, measured against real pictures.
//!
//! [`run`] makes a model's pictures of one set and keeps them, [`protocol`] says where
//! measured pictures are from, [`report`] writes what any measure finds; the measures
//! themselves are users of these: [`emoji`] (is the picture the one asked for?), [`codec`]
//! (what does the image codec lose?), [`bound`] (how likely are held-out ones?), [`compare`] (by how much do two runs of the same prompts
//! differ?), [`pictures`] (how near are pictures of any origin
//! to real ones?), [`model`] (how near are a model's, made by a protocol?), and [`sweep`] (at which cost?).

pub mod bound;
pub mod codec;
pub mod compare;
pub mod emoji;
mod error;
pub mod mean;
pub mod model;
pub mod pictures;
pub mod protocol;
pub mod rate;
pub mod report;
pub mod run;
pub mod sweep;

pub use error::EvaluateError;
