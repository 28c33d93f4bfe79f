//! Numbers and strings in the text forms of protocol 0, and long integers.

use super::Node;

/// A little-endian two's complement integer of any length; an empty one is zero.
pub(super) fn long_from_bytes(bytes: &[u8]) -> Node {
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    let (low, high) = bytes.split_at(bytes.len().min(8));
    let mut word = [fill; 8];
    for (to, from) in word.iter_mut().zip(low) {
        *to = *from;
    }
    let value = i64::from_le_bytes(word);
    // Bytes beyond the eighth may only repeat the sign.
    if high.iter().all(|&b| b == fill) && (value < 0) == negative {
        Node::Int(value)
    } else {
        Node::BigInt(bytes.into())
    }
}

/// A decimal integer, as `LONG` writes it with a final `L`; `None` if it is none.
pub(super) fn long_from_text(text: &[u8]) -> Option<Node> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let text = text.strip_suffix('L').unwrap_or(text);
    if let Ok(value) = text.parse::<i64>() {
        return Some(Node::Int(value));
    }
    // The one longer integer that matters is the legacy format's magic number, of 80 bits.
    let value = text.parse::<i128>().ok()?;
    Some(long_from_bytes(&value.to_le_bytes()))
}

/// A float as `FLOAT` writes it, with Python's spellings of the special values.
pub(super) fn float_from_text(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// A quoted Python 2 string literal, as `STRING` writes it.
pub(super) fn string_literal(text: &[u8]) -> Option<Vec<u8>> {
    let quote = *text.first()?;
    if !matches!(quote, b'\'' | b'"') || text.len() < 2 || text.last() != Some(&quote) {
        return None;
    }
    let mut rest = text.get(1..text.len() - 1)?.iter().copied();
    let mut bytes = Vec::new();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next()? {
            b'n' => bytes.push(b'\n'),
            b'r' => bytes.push(b'\r'),
            b't' => bytes.push(b'\t'),
            b'x' => {
                let code = hex(&mut rest, 2)?;
                bytes.push(u8::try_from(code).ok()?);
            }
            other => bytes.push(other),
        }
    }
    Some(bytes)
}

/// A string as `UNICODE` writes it: Latin-1 with `\u` escapes for all else.
pub(super) fn raw_unicode(text: &[u8]) -> Option<String> {
    let mut rest = text.iter().copied().peekable();
    let mut string = String::new();
    while let Some(byte) = rest.next() {
        let digits = match (byte, rest.peek()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                string.push(char::from(byte));
                continue;
            }
        };
        rest.next();
        let code = hex(&mut rest, digits)?;
        // A lone half of a surrogate pair has no place in a Rust string.
        string.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    Some(string)
}

fn hex(bytes: &mut impl Iterator<Item = u8>, digits: usize) -> Option<u32> {
    let mut code = 0u32;
    for _ in 0..digits {
        let digit = char::from(bytes.next()?).to_digit(16)?;
        code = code.checked_mul(16)?.checked_add(digit)?;
    }
    Some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_integers_keep_their_sign_and_width() {
        assert_eq!(long_from_bytes(&[]), Node::Int(0));
        assert_eq!(long_from_bytes(&[0xff]), Node::Int(-1));
        assert_eq!(long_from_bytes(&[0xff, 0]), Node::Int(255));
        let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(long_from_bytes(&max), Node::Int(i64::MAX));
        // 2^63 takes a ninth byte and does not fit.
        let beyond = [0, 0, 0, 0, 0, 0, 0, 0x80, 0];
        assert_eq!(long_from_bytes(&beyond), Node::BigInt(beyond.into()));
        assert_eq!(long_from_text(b"-12L"), Some(Node::Int(-12)));
        assert_eq!(long_from_text(b"twelve"), None);
    }

    #[test]
    fn text_strings_are_unescaped() {
        assert_eq!(string_literal(b"'a\\x41\\n\\''"), Some(b"aA\n'".to_vec()));
        assert_eq!(string_literal(b"'a"), None);
        assert_eq!(string_literal(b"'"), None);
        assert_eq!(raw_unicode(b"a\\u00e9\xe9"), Some("a\u{e9}\u{e9}".into()));
        assert_eq!(raw_unicode(b"\\u00"), None);
    }
}
