//! The cleaning that a caption goes through before it is split into words.
//!
//! Python's rules decide the outcome, so they are followed to the letter where
//! they differ from Rust's: what `str.strip` takes for white space, and what
//! [`super::html`] and [`super::repair`] do.

use super::html::unescape;
use super::repair::repair;

/// Lower-cases `text`, repairs it ([`repair`]), resolves character
/// references twice, reduces white space to single spaces between words and
/// lower-cases again what the references brought in.
pub fn clean(text: &str) -> String {
    let repaired = repair(&text.to_lowercase());
    let unescaped = unescape(&unescape(&repaired));
    collapse_whitespace(unescaped.trim_matches(is_python_space))
        .trim_matches(is_python_space)
        .to_lowercase()
}

/// The cleaning of transformers' `CLIPTokenizer` (with ftfy): repairs `text`, reduces
/// white space and lower-cases.
pub fn clean_once(text: &str) -> String {
    collapse_whitespace(&repair(text))
        .trim_matches(is_python_space)
        .to_lowercase()
}

/// The characters that `str.strip` removes: Unicode white space and the four
/// ASCII separators.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

fn collapse_whitespace(text: &str) -> String {
    let mut collapsed = String::with_capacity(text.len());
    let mut in_space = false;
    for c in text.chars() {
        if !c.is_whitespace() {
            collapsed.push(c);
        } else if !in_space {
            collapsed.push(' ');
        }
        in_space = c.is_whitespace();
    }
    collapsed
}
