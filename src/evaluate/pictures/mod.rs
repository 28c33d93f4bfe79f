//! Pictures of any origin against real ones, by the features of the measures' networks.
//!
//! [`set`] opens pictures, [`networks`] and [`extract`] make their features, which [`cache`]
//! keeps by content, [`measure`] compares the features, [`report`] holds what it finds, [`run`] does all of it.

pub mod cache;
pub mod captions;
mod error;
pub mod extract;
pub mod measure;
pub mod networks;
pub mod report;
pub mod run;
pub mod set;

pub use error::ComparisonError;
