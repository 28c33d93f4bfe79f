//! The layout of the official implementation (microsoft/VQ-Diffusion): its checkpoints, its
//! configurations, and our model written as it would be there.

mod config;
mod document;
pub mod export;
mod import;
mod key_names;
mod options;

pub(super) use config::check::norm_name;
pub use config::named::{places, resolve};
pub use config::OfficialConfig;
pub use document::{Document, OptionError};
pub(super) use import::{collect, entry, tensor_at};
pub use import::{read, read_mapping, OfficialKind, WeightSet};
pub use key_names::{
    canonical_name, is_recomputed, known_and_ignored, CODEC, CODE_MAPPING, DENOISER, NULL_TEXT,
    TEXT,
};
