//! Webdataset: tar files whose members of one key are a sample, as img2dataset writes
//! CC12M and LAION.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;

use super::has_extension;
use super::shard_index::{self, Indexed, Sample};
use crate::data::dataset::{DataLayout, Dataset, Epoch, Item, Split};
use crate::data::error::{DataError, Skipped};
use crate::data::locator::Locator;

/// The names of the tars in `folder`, sorted.
pub fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| has_extension(&entry.path(), &["tar"]))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

/// The split that a shard's name speaks of, as `cc3m-validation-0001.tar` does.
fn split_of(name: &str) -> Option<Split> {
    let words = name.split(|c: char| !c.is_ascii_alphabetic());
    words
        .filter_map(|word| match word.to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Split::Train),
            "val" | "valid" | "validation" => Some(Split::Val),
            "test" => Some(Split::Test),
            _ => None,
        })
        .next()
}

/// The samples of the shards `names` below `root`, by shard and place in it: those of the
/// `split`, if one is asked for and the names tell of splits. A sample is the members of one key, which ends at
/// the first dot of the file name: a picture; a caption in `.txt` or `.caption`, or in
/// the fields `caption` or `text` of `.json`; a class in `.cls`.
///
/// Each shard is gone through once; what it holds is kept in a file beside it.
///
/// # Errors
///
/// A shard that cannot be opened. One that is cut short or damaged gives the samples before
/// that, and is listed.
pub fn read(root: &Path, names: &[String], split: Option<Split>) -> Result<Dataset, DataError> {
    let of = |name: &String| split_of(name).unwrap_or(Split::Train);
    let has_parts = split.is_some() && names.iter().any(|name| of(name) != Split::Train);
    let wanted = |name: &&String| !has_parts || Some(of(name)) == split;
    let chosen: Vec<&String> = names.iter().filter(wanted).collect();
    if chosen.is_empty() {
        let split = split.map_or("", Split::name);
        let problem = format!("has no tar of the split {split} among {}", names.join(", "));
        return Err(DataError::format(root, problem));
    }
    let indexed: Result<Vec<Indexed>, DataError> = chosen
        .par_iter()
        .map(|name| shard_index::of(&root.join(name)))
        .collect();
    let mut dataset = Dataset {
        root: root.to_path_buf(),
        layout: DataLayout::Shards,
        epoch: Epoch::Pictures,
        items: Vec::new(),
        skipped: Vec::new(),
        has_parts,
    };
    for (name, indexed) in chosen.into_iter().zip(indexed?) {
        let listed = indexed.problems.into_iter().map(|problem| Skipped {
            what: name.clone(),
            reason: problem,
        });
        dataset.skipped.extend(listed);
        let items = indexed.samples.into_iter().map(|sample| item(name, sample));
        dataset.items.extend(items);
    }
    let captioned = dataset.items.iter().any(|item| !item.captions.is_empty());
    if captioned {
        let (kept, without) = dataset
            .items
            .into_iter()
            .partition(|item| !item.captions.is_empty());
        dataset.items = kept;
        let listed = without.into_iter().map(|item: Item| Skipped {
            what: item.picture.to_string(),
            reason: "no caption".into(),
        });
        dataset.skipped.extend(listed);
    }
    Ok(dataset)
}

fn item(shard: &str, sample: Sample) -> Item {
    Item {
        picture: Locator::Part {
            shard: shard.to_string(),
            name: sample.name,
            offset: sample.offset,
            size: sample.size,
        },
        captions: sample.caption.into_iter().collect(),
        label: sample.label,
    }
}

/// The pictures in the shards `names` by the part of their names before the first dot.
pub fn by_stem(root: &Path, names: &[String]) -> Result<BTreeMap<String, Locator>, DataError> {
    let mut found = BTreeMap::new();
    for name in names {
        for sample in shard_index::of(&root.join(name))?.samples {
            let base = sample.name.rsplit('/').next().unwrap_or_default();
            let stem = base.split('.').next().unwrap_or_default().to_string();
            found.insert(stem, item(name, sample).picture);
        }
    }
    Ok(found)
}
