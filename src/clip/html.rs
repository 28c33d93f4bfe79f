//! HTML character references by Python's rules: names without a semicolon, invalid
//! numbers, names in capitals.

/// Longest name, in characters, that is looked up as a character reference.
const LONGEST_NAME: usize = 32;

/// What Windows-1252 prints for the bytes 0x80 to 0x9f; the five unassigned ones
/// stay control characters. HTML reads numeric references by this table.
pub(super) const WINDOWS_1252_C1: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '\u{2dc}', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// Resolves HTML5 character references as Python's `html.unescape` does: the
/// semicolon is optional for numbers, and for the names that HTML4 had, which are
/// also found as the beginning of a longer word.
pub(super) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let (replacement, len) = resolve_reference(rest).unwrap_or(("&".into(), 1));
        out.push_str(&replacement);
        rest = &rest[len..];
    }
    out.push_str(rest);
    out
}

/// The text and the length in bytes of the reference that `text` starts with.
fn resolve_reference(text: &str) -> Option<(String, usize)> {
    match text.strip_prefix("&#") {
        Some(number) => {
            let (digits, radix) = match number.strip_prefix(['x', 'X']) {
                Some(digits) => (digits, 16),
                None => (number, 10),
            };
            let end = digits
                .find(|c: char| !c.is_digit(radix))
                .unwrap_or(digits.len());
            if end == 0 {
                return None;
            }
            let semicolon = usize::from(digits[end..].starts_with(';'));
            let len = text.len() - digits.len() + end + semicolon;
            Some((numeric_reference(&digits[..end], radix), len))
        }
        None => {
            let name = name_at(text);
            let mut ends = name.char_indices().map(|(at, c)| at + c.len_utf8());
            // A single letter names nothing.
            ends.by_ref().take(2).for_each(drop);
            ends.rev()
                .find_map(|end| named_reference(&name[..end]).map(|found| (found.to_owned(), end)))
        }
    }
}

/// The ampersand at the start of `text`, the name behind it and its semicolon.
fn name_at(text: &str) -> &str {
    let is_end = |c| matches!(c, '\t' | '\n' | '\x0c' | ' ' | '<' | '&' | '#' | ';');
    let mut end = 1;
    for c in text[1..].chars().take(LONGEST_NAME) {
        if is_end(c) {
            break;
        }
        end += c.len_utf8();
    }
    if end > 1 && text[end..].starts_with(';') {
        end += 1;
    }
    &text[..end]
}

/// What `reference` (with its ampersand, and its semicolon if it has one) stands
/// for in the HTML5 table.
pub(super) fn named_reference(reference: &str) -> Option<&'static str> {
    let bytes = htmlize::ENTITIES.get(reference.as_bytes())?;
    std::str::from_utf8(bytes).ok()
}

/// What `reference`, written in capitals throughout, stands for by ftfy's rules: the
/// capital of what the small name stands for, unless HTML knows the name itself.
pub(super) fn capital_reference(reference: &str) -> Option<String> {
    let small = reference.to_ascii_lowercase();
    if small.to_ascii_uppercase() != reference || unescape(reference) != reference {
        return None;
    }
    named_reference(&small).map(str::to_uppercase)
}

/// The character with the number `digits`, nothing for one that HTML rejects.
fn numeric_reference(digits: &str, radix: u32) -> String {
    // A number too large for 32 bits is as invalid as any above U+10FFFF.
    let number = u32::from_str_radix(digits, radix).unwrap_or(u32::MAX);
    if let 0x80..=0x9f = number {
        return WINDOWS_1252_C1[number as usize - 0x80].to_string();
    }
    let rejected = matches!(number, 0x1..=0x8 | 0xb | 0xe..=0x1f | 0x7f | 0xfdd0..=0xfdef)
        || (number <= 0x10_ffff && number & 0xfffe == 0xfffe);
    match char::from_u32(number) {
        Some(_) if rejected => String::new(),
        Some('\0') | None => char::REPLACEMENT_CHARACTER.to_string(),
        Some(c) => c.to_string(),
    }
}
