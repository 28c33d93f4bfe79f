//! Whose way of making ids a text tower is fed with.

use serde::{Deserialize, Serialize};

/// Id that the official rule writes after the end marker.
pub const PAD_ID: i64 = 0;

/// How a text becomes ids. The byte pairs are the same; cleaning, padding and what
/// happens to a long text differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenRule {
    /// VQ-Diffusion's own: padded with 0, a text that is too long ends with the end
    /// marker.
    #[default]
    Official,
    /// `VQDiffusionPipeline` with the published tokenizer. Its padding is the token `!`
    /// (id 0), which makes every `!` of a prompt the padding's id instead of the
    /// word's; a text that is too long is cut and has no end marker; character
    /// references are only resolved by the repair.
    Diffusers,
    /// As [`Diffusers`](Self::Diffusers) with a tokenizer that pads with the end
    /// marker, so that `!` is an ordinary word.
    DiffusersEndPadding,
}

impl TokenRule {
    /// What follows the end marker, in a vocabulary of `size` entries.
    pub fn pad_id(&self, size: i64) -> i64 {
        match self {
            TokenRule::DiffusersEndPadding => size - 1,
            TokenRule::Official | TokenRule::Diffusers => PAD_ID,
        }
    }

    /// For configurations, which do not mention the usual rule.
    pub fn is_official(&self) -> bool {
        *self == TokenRule::Official
    }
}
