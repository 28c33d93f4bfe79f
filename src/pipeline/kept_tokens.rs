//! The tokens of a picture in its PNG. The codec does not give a picture's own tokens back,
//! so that without them redrawing a part would change the rest a little.

use serde::{Deserialize, Serialize};

use crate::files::sha256;
use crate::picture::Picture;

/// Tokens of the pixels that they were decoded to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptTokens {
    /// SHA-256 of the model's weights.
    pub model_sha256: String,
    /// Row-major over the token grid.
    pub tokens: Vec<i64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    model_sha256: String,
    /// SHA-256 of the pixels: other pixels have other tokens, whatever a program that
    /// changed the picture left in the file.
    rgb_sha256: String,
    /// Hexadecimal digits of a token.
    digits: usize,
    tokens: String,
}

impl KeptTokens {
    /// Keyword of the PNG's text chunk.
    pub const KEYWORD: &'static str = "tokens";

    /// The text of the chunk in the PNG of `picture`.
    pub fn text(&self, picture: &Picture) -> String {
        let most = self.tokens.iter().copied().max().unwrap_or(0);
        let digits = format!("{most:x}").len();
        let hex = |token: &i64| format!("{token:0digits$x}");
        let text = Text {
            model_sha256: self.model_sha256.clone(),
            rgb_sha256: sha256(&picture.rgb),
            digits,
            tokens: self.tokens.iter().map(hex).collect(),
        };
        serde_json::to_string(&text).expect("named fields are JSON")
    }

    /// The tokens in the `texts` (keyword, value) of the PNG of `picture`; none if there
    /// are none or of other pixels.
    pub fn of(texts: &[(String, String)], picture: &Picture) -> Option<Self> {
        let (_, text) = texts.iter().find(|(keyword, _)| keyword == Self::KEYWORD)?;
        let text: Text = serde_json::from_str(text).ok()?;
        if text.rgb_sha256 != sha256(&picture.rgb) || !(1..=15).contains(&text.digits) {
            return None;
        }
        let digits = text.tokens.as_bytes().chunks(text.digits);
        let token = |digits| i64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        Some(KeptTokens {
            model_sha256: text.model_sha256,
            tokens: digits.map(token).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_belong_to_their_pixels() {
        let picture = Picture {
            width: 1,
            height: 2,
            rgb: vec![1, 2, 3, 4, 5, 6],
        };
        let kept = KeptTokens {
            model_sha256: "ab".into(),
            tokens: vec![7, 4095, 0],
        };
        let texts = |text: String| vec![(KeptTokens::KEYWORD.to_string(), text)];
        let written = texts(kept.text(&picture));
        assert_eq!(KeptTokens::of(&written, &picture), Some(kept));
        let mut other = picture.clone();
        other.rgb[0] = 9;
        assert_eq!(KeptTokens::of(&written, &other), None);
        assert_eq!(KeptTokens::of(&texts("[]".into()), &picture), None);
    }
}
