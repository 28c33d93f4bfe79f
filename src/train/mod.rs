//! Training of the diffusion model, and of the image codec ([`codec`]).

pub mod branch;
pub mod checkpoint;
pub mod codec;
pub mod config;
pub mod ema;
pub mod error;
pub mod learning_rate;
pub mod log;
pub mod model;
pub mod official;
pub mod optimizer;
pub mod parameters;
pub mod plan;
pub mod preview;
mod range;
pub mod run;
pub mod start;
pub mod state;
pub mod tensorboard;
pub mod trainer;
pub mod validation;

pub use config::{Recipe, TrainConfig};
pub use error::TrainError;
pub use model::{ConditionParts, TextTraining, TrainingModel};
pub use parameters::{Parameters, TrainableWeights};
pub use state::RunState;
