//! UTF-8 that was read in a one-byte encoding, read again as what it is; also where it was
//! done twice, where it lost bytes on the way, and where only a part of a text is like that.

use std::sync::LazyLock;

use regex::bytes::{Captures, Regex};

use super::clues::{is_bad, next_run};
use super::code_pages::{Name, CODE_PAGES};
use crate::clip::html::WINDOWS_1252_C1;

/// Undoes wrong encodings until nothing more is found.
pub(super) fn undo(text: &str) -> String {
    let mut text = text.to_owned();
    while let Some(fixed) = undo_once(&text).filter(|fixed| *fixed != text) {
        text = fixed;
    }
    text
}

fn undo_once(text: &str) -> Option<String> {
    if text.is_ascii() || !is_bad(text) {
        return None;
    }
    let mut is_latin_1 = false;
    for page in CODE_PAGES.iter() {
        let Some(mut bytes) = page.encode(text) else {
            continue;
        };
        is_latin_1 |= page.name == Name::Latin1;
        // In MacRoman the byte before is a dash, which a space often follows.
        if page.name != Name::MacRoman && LOST_NO_BREAK_SPACE.is_match(&bytes) {
            bytes = restore_no_break_spaces(&bytes);
        }
        if page.is_sloppy() {
            let whole = LOST_BYTES.replace_all(&bytes, "\u{fffd}".as_bytes());
            bytes = whole.into_owned();
        }
        if let Some(fixed) = decode(&bytes) {
            return Some(fixed);
        }
    }
    let fixed = undo_in_parts(text);
    if fixed != text {
        return Some(fixed);
    }
    if is_latin_1 && !text.contains(['\u{81}', '\u{8d}', '\u{8f}', '\u{90}', '\u{9d}']) {
        let fixed = c1_as_windows_1252(text);
        if fixed != text {
            return Some(fixed);
        }
    }
    let has_c1 = text.contains(|c| matches!(c, '\u{80}'..='\u{9f}'));
    has_c1.then(|| c1_as_windows_1252(text))
}

/// Undoes wrong encodings in the runs of `text` that look like UTF-8 by themselves.
fn undo_in_parts(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    while let Some(run) = next_run(text, done) {
        out.push_str(&text[done..run.start]);
        let part = &text[run.clone()];
        if part.len() < text.len() && is_bad(part) {
            out.push_str(&undo(part));
        } else {
            out.push_str(part);
        }
        done = run.end;
    }
    out.push_str(&text[done..]);
    out
}

/// Control characters of the second range as what Windows prints for their bytes.
pub(super) fn c1_as_windows_1252(text: &str) -> String {
    let replaced = text.chars().map(|c| match c {
        '\u{80}'..='\u{9f}' => WINDOWS_1252_C1[c as usize - 0x80],
        _ => c,
    });
    replaced.collect()
}

/// UTF-8 sequences in which byte 0xa0 became a space, for the first bytes where such a
/// character is likely.
static LOST_NO_BREAK_SPACE: LazyLock<Regex> = LazyLock::new(|| {
    bytes_pattern(concat!(
        r"[\xc2\xc3\xc5\xce\xd0\xd9][ ]",
        r"|[\xe2\xe3][ ][\x80-\x84\x86-\x9f\xa1-\xbf]",
        r"|[\xe0-\xe3][\x80-\x84\x86-\x9f\xa1-\xbf][ ]",
        r"|\xf0[ ][\x80-\xbf][\x80-\xbf]",
        r"|\xf0[\x80-\xbf][ ][\x80-\xbf]",
        r"|\xf0[\x80-\xbf][\x80-\xbf][ ]",
    ))
});

/// UTF-8 sequences of which a byte is lost: 0x1a, or one question mark.
static LOST_BYTES: LazyLock<Regex> = LazyLock::new(|| {
    bytes_pattern(concat!(
        r"[\xc2-\xdf]\x1a",
        r"|[\xc2-\xc3]\?",
        r"|\xed[\xa0-\xaf][\x1a?]\xed[\xb0-\xbf][\x1a?\x80-\xbf]",
        r"|\xed[\xa0-\xaf][\x1a?\x80-\xbf]\xed[\xb0-\xbf][\x1a?]",
        r"|[\xe0-\xef][\x1a?][\x1a\x80-\xbf]",
        r"|[\xe0-\xef][\x1a\x80-\xbf][\x1a?]",
        r"|[\xf0-\xf4][\x1a?][\x1a\x80-\xbf][\x1a\x80-\xbf]",
        r"|[\xf0-\xf4][\x1a\x80-\xbf][\x1a?][\x1a\x80-\xbf]",
        r"|[\xf0-\xf4][\x1a\x80-\xbf][\x1a\x80-\xbf][\x1a?]",
        r"|\x1a",
    ))
});

/// The byte of a capital A with tilde and a space.
static A_WITH_TILDE: LazyLock<Regex> = LazyLock::new(|| bytes_pattern(r"\xc3 "));

fn bytes_pattern(pattern: &str) -> Regex {
    Regex::new(&format!("(?-u){pattern}")).expect("a valid pattern")
}

fn restore_no_break_spaces(bytes: &[u8]) -> Vec<u8> {
    // "Ã" as a word is "à": its space stays, unless the word goes on as in Portuguese.
    let goes_on = [&b" "[..], b"quele", b"quela", b"quilo", b"s "];
    let words = A_WITH_TILDE.replace_all(bytes, |found: &Captures| {
        let end = found.get(0).map_or(0, |found| found.end());
        match goes_on.iter().any(|word| bytes[end..].starts_with(word)) {
            true => b"\xc3 ".to_vec(),
            false => b"\xc3\xa0 ".to_vec(),
        }
    });
    let restore = |found: &Captures| -> Vec<u8> {
        let bytes = found[0].iter();
        bytes.map(|&b| if b == b' ' { 0xa0 } else { b }).collect()
    };
    LOST_NO_BREAK_SPACE
        .replace_all(&words, restore)
        .into_owned()
}

/// `bytes` as UTF-8, also with characters beyond 16 bits as two surrogates of three bytes
/// each (CESU-8) and with U+0000 as two bytes (Java).
fn decode(bytes: &[u8]) -> Option<String> {
    if !bytes.contains(&0xed) && !bytes.contains(&0xc0) {
        return std::str::from_utf8(bytes).ok().map(String::from);
    }
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(&first) = rest.first() {
        let (character, used) = match *rest {
            [0xc0, 0x80, ..] | [0xc0, b'\n'] => ('\0', 2),
            [0xed, a @ 0xa0..=0xaf, b @ 0x80..=0xbf, 0xed, c @ 0xb0..=0xbf, d @ 0x80..=0xbf, ..] => {
                let bits = |byte: u8, mask: u8, shift: u32| u32::from(byte & mask) << shift;
                let low = bits(c, 0x0f, 6) + bits(d, 0x3f, 0);
                let code = 0x10000 + bits(a, 0x0f, 16) + bits(b, 0x3f, 10) + low;
                (char::from_u32(code)?, 6)
            }
            _ => {
                plain.push(first);
                rest = &rest[1..];
                continue;
            }
        };
        let mut utf8 = [0; 4];
        let utf8 = character.encode_utf8(&mut utf8);
        plain.extend_from_slice(utf8.as_bytes());
        rest = &rest[used..];
    }
    String::from_utf8(plain).ok()
}
