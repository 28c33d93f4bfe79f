//! Pictures that say what they show: a folder with `captions.jsonl`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::data::order::shuffled;
use crate::data::DataError;
use crate::evaluate::run::LIST;
use crate::files;
use crate::picture::{read_picture, Picture};

/// Bytes of the largest list.
const MOST_LIST: u64 = 1 << 30;

/// A line of the list; other fields are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmojiLabel {
    /// Path of the picture, relative to the folder.
    pub file: PathBuf,
    /// What the picture may be called; the first is the prompt that asks for it.
    #[serde(default)]
    pub captions: Vec<String>,
    /// The thing shown.
    pub concept: String,
    pub style: String,
    /// The named colour of the thing, where it has one.
    #[serde(default)]
    pub colour: Option<String>,
}

/// The labels of a folder, in the order of its list.
#[derive(Clone, Debug)]
pub struct LabelledFolder {
    pub path: PathBuf,
    /// The folder's own name.
    pub name: String,
    pub labels: Vec<EmojiLabel>,
    /// Line of each label in the list, from 1.
    lines: Vec<usize>,
}

impl LabelledFolder {
    /// Reads the list of the folder at `path`; pictures are not opened.
    ///
    /// # Errors
    ///
    /// A list that cannot be read or is empty, and a line that is no label, by its number.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let list = path.join(LIST);
        let text = files::read_text(&list, MOST_LIST)?;
        let (mut labels, mut lines) = (Vec::new(), Vec::new());
        let mut known = HashSet::new();
        for (n, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let problem = |problem: String| DataError::Format {
                path: list.clone(),
                problem: format!("line {}: {problem}", n + 1),
            };
            let label: EmojiLabel =
                serde_json::from_str(line).map_err(|e| problem(e.to_string()))?;
            for (field, value) in [("concept", &label.concept), ("style", &label.style)] {
                if value.trim().is_empty() {
                    return Err(problem(format!("{field} is empty")));
                }
            }
            if !known.insert(label.file.clone()) {
                let file = label.file.display();
                return Err(problem(format!("{file} is named a second time")));
            }
            labels.push(label);
            lines.push(n + 1);
        }
        if labels.is_empty() {
            return Err(DataError::Unusable {
                path: list,
                problem: "names no picture".into(),
            });
        }
        let name = path.canonicalize().ok();
        let name = name.as_deref().unwrap_or(path).file_name();
        Ok(LabelledFolder {
            name: name.unwrap_or_default().to_string_lossy().into_owned(),
            path: path.to_path_buf(),
            labels,
            lines,
        })
    }

    /// Places of `limit` labels drawn once for all, the same in every run; all in a drawn
    /// order without a limit. The first n are the draw of n.
    pub fn drawn(&self, limit: Option<usize>) -> Vec<usize> {
        let places = shuffled(0, 0, self.labels.len() as u32);
        let limit = limit.unwrap_or(places.len());
        let drawn = places.into_iter().take(limit);
        drawn.map(|place| place as usize).collect()
    }

    /// A problem with the label at `place`, naming its line.
    pub fn problem(&self, place: usize, problem: impl std::fmt::Display) -> DataError {
        DataError::Format {
            path: self.path.join(LIST),
            problem: format!("line {}: {problem}", self.lines[place]),
        }
    }

    /// The pictures at `places`.
    ///
    /// # Errors
    ///
    /// The first picture that cannot be read, with the line that names it.
    pub fn pictures(&self, places: &[usize]) -> Result<Vec<Picture>, DataError> {
        places
            .par_iter()
            .map(|&place| {
                let file = &self.labels[place].file;
                read_picture(&self.path.join(file))
                    .map_err(|e| self.problem(place, format!("{}: {}", file.display(), e.problem)))
            })
            .collect()
    }
}
