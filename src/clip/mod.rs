//! CLIP: the text tower as the condition of VQ-Diffusion, and both towers as a measure.

mod cleaning;
mod html;
pub mod merges;
mod repair;
mod residual_block;
pub mod text;
mod token_rule;
pub mod tokenizer;
pub mod vision;

pub use merges::{Merges, MergesError};
pub use residual_block::ClipActivation;
pub use text::{TextConfig, TextEncoder};
pub use token_rule::TokenRule;
pub use tokenizer::{ClipTokenizer, TokenizerError};
pub use vision::{VisionConfig, VisionEncoder};
