//! The whole model's shape: everything that must be known besides the weights.

use serde::{Deserialize, Serialize};

use crate::clip::TextConfig;
use crate::codec::CodecConfig;
use crate::diffusion::{Schedule, Transition};
use crate::transformer::DenoiserConfig;

/// What stands for "no text" in guidance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NullText {
    /// A learned embedding in place of the text features (`learnable_cf`).
    Learned,
    /// The features of the empty string.
    EmptyPrompt,
}

/// Shape of a text-to-image model: text tower, denoiser with its noise, codec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    pub denoiser: DenoiserConfig,
    pub transition: Transition,
    pub text: TextConfig,
    pub null_text: NullText,
    pub codec: CodecConfig,
}

impl ModelConfig {
    /// Whether the model uses a subset of the codec's codes, so that it needs the
    /// mapping between the two.
    pub fn needs_code_mapping(&self) -> bool {
        self.denoiser.codes != self.codec.codebook
    }

    pub fn schedule(&self) -> Schedule {
        Schedule::new(
            &self.transition,
            self.denoiser.timesteps as usize,
            self.denoiser.codes,
        )
    }

    /// Height and width of a picture in pixels.
    pub fn picture_size(&self) -> [i64; 2] {
        self.denoiser.grid.map(|side| side * self.codec.factor())
    }
}
