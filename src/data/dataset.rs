//! A data set: pictures on disk with captions or labels, whatever their layout.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{DataError, Skipped};
use super::fingerprint::Fingerprint;
use super::layout;

/// One picture with what is said about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Path of the picture, relative to the data set's root.
    pub picture: PathBuf,
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
    /// Pictures in a folder, captions in `.txt` files beside them.
    Folder,
    /// A list with one JSON object a line.
    JsonLines,
    /// A list as comma-separated values with a header row.
    Csv,
    /// MSCOCO 2014 captions.
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

impl Layout {
    /// Whether data sets of this layout have parts.
    pub fn has_parts(self) -> bool {
        match self {
            Layout::Coco | Layout::Cub | Layout::ImageNet => true,
            Layout::Folder | Layout::JsonLines | Layout::Csv => false,
        }
    }
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
}

impl Dataset {
    /// Reads the list of items at `path`, whose layout is recognised by its files:
    ///
    /// - a `.jsonl` file, or a folder with `captions.jsonl`: [`layout::list`]
    /// - a `.csv` file, or a folder with `captions.csv`: [`layout::list`]
    /// - a folder with `annotations/captions_*2014.json`: MSCOCO
    /// - a folder with `text/text` and `images`: CUB-200
    /// - a folder with `ILSVRC2012_name_*.txt`: ImageNet
    /// - any other folder: pictures with `.txt` files beside them, or without captions
    ///
    /// Pictures are not opened. `split` matters to the last three named layouts only.
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
                None if path.is_dir() => "no pictures (.png, .jpg, .jpeg) in it".into(),
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

    /// Whether `path` is that of a data set: a folder or a list, not a picture.
    pub fn is_at(path: &Path) -> bool {
        path.is_dir() || layout::has_extension(path, &["jsonl", "csv"])
    }

    fn read(path: &Path, split: Split) -> Result<Self, DataError> {
        let metadata = std::fs::metadata(path).map_err(DataError::io(path))?;
        if metadata.is_file() {
            return match path {
                _ if layout::has_extension(path, &["jsonl"]) => layout::list::json_lines(path),
                _ if layout::has_extension(path, &["csv"]) => layout::list::csv(path),
                _ => Err(DataError::format(
                    path,
                    "expected a folder, or a list of pictures (.jsonl or .csv)",
                )),
            };
        }
        let has = |name: String| path.join(name).exists();
        let of_any_split =
            |name: fn(Split) -> String| [Split::Train, Split::Val, Split::Test].map(name);
        if has("captions.jsonl".into()) {
            layout::list::json_lines(&path.join("captions.jsonl"))
        } else if has("captions.csv".into()) {
            layout::list::csv(&path.join("captions.csv"))
        } else if of_any_split(layout::coco::annotations).into_iter().any(has) {
            layout::coco::read(path, split)
        } else if has("text/text".into()) && has("images".into()) {
            layout::cub::read(path, split)
        } else if of_any_split(layout::imagenet::list).into_iter().any(has) {
            layout::imagenet::read(path, split)
        } else {
            layout::folder::read(path)
        }
    }
}
