//! Reading and writing PyTorch checkpoint files without Python.
//!
//! [`TorchFile`] opens what `torch.save` and `torch.jit.save` write, in the zip format and in the
//! older sequential one, also when the file is split into parts. Nothing in a checkpoint is ever
//! executed: the pickle program inside becomes a graph of plain values ([`Pickle`]), and tensor
//! bytes are read one tensor at a time, when asked for.

mod dtype;
mod error;
mod gather;
mod legacy_format;
mod parts;
mod pickle;
mod signature;
mod tensor_ref;
mod torch_file;
mod write;
mod zip_format;

pub use dtype::DType;
pub use error::{CheckpointError, PickleError};
pub use parts::{PartsError, PartsReader};
pub use pickle::{Limits, Node, NodeId, Object, Pickle, PickleProgram};
pub(super) use signature::kind;
pub use tensor_ref::{StorageRef, TensorRef};
pub use torch_file::{Format, TorchFile};
pub use write::{Saved, SavedTensor, TorchWriter};
