//! CLIP: the text condition of VQ-Diffusion.

mod cleaning;
pub mod text;
mod text_repair;
pub mod tokenizer;

pub use text::{TextConfig, TextEncoder};
pub use tokenizer::{ClipTokenizer, TokenizerError};
