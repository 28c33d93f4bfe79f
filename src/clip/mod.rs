//! CLIP: the text condition of VQ-Diffusion.

mod cleaning;
mod html;
pub mod merges;
mod repair;
pub mod text;
mod token_rule;
pub mod tokenizer;

pub use merges::{Merges, MergesError};
pub use text::{TextConfig, TextEncoder};
pub use token_rule::TokenRule;
pub use tokenizer::{ClipTokenizer, TokenizerError};
