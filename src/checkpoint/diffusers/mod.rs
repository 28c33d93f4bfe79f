//! The folder that diffusers' `VQDiffusionPipeline` saves and loads: one sub-folder a
//! component, each with a JSON configuration and weights.

mod config;
mod describe;
mod export;
mod import;
mod key_map;
mod layout;
mod tokenizer;

pub use export::{is_replaceable, write};
pub use import::{missing_file, open, rename};
pub use layout::{is_folder, read_component, read_weight_file, wanted_files, Component, INDEX};
