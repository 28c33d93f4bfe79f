//! What a tar holds: gone through once, then kept beside it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use tar::{Archive, Entry};

use super::list::Label;
use super::{has_extension, is_picture, json_lines};
use crate::data::error::DataError;
use crate::files::{self, FileError};
use crate::guard::guarded;
use crate::picture::MOST_BYTES;

/// Version of the kept file.
const VERSION: u32 = 1;
/// Bytes of the largest caption, class or description in a shard.
const MOST_WORDS: u64 = 1 << 20;
/// Bytes of the largest kept file.
const MOST_INDEX: u64 = 4 << 30;
/// Tar files are in blocks of this many bytes.
const BLOCK: u64 = 512;

/// A picture with what its shard says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// Name of the picture's member.
    pub name: String,
    /// Where its bytes begin in the tar, and how many they are.
    pub offset: u64,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<i64>,
}

/// The samples of a shard in its order.
#[derive(Debug, Default, PartialEq)]
pub struct Indexed {
    pub samples: Vec<Sample>,
    pub problems: Vec<String>,
}

/// First line of the kept file; the samples follow, one a line.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format_version: u32,
    /// Of the shard when it was gone through: bytes, and nanoseconds since 1970.
    size: u64,
    modified: u64,
    samples: usize,
    problems: Vec<String>,
}

/// The samples of the shard at `path`: those kept beside it in `NAME.tar.index.jsonl` if
/// the shard has not changed since, else those found now, which are then kept.
///
/// # Errors
///
/// A shard that cannot be opened. A cut or damaged one has the samples before that.
pub fn of(path: &Path) -> Result<Indexed, DataError> {
    let file = files::open(path)?;
    let metadata = file.metadata().map_err(FileError::reading(path))?;
    let modified = metadata.modified().ok();
    let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified = modified.map_or(0, |since| since.as_nanos() as u64);
    let size = metadata.len();
    let kept = kept_at(path);
    if let Some(indexed) = read(&kept, size, modified) {
        return Ok(indexed);
    }
    let indexed = guarded(|| scan(file, size)).unwrap_or_else(|panicked| Indexed {
        samples: Vec::new(),
        problems: vec![panicked.to_string()],
    });
    let header = Header {
        format_version: VERSION,
        size,
        modified,
        samples: indexed.samples.len(),
        problems: indexed.problems.clone(),
    };
    if let Err(error) = keep(&kept, &header, &indexed.samples) {
        log::debug!("{error}; the shard is gone through anew each time");
    }
    Ok(indexed)
}

fn kept_at(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".index.jsonl");
    path.with_file_name(name)
}

fn keep(path: &Path, header: &Header, samples: &[Sample]) -> Result<(), DataError> {
    let problem = |e: serde_json::Error| DataError::format(path, e);
    let mut bytes = serde_json::to_vec(header).map_err(problem)?;
    for sample in samples {
        bytes.push(b'\n');
        serde_json::to_writer(&mut bytes, sample).map_err(problem)?;
    }
    bytes.push(b'\n');
    Ok(files::write(path, bytes)?)
}

/// What was kept of a shard of this size and time, if it is whole.
fn read(path: &Path, size: u64, modified: u64) -> Option<Indexed> {
    let text = files::read_text(path, MOST_INDEX).ok()?;
    let mut lines = text.lines();
    let header: Header = serde_json::from_str(lines.next()?).ok()?;
    let known = (header.format_version, header.size, header.modified);
    if known != (VERSION, size, modified) {
        return None;
    }
    let samples: Result<Vec<Sample>, _> = lines.map(serde_json::from_str).collect();
    let samples = samples
        .ok()
        .filter(|samples| samples.len() == header.samples)?;
    let inside = |s: &Sample| s.offset.checked_add(s.size).is_some_and(|end| end <= size);
    samples.iter().all(inside).then_some(Indexed {
        samples,
        problems: header.problems,
    })
}

/// What is said of one key before its picture is known.
#[derive(Default)]
struct Gathered {
    /// Name, offset and size.
    picture: Option<(String, u64, u64)>,
    caption: Option<String>,
    /// From a JSON description, where there is no text of its own.
    described: Option<String>,
    label: Option<i64>,
    problem: Option<String>,
}

/// Goes through the members of a tar of `length` bytes; pictures are not read.
fn scan(file: File, length: u64) -> Indexed {
    let mut indexed = Indexed::default();
    if length == 0 {
        indexed.problems.push("the file is empty".into());
        return indexed;
    }
    let mut keys: HashMap<String, usize> = HashMap::new();
    let mut gathered: Vec<Gathered> = Vec::new();
    let mut archive = Archive::new(file);
    let mut last = String::new();
    let mut end = 0;
    let broken = 'members: {
        let entries = match archive.entries_with_seek() {
            Ok(entries) => entries,
            Err(error) => break 'members Some(format!("not a tar: {error}")),
        };
        for entry in entries {
            let mut entry = match entry {
                Ok(entry) => entry,
                Err(_) if last.is_empty() => {
                    break 'members Some("not a tar, or its beginning is damaged".into());
                }
                Err(error) => {
                    break 'members Some(format!("the tar is damaged behind {last}: {error}"));
                }
            };
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let (offset, size) = (entry.raw_file_position(), entry.size());
            match offset.checked_add(size) {
                Some(stop) if stop <= length => end = stop.next_multiple_of(BLOCK),
                _ => break 'members Some(format!("the tar ends inside {name}")),
            }
            last.clone_from(&name);
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let Some((key, ending)) = split(&name) else {
                continue;
            };
            let place = *keys.entry(key.to_string()).or_insert_with(|| {
                gathered.push(Gathered::default());
                gathered.len() - 1
            });
            gathered[place].add(ending, &name, offset, size, &mut entry);
        }
        (length < end + BLOCK).then(|| match last.is_empty() {
            true => "not a tar".into(),
            false => {
                format!("the tar ends behind {last} without its end mark; it may be cut short")
            }
        })
    };
    let mut without = 0;
    for sample in gathered {
        let Some((name, offset, size)) = sample.picture else {
            without += 1;
            continue;
        };
        if let Some(problem) = sample.problem {
            indexed.problems.push(format!("{name}: {problem}"));
            continue;
        }
        indexed.samples.push(Sample {
            name,
            offset,
            size,
            caption: sample.caption.or(sample.described),
            label: sample.label,
        });
    }
    if without > 0 {
        let problem = format!("keys without a picture that can be read: {without}");
        indexed.problems.push(problem);
    }
    indexed.problems.extend(broken.map(|problem| {
        let count = indexed.samples.len();
        format!("{problem} ({count} pictures before that)")
    }));
    indexed
}

/// Key and ending of a member: webdataset's keys end at the first dot of the file name.
fn split(name: &str) -> Option<(&str, &str)> {
    let base = name.rfind('/').map_or(0, |at| at + 1);
    match name[base..].find('.')? {
        0 => None, // hidden, as what macOS adds to tars
        dot => Some((&name[..base + dot], &name[base + dot + 1..])),
    }
}

impl Gathered {
    fn add<R: Read>(
        &mut self,
        ending: &str,
        name: &str,
        offset: u64,
        size: u64,
        entry: &mut Entry<R>,
    ) {
        // `input.jpg` and `output.txt` are endings too.
        let as_file = PathBuf::from(format!("x.{ending}"));
        if is_picture(&as_file) {
            if size > MOST_BYTES {
                self.problem = Some(format!("holds more than {MOST_BYTES} bytes"));
            }
            self.picture.get_or_insert((name.to_string(), offset, size));
        } else if has_extension(&as_file, &["txt", "caption"]) {
            match words(entry, size) {
                Ok(text) => self.caption = self.caption.take().or(text),
                Err(problem) => self.problem = Some(format!("caption {name}: {problem}")),
            }
        } else if has_extension(&as_file, &["json"]) {
            // A description that is none takes nothing from a sample that has a text.
            let text = words(entry, size).ok().flatten();
            self.described = text.and_then(|text| json_lines::caption(&text));
        } else if has_extension(&as_file, &["cls"]) {
            if let Ok(Some(text)) = words(entry, size) {
                self.label = match Label::parse(&text) {
                    Label::Class(class) => Some(class),
                    Label::None | Label::Odd(_) => None,
                };
            }
        }
    }
}

/// The text of a member in one line, none if it is blank.
fn words(entry: &mut impl Read, size: u64) -> Result<Option<String>, String> {
    if size > MOST_WORDS {
        return Err(format!("holds more than {MOST_WORDS} bytes"));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    let text = String::from_utf8(bytes)
        .map_err(|e| format!("not UTF-8 (byte {})", e.utf8_error().valid_up_to()))?;
    let text = text.trim_start_matches('\u{feff}');
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok((!line.is_empty()).then_some(line))
}
