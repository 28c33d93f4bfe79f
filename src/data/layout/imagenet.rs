//! ImageNet by the name lists of the original.

use std::collections::BTreeSet;
use std::path::Path;

use super::text;
use crate::data::dataset::{DataLayout, Dataset, Epoch, Item, Split};
use crate::data::error::{DataError, Skipped};

/// Whether a data set of this layout is at `root`.
pub fn is_at(root: &Path) -> bool {
    let mut splits = [Split::Train, Split::Val, Split::Test].into_iter();
    splits.any(|split| root.join(list(split)).exists())
}

/// The list of a split, relative to the root.
fn list(split: Split) -> String {
    format!("ILSVRC2012_name_{}.txt", split.name())
}

/// `ILSVRC2012_name_{split}.txt` with one `wnid/file` a line, pictures at
/// `{split}/wnid/file`. The label is the place of the wnid in alphabetical order, which
/// for the 1000 classes is the order of the usual class index. Classes are the
/// folders of `train` and those in the list.
pub fn read(root: &Path, split: Split) -> Result<Dataset, DataError> {
    let path = root.join(list(split));
    let bytes = text::list(&path)?;
    let text = String::from_utf8(bytes).map_err(|e| DataError::format(&path, e.utf8_error()))?;
    let mut dataset = Dataset {
        root: root.to_path_buf(),
        layout: DataLayout::ImageNet,
        epoch: Epoch::Pictures,
        items: Vec::new(),
        skipped: Vec::new(),
        has_parts: true,
    };
    let mut entries = Vec::new();
    for (n, line) in text.lines().enumerate() {
        match line.trim().split_once('/') {
            Some((wnid, _)) if !wnid.is_empty() => entries.push((wnid, line.trim())),
            _ if line.trim().is_empty() => {}
            _ => dataset.skipped.push(Skipped {
                what: format!("{} line {}", list(split), n + 1),
                reason: format!("'{}' is not wnid/file", line.trim()),
            }),
        }
    }
    let mut classes: BTreeSet<String> = entries.iter().map(|e| e.0.to_string()).collect();
    if let Ok(folders) = std::fs::read_dir(root.join("train")) {
        for folder in folders.flatten().filter(|entry| entry.path().is_dir()) {
            classes.insert(folder.file_name().to_string_lossy().into_owned());
        }
    }
    let classes: Vec<String> = classes.into_iter().collect();
    for (wnid, file) in entries {
        dataset.items.push(Item {
            picture: format!("{}/{file}", split.name()).into(),
            captions: Vec::new(),
            label: classes
                .binary_search_by(|class| class.as_str().cmp(wnid))
                .ok()
                .map(|place| place as i64),
        });
    }
    Ok(dataset)
}
