//! Training of the diffusion model.

pub mod config;
pub mod ema;
pub mod learning_rate;
pub mod model;
pub mod optimizer;
pub mod parameters;
pub mod state;

pub use config::{Recipe, TrainConfig};
pub use model::{ConditionParts, TextTraining, TrainingModel};
pub use parameters::{Parameters, TrainableWeights};
pub use state::RunState;
