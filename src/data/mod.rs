//! What the trainer reads: batches of image tokens with their conditions.

pub mod batch;

pub use batch::{Batch, DataError, Samples, TokenLoader};
