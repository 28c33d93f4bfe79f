//! The layouts of data sets on disk.

pub mod coco;
pub mod conceptual;
pub mod cub;
pub mod folder;
pub mod imagenet;
pub mod json_lines;
pub mod list;
pub mod oxford;
mod pickled;
pub mod separated;
mod shard_index;
pub mod shards;
pub mod text;

use std::path::Path;

/// File name endings of pictures that can be read.
pub const PICTURES: [&str; 12] = [
    "png", "apng", "jpg", "jpeg", "jpe", "jfif", "jif", "jfi", "pjpeg", "pjp", "webp", "gif",
];

/// Whether the name of `path` is that of a picture that can be read.
pub fn is_picture(path: &Path) -> bool {
    has_extension(path, &PICTURES)
}

/// Whether the name of `path` ends in one of `extensions`, in capitals or not.
pub fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().and_then(|e| e.to_str());
    extension.is_some_and(|e| extensions.iter().any(|known| known.eq_ignore_ascii_case(e)))
}
