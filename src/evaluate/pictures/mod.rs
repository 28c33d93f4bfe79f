//! Pictures of any origin against real ones, by the features of the measures' networks.
//!
//! [`set`] opens pictures, [`networks`] and [`extract`] make their features, which [`cache`]
//! keeps by content and [`gathered`] holds; [`measure`] computes figures of features,
//! [`compare`] those of two sets, [`report`] holds what is found, [`run`] does all of it.

pub mod cache;
pub mod captions;
pub mod compare;
mod error;
pub mod extract;
pub mod gathered;
pub mod measure;
pub mod networks;
pub mod report;
pub mod run;
pub mod set;

pub use error::ComparisonError;
