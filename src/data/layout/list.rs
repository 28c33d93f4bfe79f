//! What all lists of pictures with captions have in common.

use std::collections::HashMap;
use std::path::Path;

use crate::data::dataset::{DataLayout, Dataset, Epoch, Item};
use crate::data::error::Skipped;

/// What the picture and its captions may be called in a list; the last of each are open_clip's.
pub const FILE: [&str; 3] = ["file", "file_name", "filepath"];
pub const CAPTION: [&str; 4] = ["caption", "text", "captions", "title"];
pub const LABEL: &str = "label";
pub const REPEATS: &str = "repeats";

/// One line of a list.
pub struct ListRow {
    /// Path of the picture, relative to the list's folder.
    pub file: String,
    pub captions: Vec<String>,
    pub label: Label,
    /// Times that an epoch shows the picture, from [`repeats`].
    pub repeats: usize,
}

/// Why a line is no row of a list.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// The first byte that is not.
    #[error("not UTF-8 (byte {0} of the line)")]
    NotUtf8(usize),

    /// The first field that is not, from 1.
    #[error("not UTF-8 (field {0})")]
    NotUtf8Field(usize),

    #[error("expected one JSON object a line")]
    NoObject,

    #[error("{}", .0.to_string().replace(" at line 1 column ", " at column "))]
    Json(#[source] serde_json::Error),

    #[error("missing field `{0}`")]
    Missing(&'static str),

    #[error("`{field}` {found}, expected {expected}")]
    Field {
        field: &'static str,
        found: String,
        expected: &'static str,
    },

    #[error("{found} fields, expected {expected}; a caption with commas needs quotes")]
    Width { found: usize, expected: usize },

    #[error("its quote is not closed")]
    OpenQuote,

    #[error("text behind a closing quote; is a quote before it not closed?")]
    BehindQuote,

    #[error("the header row has no column 'file', only: {0}")]
    NoFileColumn(String),

    #[error("{0}")]
    Csv(#[from] csv::Error),
}

/// What a row says of the picture's class.
pub enum Label {
    None,
    Class(i64),
    /// Not an integer; a model of texts has no use for it anyway.
    Odd(String),
}

impl Label {
    /// A label as text: an integer, which pandas also writes with a zero fraction.
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        let whole = text.strip_suffix(".0").unwrap_or(text);
        match whole.parse() {
            Ok(class) => Label::Class(class),
            Err(_) if text.is_empty() || text.eq_ignore_ascii_case("nan") => Label::None,
            Err(_) => Label::Odd(format!("'{text}'")),
        }
    }
}

/// How often an epoch shows a picture: the number in `text`, 1 where there is none.
///
/// # Errors
///
/// What is no integer from 1 to 1000.
pub fn repeats(text: &str) -> Result<usize, RowError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(1);
    }
    let whole = text.strip_suffix(".0").unwrap_or(text);
    match whole.parse() {
        Ok(times) if (1..=1000).contains(&times) => Ok(times),
        _ => Err(RowError::Field {
            field: REPEATS,
            found: format!("is {text}"),
            expected: "an integer from 1 to 1000",
        }),
    }
}

/// Joins the rows (line, row) of each picture in the order of first mention, and has it there
/// as often as the largest `repeats` of its rows says. Where some pictures have captions,
/// those without are skipped. Where none has, and no label either, there is a warning; it
/// names the list's `unread` fields.
pub fn collect(
    path: &Path,
    layout: DataLayout,
    rows: impl Iterator<Item = (usize, Result<ListRow, RowError>)>,
    unread: &[String],
) -> Dataset {
    let list = path.file_name().unwrap_or_default().to_string_lossy();
    let at = |line: usize, reason: String| Skipped {
        what: format!("{list} line {line}"),
        reason,
    };
    let mut skipped = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut items: Vec<(usize, usize, Item)> = Vec::new();
    let (mut odd, mut first_odd) = (0, None);
    for (line, row) in rows {
        let row = match row {
            Ok(row) if row.file.is_empty() => {
                skipped.push(at(line, "no file named".into()));
                continue;
            }
            Ok(row) => row,
            Err(error) => {
                skipped.push(at(line, error.to_string()));
                continue;
            }
        };
        let label = match row.label {
            Label::None => None,
            Label::Class(class) => Some(class),
            Label::Odd(found) => {
                odd += 1;
                first_odd.get_or_insert((line, found));
                None
            }
        };
        let place = *places.entry(row.file).or_insert_with_key(|file| {
            let item = Item {
                picture: file.clone().into(),
                captions: Vec::new(),
                label: None,
            };
            items.push((line, 1, item));
            items.len() - 1
        });
        let (_, repeats, item) = &mut items[place];
        if let (Some(new), Some(known)) = (label, item.label) {
            if new != known {
                let reason = format!(
                    "label {new} for {}, which has the label {known}",
                    item.picture
                );
                skipped.push(at(line, reason));
                continue;
            }
        }
        *repeats = row.repeats.max(*repeats);
        let captions = row.captions.iter().map(|caption| caption.trim());
        let captions = captions.filter(|caption| !caption.is_empty());
        item.captions.extend(captions.map(str::to_string));
        item.label = item.label.or(label);
    }
    if let Some((line, found)) = first_odd {
        log::warn!(
            "{} line {line}: label is {found}, expected an integer; {odd} rows are taken \
             without a label",
            path.display()
        );
    }
    let captioned = items.iter().any(|(_, _, item)| !item.captions.is_empty());
    let mut kept = Vec::with_capacity(items.len());
    for (line, repeats, item) in items {
        if captioned && item.captions.is_empty() {
            skipped.push(at(line, format!("no caption for {}", item.picture)));
        } else {
            kept.extend(std::iter::repeat_n(item, repeats));
        }
    }
    let labelled = kept.iter().any(|item| item.label.is_some());
    if !captioned && !kept.is_empty() && (!unread.is_empty() || !labelled) {
        let unread = match unread {
            [] => String::new(),
            names => format!("; not read: {}", names.join(", ")),
        };
        log::warn!(
            "{}: the pictures are taken without captions: none in caption, text or captions{unread}",
            path.display(),
        );
    }
    Dataset {
        root: path.parent().unwrap_or(Path::new("")).to_path_buf(),
        layout,
        epoch: Epoch::Pictures,
        items: kept,
        skipped,
        has_parts: false,
    }
}
