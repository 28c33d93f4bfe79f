//! Training: one engine for all tasks, and the tasks on it, the diffusion model and the image
//! codec.

pub mod codec;
pub mod diffusion;
pub mod engine;
pub mod error;
pub mod official;

pub use diffusion::{ConditionParts, TextTraining, TrainConfig, TrainingModel};
pub use engine::{Parameters, Recipe, RunState, TrainableWeights};
pub use error::TrainError;
