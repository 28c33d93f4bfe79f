//! A list of pictures with captions: JSON lines or CSV.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::read_file;
use crate::data::dataset::{Dataset, Epoch, Item, Layout};
use crate::data::error::{DataError, Skipped};

/// One line of a list.
struct Row {
    /// Path of the picture, relative to the list's folder.
    file: PathBuf,
    captions: Vec<String>,
    label: Option<i64>,
}

/// A line of JSON; other fields are allowed and ignored.
#[derive(Deserialize)]
struct JsonRow {
    file: Option<PathBuf>,
    file_name: Option<PathBuf>,
    caption: Option<String>,
    text: Option<String>,
    captions: Option<Vec<String>>,
    label: Option<i64>,
}

/// `captions.jsonl`: an object a line with `file` (or `file_name`), `caption` (or `text`)
/// or a list `captions`, and optionally an integer `label`.
pub fn json_lines(path: &Path) -> Result<Dataset, DataError> {
    let bytes = read_file(path)?;
    let lines = bytes.split(|&byte| byte == b'\n').enumerate();
    let rows = lines
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(n, line)| (n + 1, parse_json(line)));
    Ok(collect(path, Layout::JsonLines, rows))
}

fn parse_json(line: &[u8]) -> Result<Row, String> {
    let text = std::str::from_utf8(line)
        .map_err(|e| format!("not UTF-8 (byte {} of the line)", e.valid_up_to()))?;
    if !text
        .trim_start_matches('\u{feff}')
        .trim_start()
        .starts_with('{')
    {
        return Err("expected one JSON object a line".into());
    }
    let row: JsonRow = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|e| e.to_string().replace(" at line 1 column ", " at column "))?;
    let caption = row.caption.or(row.text);
    Ok(Row {
        file: row.file.or(row.file_name).ok_or("missing field `file`")?,
        captions: caption
            .into_iter()
            .chain(row.captions.into_iter().flatten())
            .collect(),
        label: row.label,
    })
}

/// CSV with the columns `file` (or `file_name`) and optionally `caption` (or `text`) and
/// `label`, in capitals or not; several rows of one picture are several captions.
pub fn csv(path: &Path) -> Result<Dataset, DataError> {
    let bytes = read_file(path)?;
    let mut reader = ::csv::Reader::from_reader(bytes.as_slice());
    let names = reader
        .headers()
        .map_err(|e| DataError::format(path, e))?
        .clone();
    let column = |known: [&str; 2]| {
        let mut names = names.iter();
        names.position(|name| {
            let name = name.trim();
            known.iter().any(|known| known.eq_ignore_ascii_case(name))
        })
    };
    let Some(file) = column(["file", "file_name"]) else {
        let found: Vec<&str> = names.iter().collect();
        let hint = match found.as_slice() {
            [one] if one.contains([';', '\t']) => "; columns are separated by commas",
            _ => "",
        };
        return Err(DataError::format(
            path,
            format!(
                "the header row has no column 'file', only: {}{hint}",
                found.join(", ")
            ),
        ));
    };
    let (caption, label) = (column(["caption", "text"]), column(["label", "label"]));
    let parse = |record: Result<::csv::ByteRecord, ::csv::Error>| -> Result<Row, String> {
        let record = ::csv::StringRecord::from_byte_record(record.map_err(problem)?)
            .map_err(|e| format!("not UTF-8: {}", e.utf8_error()))?;
        let field = |column: Option<usize>| column.and_then(|n| record.get(n)).unwrap_or("");
        let label = match field(label).trim() {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|_| format!("label is '{text}', expected an integer"))?,
            ),
        };
        Ok(Row {
            file: field(Some(file)).into(),
            captions: vec![field(caption).to_string()],
            label,
        })
    };
    let mut rows = Vec::new();
    let mut records = reader.byte_records();
    let (mut line, mut counted) = (1, 0);
    loop {
        let mut start = records.reader().position().byte() as usize;
        while matches!(bytes.get(start), Some(b'\r' | b'\n')) {
            start += 1;
        }
        let ends = bytes[counted..start].iter().filter(|&&byte| byte == b'\n');
        (line, counted) = (line + ends.count(), start);
        match records.next() {
            Some(record) => rows.push((line, parse(record))),
            None => break,
        }
    }
    Ok(collect(path, Layout::Csv, rows.into_iter()))
}

fn problem(error: ::csv::Error) -> String {
    match error.kind() {
        ::csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("{len} fields, expected {expected_len}; a caption with commas needs quotes"),
        _ => error.to_string(),
    }
}

/// Joins the rows of each picture in the order of first mention. Where some pictures
/// have captions, those without are skipped.
fn collect(
    path: &Path,
    layout: Layout,
    rows: impl Iterator<Item = (usize, Result<Row, String>)>,
) -> Dataset {
    let list = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut skipped = Vec::new();
    let mut places: HashMap<PathBuf, usize> = HashMap::new();
    let mut items: Vec<(usize, Item)> = Vec::new();
    for (line, row) in rows {
        let row = match row {
            Ok(row) if row.file.as_os_str().is_empty() => Err("no file named".to_string()),
            other => other,
        };
        let row = match row {
            Ok(row) => row,
            Err(reason) => {
                skipped.push(Skipped {
                    what: format!("{list} line {line}"),
                    reason,
                });
                continue;
            }
        };
        let place = *places.entry(row.file.clone()).or_insert_with(|| {
            let item = Item {
                picture: row.file.clone(),
                captions: Vec::new(),
                label: None,
            };
            items.push((line, item));
            items.len() - 1
        });
        let item = &mut items[place].1;
        if let (Some(new), Some(known)) = (row.label, item.label) {
            if new != known {
                let picture = row.file.display();
                skipped.push(Skipped {
                    what: format!("{list} line {line}"),
                    reason: format!("label {new} for {picture}, which has the label {known}"),
                });
                continue;
            }
        }
        item.captions.extend(
            row.captions
                .into_iter()
                .map(|caption| caption.trim().to_string())
                .filter(|caption| !caption.is_empty()),
        );
        item.label = item.label.or(row.label);
    }
    let captioned = items.iter().any(|(_, item)| !item.captions.is_empty());
    let mut kept = Vec::new();
    for (line, item) in items {
        if captioned && item.captions.is_empty() {
            skipped.push(Skipped {
                what: format!("{list} line {line}"),
                reason: format!("no caption for {}", item.picture.display()),
            });
        } else {
            kept.push(item);
        }
    }
    Dataset {
        root: path.parent().unwrap_or(Path::new("")).to_path_buf(),
        layout,
        epoch: Epoch::Pictures,
        items: kept,
        skipped,
    }
}
