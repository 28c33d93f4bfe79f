//! Training of the diffusion model: an experiment's parts to a run of the engine.

pub mod config;
pub mod data;
pub mod line;
pub mod model;
pub mod plan;
pub mod preview;
pub mod session;
pub mod start;
mod start_weights;
pub mod step;
pub mod task;
pub mod validation;

pub use config::TrainConfig;
pub use data::DataConfig;
pub use line::LogLine;
pub use model::{ConditionParts, TextTraining, TrainingModel};
pub use session::Session;
pub use start::{InitialModel, WeightsConfig};
pub use task::{DiffusionTask, RunData};

/// The model's file in a checkpoint folder.
pub const MODEL: &str = "model.safetensors";
