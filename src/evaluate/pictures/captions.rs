//! The captions that pictures were asked for by.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::ComparisonError;
use crate::files;

/// The list that a folder of made pictures has.
pub const LIST: &str = "captions.jsonl";
/// Bytes of the largest list.
const LARGEST: u64 = 1 << 30;

/// A line of the list; it may hold more.
#[derive(Deserialize)]
struct Line {
    file: PathBuf,
    caption: Option<String>,
    #[serde(default)]
    captions: Vec<String>,
}

/// The caption of each of `names` by the list `path`, a JSON object a line with `file` and
/// `caption`, or `captions`, whose first counts.
///
/// # Errors
///
/// A list that cannot be read, a line that is no such object, or a picture without a line.
pub fn read(path: &Path, names: &[String]) -> Result<Vec<String>, ComparisonError> {
    let problem = |problem: String| ComparisonError::Set {
        set: path.to_path_buf(),
        problem,
    };
    let text = files::read_text(path, LARGEST)?;
    let mut captions = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let line: Line =
            serde_json::from_str(line).map_err(|e| problem(format!("line {}: {e}", number + 1)))?;
        let caption = line.caption.or_else(|| line.captions.into_iter().next());
        let caption = caption
            .ok_or_else(|| problem(format!("line {}: no caption or captions", number + 1)))?;
        captions.insert(line.file, caption);
    }
    let of = |name: &String| {
        let found = captions.get(Path::new(name)).cloned();
        found.ok_or_else(|| problem(format!("no line for the picture '{name}'")))
    };
    names.iter().map(of).collect()
}
