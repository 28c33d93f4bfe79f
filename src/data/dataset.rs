//! A data set: pictures on disk with captions or labels, whatever their layout.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{DataError, Skipped};
use super::fingerprint::Fingerprint;
use super::layout::{self, has_extension};
use super::locator::Locator;
use crate::picture::{decode, Picture, PictureProblem};

/// One picture with what is said about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Where the picture lies below the data set's root.
    pub picture: Locator,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub captions: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<i64>,
}

/// What an epoch goes through once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Epoch {
    /// Every picture, with one of its captions drawn.
    Pictures,
    /// Every caption (the original's MSCOCO: one sample per annotation).
    Captions,
}

/// How the files of a data set lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Pictures in a folder, captions in `.txt` or `.caption` files beside them.
    Folder,
    /// A list with one JSON object a line.
    JsonLines,
    /// A list as values separated by commas, tabs or semicolons, with a header row.
    Csv,
    /// MSCOCO captions of 2014 or 2017.
    Coco,
    /// CUB-200 as the original reads it.
    Cub,
    /// ImageNet by the original's name lists, with labels.
    ImageNet,
}

/// Which part of a data set that has parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    #[default]
    Train,
    Val,
    Test,
}

impl Split {
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::Test => "test",
        }
    }
}

/// The items of a data set in the order of its files, and the ones that cannot be used.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// What item paths are relative to.
    pub root: PathBuf,
    pub layout: Layout,
    pub epoch: Epoch,
    pub items: Vec<Item>,
    /// Items left out already: captions that are missing or cannot be read.
    pub skipped: Vec<Skipped>,
    /// Whether there are other splits than the one read.
    pub has_parts: bool,
}

/// Lists that are looked for in a folder, in this order: ours, and Hugging Face's.
const LISTS: [&str; 6] = [
    "captions.jsonl",
    "captions.csv",
    "captions.tsv",
    "metadata.jsonl",
    "metadata.csv",
    "metadata.tsv",
];

impl Dataset {
    /// Reads the list of items at `path`, whose layout is recognised by its files:
    ///
    /// - a `.jsonl` file, or a folder with `captions.jsonl` or `metadata.jsonl`, also one for
    ///   each split: [`layout::json_lines`]
    /// - a `.csv` or `.tsv` file, or a folder with `captions.csv`, `metadata.csv` …:
    ///   [`layout::separated`]
    /// - a folder with `annotations/captions_{split}{2014,2017}.json`: [`layout::coco`]
    /// - a folder with captions and pictures of CUB-200: [`layout::cub`]
    /// - a folder with `ILSVRC2012_name_*.txt`: [`layout::imagenet`]
    /// - any other folder: [`layout::folder`]
    ///
    /// Pictures are not opened. `split` matters to data sets that have parts only.
    ///
    /// # Errors
    ///
    /// A path or list that cannot be read, and a data set without a usable item. An
    /// item that cannot be used is listed in `skipped`, or an error if `strict`.
    pub fn open(path: &Path, split: Split, strict: bool) -> Result<Self, DataError> {
        let dataset = Self::read(path, split)?;
        if strict && !dataset.skipped.is_empty() {
            return Err(DataError::Strict {
                skipped: dataset.skipped,
            });
        }
        if dataset.items.is_empty() {
            let problem = match dataset.skipped.first() {
                Some(first) => format!(
                    "no usable item among {}; the first: {first}",
                    dataset.skipped.len()
                ),
                None if path.is_dir() => "no pictures (.png, .jpg, .webp, .gif …) in it".into(),
                None => "names no picture".into(),
            };
            return Err(DataError::Unusable {
                path: path.to_path_buf(),
                problem,
            });
        }
        Ok(dataset)
    }

    /// What the list of items is, to compare with that of a former run.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_items(&self.items)
    }

    /// The picture of `item`.
    pub fn picture(&self, item: &Item) -> Result<Picture, PictureProblem> {
        let bytes = item.picture.read(&self.root)?;
        decode(&bytes)
    }

    /// Whether `path` is that of a data set: a folder or a list, not a picture.
    pub fn is_at(path: &Path) -> bool {
        path.is_dir() || has_extension(path, &["jsonl", "csv", "tsv"])
    }

    fn read(path: &Path, split: Split) -> Result<Self, DataError> {
        let found = std::fs::metadata(path).map_err(DataError::io(path))?;
        if !found.is_dir() {
            return match path {
                _ if has_extension(path, &["jsonl"]) => layout::json_lines::read(path),
                _ if has_extension(path, &["csv", "tsv"]) => layout::separated::read(path),
                _ => Err(DataError::format(
                    path,
                    "expected a folder, or a list of pictures (.jsonl, .csv or .tsv)",
                )),
            };
        }
        if let Some(list) = list_in(path) {
            return Self::read(&list, split);
        }
        if layout::coco::is_at(path) {
            return layout::coco::read(path, split);
        }
        if layout::cub::is_at(path) {
            return layout::cub::read(path, split);
        }
        if layout::imagenet::is_at(path) {
            return layout::imagenet::read(path, split);
        }
        match list_in(&path.join(split.name())) {
            Some(list) => Ok(Dataset {
                has_parts: true,
                ..Self::read(&list, split)?
            }),
            None => layout::folder::read(path),
        }
    }
}

/// The list in `folder`, if there is one; a warning names a second one.
fn list_in(folder: &Path) -> Option<PathBuf> {
    let mut lists = LISTS
        .iter()
        .map(|name| folder.join(name))
        .filter(|list| list.is_file());
    let list = lists.next()?;
    if let Some(other) = lists.next() {
        log::warn!("{} is read, {} is not", list.display(), other.display());
    }
    Some(list)
}
