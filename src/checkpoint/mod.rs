//! Files of models: PyTorch pickles and safetensors, the layouts in them (our own, the
//! official one, diffusers', CLIP's), and the model shapes that follow from the tensors.

mod beside;
pub mod clip;
pub mod codec;
pub mod config_file;
mod derived;
pub mod diffusers;
pub mod error;
pub mod hub;
pub mod infer;
pub mod inspect;
mod keys;
pub mod load;
pub mod native;
pub mod official;
pub mod open;
pub mod pytorch;
pub mod report;
mod safetensors_file;
pub mod state_dict;
mod tensor_file;

pub use clip::vocabulary;
pub use codec::decoder;
pub use codec::file::{self as codec_file, CodecFile};
pub use error::{LoadError, WriteError};
pub use load::Loader;
pub use official::WeightSet;
pub use open::{Checkpoint, Layout, OpenOptions};
pub use report::LoadReport;
pub use state_dict::{Entry, StateDict};
pub use tensor_file::read_tensors;
