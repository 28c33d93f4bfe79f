//! Oxford-102 flowers with ten captions a picture.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{has_extension, is_picture, pickled, text};
use crate::data::dataset::{DataLayout, Dataset, Epoch, Item, Split};
use crate::data::error::{DataError, Skipped};

/// Where pictures and captions may lie below the root: those of the two archives
/// (`102flowers.tgz`, `cvpr2016_flowers.tar.gz`) first.
const PICTURES: [&str; 5] = [
    "jpg",
    "102flowers/jpg",
    "102flowers",
    "images",
    "flowers/jpg",
];
const TEXTS: [&str; 3] = ["text_c10", "cvpr2016_flowers/text_c10", "text"];
/// Where the lists of classes of a split may lie.
const CLASSES: [&str; 4] = ["", "flowers_icml", "text_c10", "cvpr2016_flowers"];

fn folders(root: &Path) -> Option<(&'static str, &'static str)> {
    let first = |of: &[&'static str]| of.iter().copied().find(|name| root.join(name).is_dir());
    let (pictures, texts) = (first(&PICTURES)?, first(&TEXTS)?);
    let of_flowers = root.join(texts).join("class_00001").is_dir();
    of_flowers.then_some((pictures, texts))
}

/// Whether a data set of this layout is at `root`.
pub fn is_at(root: &Path) -> bool {
    folders(root).is_some()
}

/// Which pictures and classes are of a split.
enum Part {
    All,
    /// By the last part of their names.
    Pictures(BTreeSet<String>),
    Classes(BTreeSet<String>),
}

/// `jpg/image_00001.jpg` with the lines of `text_c10/class_00077/image_00001.txt` as
/// captions, by picture. Splits are those of StackGAN (`{train,test}/filenames.pickle`)
/// or of the captions' authors (`{train,val,test}classes.txt`); without such lists there is
/// one part. Where there is no validation part it is the test part.
pub fn read(root: &Path, split: Split) -> Result<Dataset, DataError> {
    let (pictures, texts) = folders(root).unwrap_or((PICTURES[0], TEXTS[0]));
    let part = part(root, split)?;
    let mut dataset = Dataset {
        root: root.to_path_buf(),
        layout: DataLayout::Oxford,
        epoch: Epoch::Pictures,
        items: Vec::new(),
        skipped: Vec::new(),
        has_parts: !matches!(part, Part::All),
    };
    let mut captions: BTreeMap<String, String> = BTreeMap::new();
    for class in names_in(&root.join(texts))? {
        let wanted = match &part {
            Part::Classes(classes) => classes.contains(&class),
            Part::All | Part::Pictures(_) => true,
        };
        let folder = root.join(texts).join(&class);
        if !wanted || !folder.is_dir() {
            continue;
        }
        for file in names_in(&folder)? {
            if let (true, Some(stem)) = (has_extension(Path::new(&file), &["txt"]), stem(&file)) {
                captions.insert(stem.to_string(), format!("{texts}/{class}/{file}"));
            }
        }
    }
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for file in names_in(&root.join(pictures))? {
        if let (true, Some(stem)) = (is_picture(Path::new(&file)), stem(&file)) {
            files.insert(stem.to_string(), format!("{pictures}/{file}"));
        }
    }
    let stems: Vec<&String> = match &part {
        Part::Pictures(stems) => stems.iter().collect(),
        Part::Classes(_) => captions.keys().collect(),
        Part::All => files.keys().collect(),
    };
    for stem in stems {
        let usual = || format!("{pictures}/{stem}.jpg");
        let picture = files.get(stem).cloned().unwrap_or_else(usual);
        let lines = match captions.get(stem) {
            Some(file) => text::captions(&root.join(file)).map_err(|e| format!("{file}: {e}")),
            None => Err(format!("has no caption file below {texts}")),
        };
        match lines {
            Ok(captions) => dataset.items.push(Item {
                picture: picture.into(),
                captions,
                label: None,
            }),
            Err(reason) => dataset.skipped.push(Skipped {
                what: picture,
                reason,
            }),
        }
    }
    Ok(dataset)
}

fn part(root: &Path, split: Split) -> Result<Part, DataError> {
    let instead = match split {
        Split::Val => vec![Split::Val, Split::Test],
        split => vec![split],
    };
    let pickle = |split: &Split| root.join(split.name()).join("filenames.pickle");
    let classes = |split: &Split| -> Option<PathBuf> {
        let file = format!("{}classes.txt", split.name());
        let mut files = CLASSES.iter().map(|folder| root.join(folder).join(&file));
        files.find(|file| file.is_file())
    };
    if let Some(path) = instead.iter().map(pickle).find(|path| path.is_file()) {
        let names = pickled::names(&path)?;
        let stems = names.iter().filter_map(|name| {
            let base = name.rsplit('/').next()?;
            Some(stem(base).unwrap_or(base).to_string())
        });
        return Ok(Part::Pictures(stems.collect()));
    }
    if let Some(path) = instead.iter().find_map(classes) {
        let lines = text::captions(&path);
        let lines = lines.map_err(|source| DataError::Text { path, source })?;
        return Ok(Part::Classes(lines.into_iter().collect()));
    }
    let others = [Split::Train, Split::Val, Split::Test];
    match others
        .iter()
        .any(|of| pickle(of).is_file() || classes(of).is_some())
    {
        true => Err(DataError::format(
            root,
            format!(
                "lists other splits, but not {} (expected {}/filenames.pickle or {}classes.txt)",
                split.name(),
                split.name(),
                split.name()
            ),
        )),
        false => Ok(Part::All),
    }
}

/// A file name without its ending.
fn stem(name: &str) -> Option<&str> {
    name.rsplit_once('.').map(|(stem, _)| stem)
}

fn names_in(folder: &Path) -> Result<Vec<String>, DataError> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(DataError::io(folder))? {
        let entry = entry.map_err(DataError::io(folder))?;
        names.extend(entry.file_name().into_string());
    }
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    Ok(names)
}
