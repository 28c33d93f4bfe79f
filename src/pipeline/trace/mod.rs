//! What a run looked like from inside: every step's tokens, the entropy of its
//! predictions, and where the words of the prompt drew attention. All of it is
//! computed after the run, from the states it went through.

mod files;
mod follow;
mod maps;

pub use follow::{Trace, TracedStep, TracedWord};
