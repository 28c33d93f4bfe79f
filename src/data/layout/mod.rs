//! The layouts of data sets on disk.

pub mod coco;
pub mod cub;
pub mod folder;
pub mod imagenet;
pub mod list;

use std::path::Path;

use super::error::DataError;

/// File name endings that are pictures.
pub const PICTURES: [&str; 3] = ["png", "jpg", "jpeg"];

/// Whether the name of `path` is a picture's.
pub fn is_picture(path: &Path) -> bool {
    has_extension(path, &PICTURES)
}

/// Whether the name of `path` ends in one of `extensions`, in capitals or not.
pub fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().and_then(|e| e.to_str());
    extension.is_some_and(|e| extensions.iter().any(|known| known.eq_ignore_ascii_case(e)))
}

/// The non-empty lines of a caption file, trimmed, or why there are none.
pub fn caption_lines(bytes: Vec<u8>) -> Result<Vec<String>, String> {
    let text = String::from_utf8(bytes)
        .map_err(|e| format!("not UTF-8 (byte {})", e.utf8_error().valid_up_to()))?;
    let lines: Vec<String> = text
        .trim_start_matches('\u{feff}')
        .lines()
        .map(|line| line.trim().to_string())
        .filter(|line| !line.is_empty())
        .collect();
    if lines.is_empty() {
        return Err("holds no caption".into());
    }
    Ok(lines)
}

/// The whole file at `path`.
fn read_file(path: &Path) -> Result<Vec<u8>, DataError> {
    std::fs::read(path).map_err(DataError::io(path))
}
