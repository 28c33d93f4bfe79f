//! A folder of pictures, with or without `.txt` files beside them.

use std::path::{Path, PathBuf};

use super::{caption_lines, has_extension, is_picture};
use crate::data::dataset::{Dataset, Epoch, Item, Layout};
use crate::data::error::{DataError, Skipped};

/// File name endings of pictures that cannot be read.
const OTHER_PICTURES: [&str; 9] = [
    "webp", "gif", "bmp", "tif", "tiff", "heic", "heif", "avif", "jxl",
];

/// Pictures below `root` at any depth, by path. Each line of `name.txt` is a caption of
/// `name.png`. Where some pictures have captions, those without are skipped; where none
/// has, the data set is one of pictures alone. Names that start with a dot are not read,
/// nor are links that lead back to a folder they lie in.
pub fn read(root: &Path) -> Result<Dataset, DataError> {
    let mut files = Vec::new();
    gather(root, &mut Vec::new(), &mut files)?;
    files.sort();
    let captioned = files
        .iter()
        .any(|path| is_picture(path) && sidecar(path).exists());
    let mut dataset = Dataset {
        root: root.to_path_buf(),
        layout: Layout::Folder,
        epoch: Epoch::Pictures,
        items: Vec::new(),
        skipped: Vec::new(),
    };
    for path in files {
        let picture = path.strip_prefix(root).unwrap_or(&path).to_path_buf();
        match captions(&path, captioned) {
            Ok(captions) => dataset.items.push(Item {
                picture,
                captions,
                label: None,
            }),
            Err(reason) => {
                let what = picture.display().to_string();
                dataset.skipped.push(Skipped { what, reason });
            }
        }
    }
    Ok(dataset)
}

/// The captions of the picture at `path`, none unless the data set is `captioned`, or why
/// the picture cannot be used.
fn captions(path: &Path, captioned: bool) -> Result<Vec<String>, String> {
    if !is_picture(path) {
        return Err("expected PNG or JPEG".into());
    }
    if path.to_str().is_none() {
        return Err("the name is not UTF-8".into());
    }
    if !captioned {
        return Ok(Vec::new());
    }
    let sidecar = sidecar(path);
    let name = sidecar.file_name().unwrap_or_default().to_string_lossy();
    let bytes = std::fs::read(&sidecar).map_err(|e| format!("caption file {name}: {e}"))?;
    caption_lines(bytes).map_err(|problem| format!("caption file {name}: {problem}"))
}

/// The caption file of a picture: `.txt`, or `.TXT` where that is there instead.
fn sidecar(picture: &Path) -> PathBuf {
    let [usual, upper] = ["txt", "TXT"].map(|extension| picture.with_extension(extension));
    match !usual.exists() && upper.exists() {
        true => upper,
        false => usual,
    }
}

/// Adds the pictures below `folder`, of formats that can be read or not; `above` are the
/// folders that lead here, without links.
fn gather(
    folder: &Path,
    above: &mut Vec<PathBuf>,
    out: &mut Vec<PathBuf>,
) -> Result<(), DataError> {
    let real = folder.canonicalize().map_err(DataError::io(folder))?;
    if above.contains(&real) {
        return Ok(());
    }
    above.push(real);
    for entry in std::fs::read_dir(folder).map_err(DataError::io(folder))? {
        let entry = entry.map_err(DataError::io(folder))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            gather(&path, above, out)?;
        } else if is_picture(&path) || has_extension(&path, &OTHER_PICTURES) {
            out.push(path);
        }
    }
    above.pop();
    Ok(())
}
