//! A data set: pictures on disk with captions or labels, whatever their layout.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::Skipped;
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
pub enum DataLayout {
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
    /// Oxford-102 flowers.
    Oxford,
    /// Conceptual Captions as tables of captions and addresses.
    Conceptual,
    /// Tar files as webdataset reads them.
    Shards,
    /// Faces of FFHQ.
    Ffhq,
}

impl std::fmt::Display for DataLayout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DataLayout::Folder => "a folder of pictures",
            DataLayout::JsonLines => "a list of JSON lines",
            DataLayout::Csv => "a list in columns",
            DataLayout::Coco => "MSCOCO",
            DataLayout::Cub => "CUB-200",
            DataLayout::ImageNet => "ImageNet",
            DataLayout::Oxford => "Oxford-102",
            DataLayout::Conceptual => "Conceptual Captions",
            DataLayout::Shards => "webdataset shards",
            DataLayout::Ffhq => "FFHQ",
        })
    }
}

/// Which part of a data set that has parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
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
    pub layout: DataLayout,
    pub epoch: Epoch,
    pub items: Vec<Item>,
    /// Items left out already: captions that are missing or cannot be read.
    pub skipped: Vec<Skipped>,
    /// Whether there are other splits than the one read.
    pub has_parts: bool,
}

impl Dataset {
    /// The picture of `item`.
    pub fn picture(&self, item: &Item) -> Result<Picture, PictureProblem> {
        let bytes = item.picture.read(&self.root)?;
        decode(&bytes)
    }
}
