//! The opening of a data set, whose layout is recognised by its files.

use std::path::{Path, PathBuf};

use super::dataset::{DataLayout, Dataset, Split};
use super::error::DataError;
use super::layout::{self, has_extension};

/// The full-size pictures of FFHQ; beside them may lie the same as thumbnails.
const FFHQ: &str = "images1024x1024";

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
    /// - a folder with `jpg` and `text_c10` of Oxford-102: [`layout::oxford`]
    /// - a folder with `ILSVRC2012_name_*.txt`: [`layout::imagenet`]
    /// - a `.tsv` of captions and addresses, or a folder with one: [`layout::conceptual`]
    /// - a `.tar`, or a folder with some, also below `train`, `val` …: [`layout::shards`]
    /// - a folder with `images1024x1024`: FFHQ, the pictures in that
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

    /// Whether `path` is that of a data set: a folder or a list, not a picture.
    pub fn is_at(path: &Path) -> bool {
        path.is_dir() || has_extension(path, &["jsonl", "csv", "tsv", "tar"])
    }

    fn read(path: &Path, split: Split) -> Result<Self, DataError> {
        let found = std::fs::metadata(path).map_err(DataError::io(path))?;
        if !found.is_dir() {
            return match path {
                _ if has_extension(path, &["jsonl"]) => layout::json_lines::read(path),
                _ if layout::conceptual::is_table(path) => layout::conceptual::read(path, false),
                _ if has_extension(path, &["csv", "tsv"]) => layout::separated::read(path),
                _ if has_extension(path, &["tar"]) => {
                    let folder = path.parent().unwrap_or(Path::new(""));
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    let dataset = layout::shards::read(folder, &[name.into_owned()], None)?;
                    Ok(dataset)
                }
                _ => Err(DataError::format(
                    path,
                    "expected a folder, a list of pictures (.jsonl, .csv or .tsv) or a .tar",
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
        if layout::oxford::is_at(path) {
            return layout::oxford::read(path, split);
        }
        if layout::imagenet::is_at(path) {
            return layout::imagenet::read(path, split);
        }
        let shards = layout::shards::names_in(path);
        let table = layout::conceptual::table_in(path, split)?;
        if !shards.is_empty() && !layout::folder::has_pictures(path) {
            let of_shards = layout::shards::read(path, &shards, Some(split))?;
            let captioned = of_shards.items.iter().any(|item| !item.captions.is_empty());
            if captioned || table.is_none() {
                return Ok(of_shards);
            }
        }
        if let Some((table, has_parts)) = table {
            return layout::conceptual::read(&table, has_parts);
        }
        let part = path.join(split.name());
        let has_parts = true;
        if let Some(list) = list_in(&part) {
            let dataset = Self::read(&list, split)?;
            return Ok(Dataset {
                has_parts,
                ..dataset
            });
        }
        let shards = layout::shards::names_in(&part);
        if !shards.is_empty() && !layout::folder::has_pictures(&part) {
            let dataset = layout::shards::read(&part, &shards, None)?;
            return Ok(Dataset {
                has_parts,
                ..dataset
            });
        }
        let faces = path.join(FFHQ);
        match faces.is_dir() {
            true => Ok(Dataset {
                layout: DataLayout::Ffhq,
                ..layout::folder::read(&faces)?
            }),
            false => layout::folder::read(path),
        }
    }
}

/// The list in `folder`, if there is one; a warning names a second one.
fn list_in(folder: &Path) -> Option<PathBuf> {
    let mut lists = LISTS
        .iter()
        .map(|name| folder.join(name))
        // What is no file there is refused by its reader: no words are lost in silence.
        .filter(|list| list.symlink_metadata().is_ok() && !list.is_dir());
    let list = lists.next()?;
    if let Some(other) = lists.next() {
        log::warn!("{} is read, {} is not", list.display(), other.display());
    }
    Some(list)
}
