//! What the `tch` bindings lack: device choice, run-time loading of CUDA,
//! allocator settings, layers of transformers, and named weights.

pub mod adamw;
pub mod allocator;
pub mod attention;
pub mod c10d;
pub mod cuda;
pub mod cuda_part;
pub mod device;
pub mod fault;
pub mod foreach;
pub mod graph;
pub mod host;
pub mod linear;
pub mod nccl;
pub mod norm;
pub mod params;
pub mod profile;
pub mod runtime;
mod shim;
pub mod terminate;
pub mod version;

pub use linear::Linear;
pub use norm::LayerNorm;
pub use params::{Init, Params, WeightSource};
