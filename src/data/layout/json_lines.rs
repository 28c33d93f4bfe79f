//! A list with one JSON object a line, as Hugging Face's `metadata.jsonl`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::list::{collect, repeats, Label, ListRow, RowError, CAPTION, FILE, LABEL, REPEATS};
use super::text;
use crate::data::dataset::{DataLayout, Dataset};
use crate::data::error::DataError;

/// An object a line with `file` (or `file_name`); captions in `caption`, `text` or
/// `captions`, each a text or a list of texts; and optionally an integer `label`, and
/// `repeats`, how often an epoch shows the picture. Other fields are not read. Python's
/// `NaN` and `Infinity` are no values.
pub fn read(path: &Path) -> Result<Dataset, DataError> {
    let bytes = text::list(path)?;
    let mut unread = BTreeSet::new();
    let lines = bytes.split(|&byte| byte == b'\n').enumerate();
    let rows = lines
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(n, line)| (n + 1, parse(line, &mut unread)));
    let rows: Vec<_> = rows.collect();
    let unread: Vec<String> = unread.into_iter().collect();
    Ok(collect(
        path,
        DataLayout::JsonLines,
        rows.into_iter(),
        &unread,
    ))
}

fn parse(line: &[u8], unread: &mut BTreeSet<String>) -> Result<ListRow, RowError> {
    let text = std::str::from_utf8(line).map_err(|e| RowError::NotUtf8(e.valid_up_to()))?;
    if !text.trim_start().starts_with('{') {
        return Err(RowError::NoObject);
    }
    let mut fields = object(text)?;
    let mut take = |names: &[&'static str]| {
        let found = names
            .iter()
            .filter_map(|&name| Some((name, fields.remove(name)?)));
        found
            .filter(|(_, value)| !value.is_null())
            .collect::<Vec<_>>()
    };
    let file = take(&FILE).into_iter().next();
    let captions = take(&CAPTION);
    let label = take(&[LABEL]).pop();
    let times = take(&[REPEATS]).pop();
    let row = ListRow {
        file: match file {
            Some((_, Value::String(file))) => file,
            Some((field, other)) => {
                return Err(RowError::Field {
                    field,
                    found: format!("is {other}"),
                    expected: "a path",
                })
            }
            None => return Err(RowError::Missing(FILE[0])),
        },
        captions: texts(captions)?,
        label: match label {
            None => Label::None,
            Some((_, Value::String(text))) => Label::parse(&text),
            Some((_, value)) => match &value {
                Value::Number(number) => Label::parse(&number.to_string()),
                other => Label::Odd(other.to_string()),
            },
        },
        repeats: match times {
            None => 1,
            Some((_, Value::String(text))) => repeats(&text)?,
            Some((_, value)) => repeats(&value.to_string())?,
        },
    };
    let words = fields
        .into_iter()
        .filter(|(_, value)| value.is_string() || value.is_array());
    unread.extend(words.map(|(name, _)| name));
    Ok(row)
}

/// The texts of fields that are a text or a list of texts.
fn texts(fields: Vec<(&'static str, Value)>) -> Result<Vec<String>, RowError> {
    let mut texts = Vec::new();
    for (field, value) in fields {
        let values = match value {
            Value::Array(values) => values,
            value => vec![value],
        };
        for value in values {
            match value {
                Value::String(text) => texts.push(text),
                Value::Null => {}
                other => {
                    return Err(RowError::Field {
                        field,
                        found: format!("holds {other}"),
                        expected: "text",
                    })
                }
            }
        }
    }
    Ok(texts)
}

/// The first caption of the object in `text`, if it has one.
pub fn caption(text: &str) -> Option<String> {
    let fields = object(text).ok()?;
    let named = CAPTION
        .iter()
        .filter_map(|&name| Some((name, fields.get(name)?.clone())));
    let captions = texts(named.collect()).ok()?;
    captions
        .into_iter()
        .find(|caption| !caption.trim().is_empty())
}

/// The object in `text`.
fn object(text: &str) -> Result<Map<String, Value>, RowError> {
    match serde_json::from_str(text) {
        Ok(fields) => Ok(fields),
        Err(error) => match without_nan(text) {
            Cow::Borrowed(_) => Err(RowError::Json(error)),
            Cow::Owned(text) => serde_json::from_str(&text).map_err(RowError::Json),
        },
    }
}

/// `text` with null for what Python's `json` writes where JSON has no number.
pub fn without_nan(text: &str) -> Cow<'_, str> {
    const NAMES: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    let mut out = String::new();
    let (mut at, mut copied, mut quoted) = (0, 0, false);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'"' => quoted = !quoted,
            b'\\' if quoted => at += 1,
            b'-' | b'I' | b'N' if !quoted => {
                let rest = &text[at..];
                if let Some(name) = NAMES.iter().find(|name| rest.starts_with(**name)) {
                    out.push_str(&text[copied..at]);
                    out.push_str("null");
                    at += name.len();
                    copied = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}
