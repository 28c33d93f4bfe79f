//! Conceptual Captions, 3M and 12M: a table of captions and addresses, with the pictures
//! that could be downloaded.

use std::collections::HashMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use super::{has_extension, is_picture, shards, text};
use crate::data::dataset::{DataLayout, Dataset, Epoch, Item, Split};
use crate::data::error::{DataError, Skipped};
use crate::data::locator::Locator;
use crate::files;

/// Whether the table at `path` has captions and addresses, as `Train_GCC-training.tsv`
/// (caption, address) and `cc12m.tsv` (address, caption) do, with or without a header row.
pub fn is_table(path: &Path) -> bool {
    if !has_extension(path, &["tsv"]) {
        return false;
    }
    let Ok(file) = files::open(path) else {
        return false;
    };
    let lines = std::io::BufReader::new(std::io::Read::take(file, 1 << 16)).lines();
    lines.take(2).flatten().any(|line| row(&line).is_some())
}

/// The table of a split in `folder`, and whether there are others.
pub fn table_in(folder: &Path, split: Split) -> Result<Option<(PathBuf, bool)>, DataError> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Ok(None);
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut tables: Vec<PathBuf> = paths.filter(|path| is_table(path)).collect();
    tables.sort();
    let mut of_split = tables.iter().filter(|path| split_of(path) == split);
    let first = of_split.next();
    if let (Some(read), Some(other)) = (first, of_split.next()) {
        log::warn!("{} is read, {} is not", read.display(), other.display());
    }
    match first {
        None if tables.is_empty() => Ok(None),
        None => {
            let found = tables[0].display();
            let problem = format!("has no table of the split {} beside {found}", split.name());
            Err(DataError::format(folder, problem))
        }
        Some(path) => Ok(Some((path.clone(), tables.len() > 1))),
    }
}

fn split_of(path: &Path) -> Split {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    match () {
        () if name.contains("train") => Split::Train,
        () if name.contains("val") => Split::Val,
        () if name.contains("test") => Split::Test,
        () => Split::Train,
    }
}

/// Caption and address of a line.
fn row(line: &str) -> Option<(&str, &str)> {
    let (left, right) = line.split_once('\t')?;
    let is_address = |text: &str| text.starts_with("http://") || text.starts_with("https://");
    let (left, right) = (left.trim(), right.trim());
    match (is_address(left), is_address(right)) {
        (true, false) => Some((right, left)),
        (false, true) => Some((left, right)),
        _ => None,
    }
}

/// How downloaded pictures are named.
#[derive(Clone, Copy, PartialEq)]
enum Naming {
    /// `{row}_{CRC-32 of the address}`, rows from 0.
    RowAndSum,
    /// `{CRC-32 of the address}`.
    Sum,
    /// The row alone, from 0, as img2dataset numbers its samples.
    Row,
}

impl Naming {
    fn find<'a>(self, pictures: &'a Pictures, row: u64, address: &str) -> Option<&'a Locator> {
        let sum = || {
            let mut crc = flate2::Crc::new();
            crc.update(address.as_bytes());
            crc.sum()
        };
        match self {
            Naming::RowAndSum => pictures.by_stem.get(&format!("{row}_{}", sum())),
            Naming::Sum => pictures.by_stem.get(&sum().to_string()),
            Naming::Row => pictures.by_number.get(&row),
        }
    }
}

/// The rows of the table at `path` whose pictures are there: in the folder of the split
/// (`training`, `validation` …), else anywhere beside the table, or in tars there. They are
/// named by row, by the CRC-32 of the address, or both; one way in a data set, with any
/// ending or none. Rows without a picture are counted as dead links.
pub fn read(path: &Path, has_parts: bool) -> Result<Dataset, DataError> {
    let root = path.parent().unwrap_or(Path::new(""));
    let root = match root.as_os_str().is_empty() {
        true => Path::new("."),
        false => root,
    };
    let split = split_of(path);
    let table = path.file_name().unwrap_or_default().to_string_lossy();
    let bytes = text::list(path)?;
    let mut skipped = Vec::new();
    let mut rows: Vec<(usize, u64, &str, &str)> = Vec::new();
    let mut number = 0;
    for (n, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let text = std::str::from_utf8(line).map_err(|_| "not UTF-8");
        match text.map(|line| (line, row(line))) {
            Ok((_, Some((caption, address)))) if !caption.is_empty() => {
                rows.push((n + 1, number, caption, address));
            }
            // A header row.
            Ok((_, None)) if n == 0 => continue,
            found => skipped.push(Skipped {
                what: format!("{table} line {}", n + 1),
                reason: match found {
                    Err(problem) => problem.into(),
                    Ok((_, Some(_))) => "the caption is empty".into(),
                    Ok((_, None)) => "expected a caption and an address with a tab between".into(),
                },
            }),
        }
        number += 1;
    }
    let pictures = Pictures::find(root, split)?;
    let hits = |naming: Naming| {
        let found = |(_, row, _, address): &&(usize, u64, &str, &str)| {
            naming.find(&pictures, *row, address).is_some()
        };
        rows.iter().filter(found).count()
    };
    let namings = [Naming::Row, Naming::Sum, Naming::RowAndSum];
    let naming = namings.into_iter().max_by_key(|&naming| hits(naming));
    let naming = naming.unwrap_or(Naming::RowAndSum);
    let mut items = Vec::new();
    let mut dead = 0;
    let mut first_dead = None;
    for &(line, row, caption, address) in &rows {
        match naming.find(&pictures, row, address) {
            Some(picture) => items.push(Item {
                picture: picture.clone(),
                captions: vec![caption.to_string()],
                label: None,
            }),
            None => {
                dead += 1;
                first_dead.get_or_insert(line);
            }
        }
    }
    if let Some(line) = first_dead {
        skipped.push(Skipped {
            what: table.into_owned(),
            reason: format!(
                "{dead} of {} pictures are not there (dead links), the first of line {line}",
                rows.len()
            ),
        });
    }
    Ok(Dataset {
        root: root.to_path_buf(),
        layout: DataLayout::Conceptual,
        epoch: Epoch::Pictures,
        items,
        skipped,
        has_parts,
    })
}

/// The downloaded pictures by their names without ending.
#[derive(Default)]
struct Pictures {
    by_stem: HashMap<String, Locator>,
    by_number: HashMap<u64, Locator>,
}

impl Pictures {
    fn find(root: &Path, split: Split) -> Result<Self, DataError> {
        let usual: &[&str] = match split {
            Split::Train => &["training", "train"],
            Split::Val => &["validation", "val"],
            Split::Test => &["test"],
        };
        let folder = usual.iter().find(|folder| root.join(folder).is_dir());
        let mut pictures = Pictures::default();
        pictures.gather(root, folder.copied().unwrap_or(""), 0)?;
        let by_number = pictures.by_stem.iter().filter_map(|(stem, picture)| {
            let digits = stem.bytes().all(|byte| byte.is_ascii_digit());
            Some((stem.parse().ok().filter(|_| digits)?, picture.clone()))
        });
        pictures.by_number = by_number.collect();
        Ok(pictures)
    }

    fn gather(&mut self, root: &Path, folder: &str, depth: usize) -> Result<(), DataError> {
        /// Folders of shards, of splits, of the set.
        const DEEPEST: usize = 8;
        let path = root.join(folder);
        let within = |name: &str| match folder {
            "" => name.to_string(),
            folder => format!("{folder}/{name}"),
        };
        let mut tars = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(DataError::io(&path))? {
            let entry = entry.map_err(DataError::io(&path))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if name.starts_with('.') {
                continue;
            }
            let full = entry.path();
            let ending = full.extension();
            if full.is_dir() {
                if depth < DEEPEST {
                    self.gather(root, &within(&name), depth + 1)?;
                }
            } else if has_extension(&full, &["tar"]) {
                tars.push(within(&name));
            } else if ending.is_none() || is_picture(&full) {
                let stem = name.split('.').next().unwrap_or_default();
                self.by_stem.insert(stem.to_string(), within(&name).into());
            }
        }
        tars.sort();
        self.by_stem.extend(shards::by_stem(root, &tars)?);
        Ok(())
    }
}
