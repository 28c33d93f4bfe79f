//! Training of the diffusion model.

pub mod learning_rate;
pub mod model;
pub mod parameters;

pub use model::{TextTraining, TrainingModel};
pub use parameters::{Parameters, TrainableWeights};
