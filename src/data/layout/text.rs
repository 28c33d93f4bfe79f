//! The words of lists and caption files.

use std::path::Path;

use crate::data::error::{DataError, TextError};
use crate::files;

/// Bytes of the largest list that is read.
const MOST_LIST: u64 = 16 << 30;
/// Bytes of the largest caption file that is read.
const MOST_CAPTION: u64 = 16 << 20;

/// A whole list without a byte order mark, in UTF-8 if it was marked as UTF-16 (as Excel
/// and Windows' shell write it); otherwise as it is.
pub fn list(path: &Path) -> Result<Vec<u8>, DataError> {
    let bytes = files::read(path, MOST_LIST)?;
    unmarked(bytes).map_err(|source| DataError::Text {
        path: path.to_path_buf(),
        source,
    })
}

/// The non-empty lines of the caption file at `path`, trimmed, or why there are none.
pub fn captions(path: &Path) -> Result<Vec<String>, TextError> {
    let bytes = files::read(path, MOST_CAPTION).map_err(|e| TextError::Unreadable(e.source))?;
    caption_lines(bytes)
}

/// The non-empty lines of a caption file's `bytes`, trimmed, or why there are none.
fn caption_lines(bytes: Vec<u8>) -> Result<Vec<String>, TextError> {
    let text = String::from_utf8(unmarked(bytes)?)
        .map_err(|e| TextError::NotUtf8(e.utf8_error().valid_up_to()))?;
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.trim().to_string())
        .filter(|line| !line.is_empty())
        .collect();
    match lines.is_empty() {
        true => Err(TextError::NoCaption),
        false => Ok(lines),
    }
}

fn unmarked(mut bytes: Vec<u8>) -> Result<Vec<u8>, TextError> {
    let word: fn([u8; 2]) -> u16 = match bytes.as_slice() {
        [0xEF, 0xBB, 0xBF, ..] => {
            bytes.drain(..3);
            return Ok(bytes);
        }
        [0xFF, 0xFE, ..] => u16::from_le_bytes,
        [0xFE, 0xFF, ..] => u16::from_be_bytes,
        _ => return Ok(bytes),
    };
    let words = bytes[2..]
        .chunks_exact(2)
        .map(|pair| word([pair[0], pair[1]]));
    let text: Result<String, _> = char::decode_utf16(words).collect();
    match text {
        Ok(text) if bytes.len().is_multiple_of(2) => Ok(text.into_bytes()),
        _ => Err(TextError::NotUtf16),
    }
}

#[cfg(test)]
mod tests {
    use super::unmarked;

    #[test]
    fn byte_order_marks() {
        let text = "é, 🙂\r\n";
        let words: Vec<u16> = [0xFEFF].into_iter().chain(text.encode_utf16()).collect();
        let little: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let big: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
        let eight = format!("\u{feff}{text}").into_bytes();
        for bytes in [little.clone(), big, eight, text.into()] {
            assert_eq!(unmarked(bytes).unwrap(), text.as_bytes());
        }
        assert!(unmarked(little[..little.len() - 1].to_vec()).is_err());
        assert!(unmarked(vec![0xFF, 0xFE, 0x00, 0xD8]).is_err());
    }
}
