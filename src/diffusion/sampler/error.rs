//! Why a run is not possible.

/// Why options make no run.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum SamplerError {
    #[error("steps is {steps}, expected 1 to {timesteps}")]
    Steps { steps: usize, timesteps: usize },
    #[error(
        "steps is {steps}, which the official rule cannot make of {timesteps} timesteps; \
         it can make {allowed}"
    )]
    NotOfficial {
        steps: usize,
        timesteps: usize,
        allowed: String,
    },
    #[error("{option} is {found}, expected {expected}")]
    Option {
        option: &'static str,
        found: String,
        expected: &'static str,
    },
}

/// The observer of a run asked it to stop: there is no picture.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("stopped before the last step")]
pub struct Stopped;
