//! A model by a protocol: pictures made as the papers made theirs, measured against real
//! ones, beside what was published.
//!
//! [`protocol`] is the file, [`asked`] what a model is asked for by it and which reals it is
//! compared with, [`made`] the pictures and their features block by block, [`report`] what
//! is found, [`run`] does all of it.

pub mod asked;
mod error;
pub mod made;
pub mod protocol;
pub mod report;
pub mod run;

pub use error::ModelError;
