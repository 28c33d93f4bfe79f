//! Repair of damaged Unicode text, with the outcome of Python's `ftfy.fix_text`
//! (6.3.1, default settings).
//!
//! The `plsfix` crate finds and undoes wrong encodings; the other steps are here.
//! Its own versions of those unescape HTML even in marked-up text, let ANSI escapes
//! pass and cut a long text at a byte that may lie inside a character. It knows one
//! encoding less than the original (Windows-1257, Baltic), so that mojibake from
//! there stays.

use std::sync::LazyLock;

use plsfix::TextFixerConfig;
use regex::Regex;
use unicode_normalization::UnicodeNormalization;

use super::cleaning::{named_reference, unescape_html, WINDOWS_1252_C1};

/// Longest piece, in characters, that is repaired as one. `plsfix` panics on
/// mojibake of some 300 000 characters, when its search runs out of steps; with the
/// original's 1 000 000 that could happen.
const SEGMENT_LENGTH: usize = 50_000;

/// ANSI terminal escape, such as the one that switches to red.
static TERMINAL_ESCAPE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\x1b\[[\d;]*[a-zA-Z]").expect("a valid pattern"));
static CHARACTER_REFERENCE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("&#?[0-9A-Za-z]{1,24};").expect("a valid pattern"));

/// Repairs lower-cased `text` line by line: character references, mojibake,
/// ligatures, character widths, curly quotes, line breaks, terminal escapes and
/// control characters; the result is in Unicode's form NFC.
///
/// A `<` marks the text as HTML from its line on, whose character references are
/// then left alone. Names of references written in capitals are not repaired, as
/// lower-cased text has none.
pub fn repair(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut is_html = false;
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        while !rest.is_empty() {
            let end = rest
                .char_indices()
                .nth(SEGMENT_LENGTH)
                .map_or(rest.len(), |(at, _)| at);
            let (segment, tail) = rest.split_at(end);
            is_html |= segment.contains('<');
            out.push_str(&repair_segment(segment, is_html));
            rest = tail;
        }
    }
    out
}

/// Repeats all steps until none changes the text.
fn repair_segment(segment: &str, is_html: bool) -> String {
    let mut text = segment.to_owned();
    loop {
        let unescaped = if is_html {
            text.clone()
        } else {
            unescape_complete_references(&text)
        };
        let decoded = undo_wrong_encoding(&unescaped);
        let standard = standard_characters(&decoded).replace("\r\n", "\n");
        let standard = standard.replace('\r', "\n");
        let plain = TERMINAL_ESCAPE.replace_all(&standard, "");
        let repaired: String = plain.chars().filter(|&c| !is_unwanted(c)).nfc().collect();
        if repaired == text {
            return repaired;
        }
        text = repaired;
    }
}

/// Resolves the references that are closed by a semicolon and leave nothing over.
fn unescape_complete_references(text: &str) -> String {
    let resolve = |found: &regex::Captures| {
        let reference = &found[0];
        if !reference.starts_with("&#") {
            return named_reference(reference).unwrap_or(reference).to_owned();
        }
        let unescaped = unescape_html(reference);
        if unescaped.contains(';') {
            reference.to_owned()
        } else {
            unescaped
        }
    };
    CHARACTER_REFERENCE.replace_all(text, resolve).into_owned()
}

/// Undoes mojibake: UTF-8 that was read in a one-byte encoding.
fn undo_wrong_encoding(text: &str) -> String {
    if text.is_ascii() {
        return text.to_owned();
    }
    // `plsfix` resolves character references unasked. A control character, which
    // every encoding has at the same place, stands in for the ampersand.
    const AMPERSAND: char = '\u{1}';
    let shielded: String = text
        .chars()
        .filter(|&c| c != AMPERSAND)
        .map(|c| if c == '&' { AMPERSAND } else { c })
        .collect();
    let config = TextFixerConfig {
        fix_latin_ligatures: false,
        fix_character_width: false,
        uncurl_quotes: false,
        fix_line_breaks: false,
        remove_terminal_escapes: false,
        remove_control_chars: false,
        normalization: None,
        ..TextFixerConfig::default()
    };
    plsfix::fix_and_explain(&shielded, false, Some(&config))
        .text
        .replace(AMPERSAND, "&")
}

/// Replaces characters that have a more usual equivalent, one by one.
fn standard_characters(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let c = match c {
            '\u{80}'..='\u{9f}' => WINDOWS_1252_C1[c as usize - 0x80],
            _ => c,
        };
        match c {
            '\u{2bc}' | '\u{2018}'..='\u{201b}' => out.push('\''),
            '\u{201c}'..='\u{201f}' => out.push('"'),
            '\u{2028}' | '\u{2029}' => out.push('\n'),
            '\u{3000}' => out.push(' '),
            '\u{ff01}'..='\u{ffef}' => out.extend(std::iter::once(c).nfkc()),
            _ => match ligature_letters(c) {
                Some(letters) => out.push_str(letters),
                None => out.push(c),
            },
        }
    }
    out
}

/// The letters of a Latin ligature or digraph that was only made for typesetting
/// or for an older character set.
fn ligature_letters(c: char) -> Option<&'static str> {
    Some(match c {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        'ŉ' => "'n",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        _ => return None,
    })
}

/// Control characters without a visible effect, byte-order mark included. Joiners
/// and direction marks stay.
fn is_unwanted(c: char) -> bool {
    matches!(c,
        '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}'
        | '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}')
}
