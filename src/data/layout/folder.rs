//! A folder of pictures, with or without `.txt` files beside them.

use std::path::{Path, PathBuf};

use super::{caption_lines, is_picture};
use crate::data::dataset::{Dataset, Epoch, Item, Layout};
use crate::data::error::{DataError, Skipped};

/// Pictures below `root` at any depth, by path. Each line of `name.txt` is a caption of
/// `name.png`. Where some pictures have captions, those without are skipped; where none
/// has, the data set is one of pictures alone. Names that start with a dot are not read.
pub fn read(root: &Path) -> Result<Dataset, DataError> {
    let mut pictures = Vec::new();
    gather(root, &mut pictures)?;
    pictures.sort();
    let captioned = pictures
        .iter()
        .any(|path| path.with_extension("txt").exists());
    let mut dataset = Dataset {
        root: root.to_path_buf(),
        layout: Layout::Folder,
        epoch: Epoch::Pictures,
        items: Vec::new(),
        skipped: Vec::new(),
    };
    for path in pictures {
        let picture = path.strip_prefix(root).unwrap_or(&path).to_path_buf();
        let captions = if captioned {
            match sidecar(&path) {
                Ok(captions) => captions,
                Err(reason) => {
                    let what = picture.display().to_string();
                    dataset.skipped.push(Skipped { what, reason });
                    continue;
                }
            }
        } else {
            Vec::new()
        };
        dataset.items.push(Item {
            picture,
            captions,
            label: None,
        });
    }
    Ok(dataset)
}

fn sidecar(picture: &Path) -> Result<Vec<String>, String> {
    let path = picture.with_extension("txt");
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let bytes = std::fs::read(&path).map_err(|e| format!("caption file {name}: {e}"))?;
    caption_lines(bytes).map_err(|problem| format!("caption file {name}: {problem}"))
}

fn gather(folder: &Path, out: &mut Vec<PathBuf>) -> Result<(), DataError> {
    for entry in std::fs::read_dir(folder).map_err(DataError::io(folder))? {
        let entry = entry.map_err(DataError::io(folder))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            gather(&path, out)?;
        } else if is_picture(&path) {
            out.push(path);
        }
    }
    Ok(())
}
