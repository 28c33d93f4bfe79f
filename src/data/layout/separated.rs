//! A list of comma-, tab- or semicolon-separated values with a header row.

use std::path::Path;

use ::csv::{ByteRecord, ReaderBuilder, StringRecord};

use super::list::{collect, repeats, Label, ListRow, RowError, CAPTION, FILE, LABEL, REPEATS};
use super::text;
use crate::data::dataset::{DataLayout, Dataset};
use crate::data::error::DataError;

/// The columns `file` (or `file_name`) and optionally `caption` (or `text`, `captions`), `label`
/// and `repeats` (how often an epoch shows the picture), in capitals or not; several rows of
/// one picture are several captions. The header row tells the separator: Excel writes tabs,
/// and in many countries semicolons.
pub fn read(path: &Path) -> Result<Dataset, DataError> {
    let bytes = text::list(path)?;
    let table = Table::new(&bytes).map_err(|error| match error {
        RowError::NoFileColumn(_) => DataError::format(path, error),
        error => DataError::format(path, format!("line 1: {error}")),
    })?;
    let rows = table.rows(&bytes).into_iter();
    Ok(collect(path, DataLayout::Csv, rows, &table.unread))
}

/// What the header row says.
struct Table {
    separator: u8,
    /// Fields of a row.
    width: usize,
    file: usize,
    caption: Option<usize>,
    label: Option<usize>,
    repeats: Option<usize>,
    /// Names of the other columns.
    unread: Vec<String>,
    /// Where the rows begin in the file.
    start: usize,
}

impl Table {
    fn new(bytes: &[u8]) -> Result<Self, RowError> {
        let mut first = None;
        for separator in [b',', b'\t', b';'] {
            let mut record = ByteRecord::new();
            let mut reader = reader(separator).from_reader(bytes);
            reader.read_byte_record(&mut record)?;
            let start = reader.position().byte() as usize;
            check_quotes(&bytes[..start], separator)?;
            let names: Vec<String> = record
                .iter()
                .map(|name| String::from_utf8_lossy(name).trim().to_string())
                .collect();
            let column = |known: &[&str]| {
                let is_known = |name: &String| known.iter().any(|k| k.eq_ignore_ascii_case(name));
                names.iter().position(is_known)
            };
            if let Some(file) = column(&FILE) {
                let (caption, label) = (column(&CAPTION), column(&[LABEL]));
                let repeats = column(&[REPEATS]);
                let used = [Some(file), caption, label, repeats];
                let unread = names.iter().enumerate();
                let unread =
                    unread.filter(|(n, name)| !used.contains(&Some(*n)) && !name.is_empty());
                return Ok(Table {
                    separator,
                    width: names.len(),
                    file,
                    caption,
                    label,
                    repeats,
                    unread: unread.map(|(_, name)| name.clone()).collect(),
                    start,
                });
            }
            first.get_or_insert(names);
        }
        let mut found = first.unwrap_or_default().join(", ");
        if let Some((end, _)) = found.char_indices().nth(200) {
            found.truncate(end);
            found.push('…');
        }
        Err(RowError::NoFileColumn(found))
    }

    /// Each row with its line. A row whose quotes are wrong is given up at the end of its
    /// line, so that it does not swallow the rows behind it.
    fn rows(&self, bytes: &[u8]) -> Vec<(usize, Result<ListRow, RowError>)> {
        let mut rows = Vec::new();
        let (mut at, mut counted, mut line) = (self.start, 0, 1);
        'from_here: loop {
            let begin = at;
            let mut reader = reader(self.separator).from_reader(&bytes[begin..]);
            let mut record = ByteRecord::new();
            loop {
                while matches!(bytes.get(at), Some(b'\r' | b'\n')) {
                    at += 1;
                }
                line += bytes[counted..at].iter().filter(|&&b| b == b'\n').count();
                counted = at;
                match reader.read_byte_record(&mut record) {
                    Ok(true) => {}
                    Ok(false) => return rows,
                    Err(e) => {
                        rows.push((line, Err(e.into())));
                        return rows;
                    }
                }
                let end = begin + reader.position().byte() as usize;
                if let Err(problem) = check_quotes(&bytes[at..end], self.separator) {
                    rows.push((line, Err(problem)));
                    let rest = bytes[at..].iter().position(|&b| b == b'\n');
                    at = rest.map_or(bytes.len(), |n| at + n);
                    continue 'from_here;
                }
                rows.push((line, self.row(&record)));
                at = end;
            }
        }
    }

    fn row(&self, record: &ByteRecord) -> Result<ListRow, RowError> {
        if record.len() != self.width {
            return Err(RowError::Width {
                found: record.len(),
                expected: self.width,
            });
        }
        let record = StringRecord::from_byte_record(record.clone())
            .map_err(|e| RowError::NotUtf8Field(e.utf8_error().field() + 1))?;
        let field = |column: Option<usize>| column.and_then(|n| record.get(n)).unwrap_or("");
        Ok(ListRow {
            file: field(Some(self.file)).to_string(),
            captions: vec![field(self.caption).to_string()],
            label: Label::parse(field(self.label)),
            repeats: repeats(field(self.repeats))?,
        })
    }
}

fn reader(separator: u8) -> ReaderBuilder {
    let mut builder = ReaderBuilder::new();
    builder
        .has_headers(false)
        .flexible(true)
        .delimiter(separator);
    builder
}

/// Whether every quote at the start of a field of one row is closed at the end of the
/// field: the library reads on without a word.
fn check_quotes(row: &[u8], separator: u8) -> Result<(), RowError> {
    #[derive(PartialEq)]
    enum At {
        Start,
        Plain,
        Quoted,
        Behind,
    }
    let mut at = At::Start;
    for &byte in row {
        let ends = byte == separator || matches!(byte, b'\r' | b'\n');
        at = match at {
            At::Quoted if byte == b'"' => At::Behind,
            At::Quoted => At::Quoted,
            _ if ends => At::Start,
            At::Start | At::Behind if byte == b'"' => At::Quoted,
            At::Start | At::Plain => At::Plain,
            At::Behind if byte == b' ' => At::Behind,
            At::Behind => return Err(RowError::BehindQuote),
        };
    }
    match at {
        At::Quoted => Err(RowError::OpenQuote),
        _ => Ok(()),
    }
}
