//! Files of models: PyTorch pickles and safetensors, the layouts in them, and the
//! model shapes that follow from the tensors.

pub mod config_file;
pub mod error;
pub mod infer;
pub mod inspect;
pub mod load;
pub mod native;
pub mod official;
pub mod official_yaml;
pub mod open;
pub mod pytorch;
pub mod state_dict;

pub use error::LoadError;
pub use load::{LoadReport, Loader};
pub use official::WeightSet;
pub use open::{Checkpoint, Layout, OpenOptions};
pub use state_dict::{Entry, StateDict};
