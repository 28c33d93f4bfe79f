//! CLIP: the text condition of VQ-Diffusion.

mod cleaning;
pub mod text;
mod text_repair;
mod token_rule;
pub mod tokenizer;

pub use text::{TextConfig, TextEncoder};
pub use token_rule::TokenRule;
pub use tokenizer::{ClipTokenizer, TokenizerError};
