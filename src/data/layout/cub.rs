//! CUB-200 as the original lays it out.

use std::path::{Path, PathBuf};

use super::{caption_lines, read_file};
use crate::checkpoint::pytorch::{Limits, Node, Pickle, Source};
use crate::data::dataset::{Dataset, Epoch, Item, Layout, Split};
use crate::data::error::{DataError, Skipped};

/// `{train,test}/filenames.pickle` lists `class/name`; the picture is
/// `images/class/name.jpg`, its captions are the lines of `text/text/class/name.txt`.
/// Validation is on `test`, as the original's: there is no third part.
pub fn read(root: &Path, split: Split) -> Result<Dataset, DataError> {
    let folder = match split {
        Split::Train => "train",
        Split::Val | Split::Test => "test",
    };
    let path = root.join(folder).join("filenames.pickle");
    let mut dataset = Dataset {
        root: root.to_path_buf(),
        layout: Layout::Cub,
        epoch: Epoch::Pictures,
        items: Vec::new(),
        skipped: Vec::new(),
    };
    for name in names(&path)? {
        let text = format!("text/text/{name}.txt");
        let captions = std::fs::read(root.join(&text))
            .map_err(|e| e.to_string())
            .and_then(caption_lines);
        match captions {
            Ok(captions) => dataset.items.push(Item {
                picture: PathBuf::from(format!("images/{name}.jpg")),
                captions,
                label: None,
            }),
            Err(reason) => dataset.skipped.push(Skipped { what: text, reason }),
        }
    }
    Ok(dataset)
}

/// The list of strings in a pickle of Python 2 or 3.
fn names(path: &Path) -> Result<Vec<String>, DataError> {
    let bytes = read_file(path)?;
    let mut pickle = Pickle::new();
    let root = pickle
        .read(&mut bytes.as_slice(), Source::Data, Limits::default())
        .map_err(|e| DataError::format(path, e))?;
    let names: Option<Vec<String>> = pickle
        .items(root)
        .iter()
        .map(|&id| match pickle.node(id)? {
            Node::Str(text) => Some(text.to_string()),
            Node::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok(),
            _ => None,
        })
        .collect();
    match names {
        Some(names) if !names.is_empty() => Ok(names),
        _ => Err(DataError::format(
            path,
            "expected a pickled list of file names",
        )),
    }
}
