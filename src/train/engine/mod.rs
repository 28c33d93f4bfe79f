//! The training engine: steps, validations, checkpoints, log and signals of a run, whatever
//! is trained. What is trained is a [`Task`]: it gives gradients for samples and says what
//! the log and a checkpoint hold of it.
//!
//! A run's folder holds checkpoints ([`checkpoint`], [`folder`]), the log ([`log`]) and the
//! sample sheets. All that a run changes is in [`RunState`] and the task, so that a run goes
//! on from a checkpoint as if it had never ended.

pub mod checkpoint;
pub mod ema;
pub mod folder;
pub mod growing;
pub mod learning_rate;
pub mod log;
pub mod manifest;
pub mod muon;
pub mod optimizer;
pub mod parameters;
pub mod range;
pub mod recipe;
pub mod reduction;
pub mod resume;
pub mod rules;
pub mod run;
pub mod set_aside;
pub mod settings;
pub mod share;
pub mod state;
pub mod task;
pub mod tensorboard;

pub use folder::{RunFolder, SavedStep};
pub use parameters::{Parameters, TrainableWeights};
pub use recipe::Recipe;
pub use resume::Resume;
pub use rules::Rules;
pub use run::{Ended, Event, Run};
pub use settings::{CheckpointConfig, GradientFormat, Settings};
pub use share::Share;
pub use state::RunState;
pub use task::{Better, Line, Measure, Task};
