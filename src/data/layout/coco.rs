//! MSCOCO 2014 captions as the original lays them out.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::read_file;
use crate::data::dataset::{Dataset, Epoch, Item, Layout, Split};
use crate::data::error::{DataError, Skipped};

#[derive(Deserialize)]
struct Captions {
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: u64,
    caption: String,
}

/// The annotation file of a split, relative to the root.
pub fn annotations(split: Split) -> String {
    format!("annotations/captions_{}2014.json", split.name())
}

/// `annotations/captions_{split}2014.json` and
/// `{split}2014/{split}2014/COCO_{split}2014_{id:012}.jpg`; pictures by id. An epoch goes
/// through every caption. Pictures one folder higher are found too.
pub fn read(root: &Path, split: Split) -> Result<Dataset, DataError> {
    let path = root.join(annotations(split));
    let captions: Captions = serde_json::from_slice(&read_file(&path)?)
        .map_err(|e| DataError::format(&path, format!("not MSCOCO captions: {e}")))?;
    let mut by_id: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut skipped = Vec::new();
    for annotation in captions.annotations {
        let caption = annotation.caption.trim().replace('\n', " ");
        if caption.is_empty() {
            skipped.push(Skipped {
                what: format!("a caption of picture {}", annotation.image_id),
                reason: "the caption is empty".into(),
            });
            continue;
        }
        by_id.entry(annotation.image_id).or_default().push(caption);
    }
    let phase = format!("{}2014", split.name());
    let folder = if root.join(&phase).join(&phase).exists() {
        Path::new(&phase).join(&phase)
    } else {
        Path::new(&phase).to_path_buf()
    };
    let items = by_id
        .into_iter()
        .map(|(id, captions)| Item {
            picture: folder.join(format!("COCO_{phase}_{id:012}.jpg")),
            captions,
            label: None,
        })
        .collect();
    Ok(Dataset {
        root: root.to_path_buf(),
        layout: Layout::Coco,
        epoch: Epoch::Captions,
        items,
        skipped,
    })
}
