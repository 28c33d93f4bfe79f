//! MSCOCO captions, of 2014 as the original lays them out, and of 2017.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::json_lines::without_nan;
use super::text;
use crate::data::dataset::{DataLayout, Dataset, Epoch, Item, Split};
use crate::data::error::{DataError, Skipped};
use crate::data::locator::found;

/// The years, the original's first: what is in the names of files and folders.
const YEARS: [&str; 3] = ["2014", "2017", ""];

/// Entries are kept as they are: one that is none does not spoil the others.
#[derive(Deserialize)]
struct Captions {
    #[serde(default)]
    images: Vec<Value>,
    annotations: Vec<Value>,
}

/// Whether a data set of this layout is at `root`.
pub fn is_at(root: &Path) -> bool {
    [Split::Train, Split::Val, Split::Test]
        .into_iter()
        .any(|split| {
            YEARS
                .iter()
                .any(|year| annotations(root, split, year).exists())
        })
}

fn annotations(root: &Path, split: Split, year: &str) -> PathBuf {
    root.join(format!("annotations/captions_{}{year}.json", split.name()))
}

/// `annotations/captions_{split}{year}.json`; pictures by id, under the names that the
/// file's `images` give them, or else the set's own (2014 `COCO_{split}2014_{id:012}.jpg`,
/// 2017 `{id:012}.jpg`). They lie in `{split}{year}/{split}{year}`, `{split}{year}`, the
/// same below `images`, or beside `annotations`. An epoch goes through every caption.
pub fn read(root: &Path, split: Split) -> Result<Dataset, DataError> {
    let there = |year: &&&str| annotations(root, split, year).exists();
    let years: Vec<&&str> = YEARS.iter().filter(there).collect();
    let year = years.first().map_or(YEARS[0], |year| **year);
    let path = annotations(root, split, year);
    if let Some(other) = years.get(1) {
        let other = annotations(root, split, other);
        log::warn!("{} is read, {} is not", path.display(), other.display());
    }
    let captions = parse(text::list(&path)?)
        .map_err(|problem| DataError::format(&path, format!("not MSCOCO captions: {problem}")))?;
    let mut skipped = Vec::new();
    let mut by_id: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for (n, annotation) in captions.annotations.iter().enumerate() {
        match caption(annotation) {
            Ok((id, caption)) => by_id.entry(id).or_default().push(caption),
            Err((id, reason)) => skipped.push(Skipped {
                what: match id {
                    Some(id) => format!("a caption of picture {id}"),
                    None => format!("annotation {}", n + 1),
                },
                reason,
            }),
        }
    }
    let names: HashMap<i64, &str> = captions
        .images
        .iter()
        .filter_map(|image| {
            Some((
                integer(image.get("id")?)?,
                image.get("file_name")?.as_str()?,
            ))
        })
        .collect();
    let folders = Folders::new(root, &format!("{}{year}", split.name()));
    let items = by_id
        .into_iter()
        .map(|(id, captions)| {
            let name = match names.get(&id) {
                Some(name) => name.to_string(),
                None if year == "2014" => format!("COCO_{}2014_{id:012}.jpg", split.name()),
                None => format!("{id:012}.jpg"),
            };
            Item {
                picture: folders.find(root, &name).into(),
                captions,
                label: None,
            }
        })
        .collect();
    Ok(Dataset {
        root: root.to_path_buf(),
        layout: DataLayout::Coco,
        epoch: Epoch::Captions,
        items,
        skipped,
        has_parts: true,
    })
}

fn parse(bytes: Vec<u8>) -> Result<Captions, String> {
    let text = String::from_utf8(bytes)
        .map_err(|e| format!("not UTF-8 (byte {})", e.utf8_error().valid_up_to()))?;
    serde_json::from_str(&text)
        .or_else(|error| serde_json::from_str(&without_nan(&text)).map_err(|_| error))
        .map_err(|e| e.to_string())
}

/// Picture and caption of an annotation, or why it has none.
fn caption(annotation: &Value) -> Result<(i64, String), (Option<i64>, String)> {
    let field = |key: &str| annotation.get(key).unwrap_or(&Value::Null);
    let Some(id) = integer(field("image_id")) else {
        let reason = format!("`image_id` is {}, expected a number", field("image_id"));
        return Err((None, reason));
    };
    let Some(caption) = field("caption").as_str() else {
        let reason = format!("`caption` is {}, expected text", field("caption"));
        return Err((Some(id), reason));
    };
    match caption.trim().replace('\n', " ") {
        caption if caption.is_empty() => Err((Some(id), "the caption is empty".into())),
        caption => Ok((id, caption)),
    }
}

/// An integer, also where it was written as text.
fn integer(value: &Value) -> Option<i64> {
    value
        .as_i64()
        .or_else(|| value.as_str()?.trim().parse().ok())
}

/// The folders below the root in which pictures may lie.
struct Folders(Vec<String>);

impl Folders {
    fn new(root: &Path, phase: &str) -> Self {
        let possible = [
            format!("{phase}/{phase}/"),
            format!("{phase}/"),
            format!("images/{phase}/"),
            "images/".into(),
            String::new(),
        ];
        let mut there: Vec<String> = possible
            .iter()
            .filter(|folder| root.join(folder).is_dir())
            .cloned()
            .collect();
        if there.len() == 1 {
            // None but the root: a picture that is missing is missed where it should be.
            there.insert(0, format!("{phase}/"));
        }
        Folders(there)
    }

    /// The path of `name` below the root: in the first folder that has it, else in the first.
    fn find(&self, root: &Path, name: &str) -> String {
        let mut paths = self.0.iter().map(|folder| format!("{folder}{name}"));
        let there = match self.0.len() {
            0 | 1 => None,
            _ => paths.clone().find(|path| found(root, path).is_some()),
        };
        there.or_else(|| paths.next()).unwrap_or_default()
    }
}
