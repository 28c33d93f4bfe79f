//! Repair of damaged Unicode text, with the outcome of Python's `ftfy.fix_text`
//! (6.3.1, default settings).

mod clues;
mod code_pages;
mod mojibake;

use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization;

use super::html::{capital_reference, named_reference, unescape, WINDOWS_1252_C1};

/// Longest piece, in characters, that is repaired as one.
const SEGMENT_LENGTH: usize = 1_000_000;

/// ANSI terminal escape, such as the one that switches to red.
static TERMINAL_ESCAPE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\x1b\[[\d;]*[a-zA-Z]").expect("a valid pattern"));
static CHARACTER_REFERENCE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("&#?[0-9A-Za-z]{1,24};").expect("a valid pattern"));

/// Repairs `text` line by line: character references, mojibake,
/// ligatures, character widths, curly quotes, line breaks, terminal escapes and
/// control characters; the result is in Unicode's form NFC.
///
/// A `<` marks the text as HTML from its line on, whose character references are
/// then left alone.
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
        let decoded = mojibake::undo(&unescaped);
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
            let named = named_reference(reference).map(str::to_owned);
            let named = named.or_else(|| capital_reference(reference));
            return named.unwrap_or_else(|| reference.to_owned());
        }
        let unescaped = unescape(reference);
        if unescaped.contains(';') {
            reference.to_owned()
        } else {
            unescaped
        }
    };
    CHARACTER_REFERENCE.replace_all(text, resolve).into_owned()
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
