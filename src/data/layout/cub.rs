//! CUB-200 as the original lays it out, and as AttnGAN and DF-GAN ship it.

use std::path::{Path, PathBuf};

use super::{pickled, text};
use crate::data::dataset::{DataLayout, Dataset, Epoch, Item, Split};
use crate::data::error::{DataError, Skipped};

/// Where pictures and captions may lie below the root: the original's places first.
const PICTURES: [&str; 2] = ["images", "CUB_200_2011/images"];
const TEXTS: [&str; 4] = ["text/text", "text", "text_c10", "CUB_200_2011/text"];

/// The folders of pictures and captions, if a data set of this layout is at `root`.
fn folders(root: &Path) -> Option<(&'static str, &'static str)> {
    let first = |of: &[&'static str]| of.iter().copied().find(|name| root.join(name).is_dir());
    let texts = first(&TEXTS)?;
    let listed = [Split::Train, Split::Test].map(|split| names_file(root, split).exists());
    (texts == TEXTS[0] || listed.contains(&true)).then_some((first(&PICTURES)?, texts))
}

/// Whether a data set of this layout is at `root`.
pub fn is_at(root: &Path) -> bool {
    folders(root).is_some()
}

/// Validation is on `test`, as the original's: there is no third part.
fn names_file(root: &Path, split: Split) -> PathBuf {
    let folder = match split {
        Split::Train => "train",
        Split::Val | Split::Test => "test",
    };
    root.join(folder).join("filenames.pickle")
}

/// `{train,test}/filenames.pickle` lists `class/name`; the picture is
/// `images/class/name.jpg`, its captions are the lines of `text/text/class/name.txt`. In
/// AttnGAN's `birds` the folders are `CUB_200_2011/images` and `text`.
pub fn read(root: &Path, split: Split) -> Result<Dataset, DataError> {
    let (pictures, texts) = folders(root).unwrap_or((PICTURES[0], TEXTS[0]));
    let path = names_file(root, split);
    let mut dataset = Dataset {
        root: root.to_path_buf(),
        layout: DataLayout::Cub,
        epoch: Epoch::Pictures,
        items: Vec::new(),
        skipped: Vec::new(),
        has_parts: true,
    };
    for name in pickled::names(&path)? {
        let file = format!("{texts}/{name}.txt");
        match text::captions(&root.join(&file)) {
            Ok(captions) => dataset.items.push(Item {
                picture: format!("{pictures}/{name}.jpg").into(),
                captions,
                label: None,
            }),
            Err(error) => dataset.skipped.push(Skipped {
                what: file,
                reason: error.to_string(),
            }),
        }
    }
    Ok(dataset)
}
