//! A folder of pictures, with or without caption files beside them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use unicode_normalization::UnicodeNormalization;

use super::{has_extension, is_picture, text};
use crate::data::dataset::{DataLayout, Dataset, Epoch, Item};
use crate::data::error::{DataError, Skipped};

/// Name endings of pictures that cannot be read.
const OTHER_PICTURES: [&str; 17] = [
    "bmp", "dib", "tif", "tiff", "heic", "heif", "avif", "jxl", "jp2", "ppm", "pgm", "pbm", "pnm",
    "tga", "ico", "psd", "qoi",
];

/// Name endings of caption files: what webdataset tools and kohya's trainers write.
const CAPTIONS: [&str; 2] = ["txt", "caption"];

/// Other files that may hold captions.
const LISTS: [&str; 12] = [
    "json", "jsonl", "ndjson", "csv", "tsv", "parquet", "arrow", "xlsx", "xml", "pickle", "pkl",
    "tar",
];

/// Files that others are packed in.
const PACKED: [&str; 8] = ["gz", "tgz", "zip", "bz2", "xz", "zst", "7z", "rar"];

/// Pictures below `root` at any depth, by path. Each line of `name.txt` and `name.caption`
/// is a caption of `name.png`. Where some pictures have captions, those without are
/// skipped; where none has, the data set is one of pictures alone, with a warning if
/// there are files that may hold captions. Names that start with a dot are not read, nor
/// are links that lead back to a folder they lie in.
pub fn read(root: &Path) -> Result<Dataset, DataError> {
    let mut found = Found::default();
    std::fs::read_dir(root).map_err(DataError::io(root))?;
    found.gather(root, root, &mut Vec::new());
    found.pictures.sort();
    found.words.sort();
    let mut sidecars: HashMap<String, Vec<&Path>> = HashMap::new();
    for path in found.words.iter().filter(|p| has_extension(p, &CAPTIONS)) {
        sidecars.entry(stem(path)).or_default().push(path);
    }
    for beside in sidecars.values_mut() {
        beside.sort_by_key(|path| has_extension(path, &CAPTIONS[1..]));
    }
    let of = |path: &Path| sidecars.get(&stem(path)).map_or(&[][..], Vec::as_slice);
    let captioned = found
        .pictures
        .iter()
        .any(|path| is_picture(path) && !of(path).is_empty());
    let mut dataset = Dataset {
        root: root.to_path_buf(),
        layout: DataLayout::Folder,
        epoch: Epoch::Pictures,
        items: Vec::new(),
        skipped: Vec::new(),
        has_parts: false,
    };
    for path in &found.pictures {
        let picture = path.strip_prefix(root).unwrap_or(path);
        match item(picture, of(path), captioned) {
            Ok(item) => dataset.items.push(item),
            Err(reason) => {
                let what = picture.display().to_string();
                dataset.skipped.push(Skipped { what, reason });
            }
        }
    }
    if found.pictures.is_empty() {
        let packed = found.packed.iter().map(|path| Skipped {
            what: path
                .strip_prefix(root)
                .unwrap_or(path)
                .display()
                .to_string(),
            reason: "a packed file; unpack it".into(),
        });
        dataset.skipped.extend(packed);
    }
    if !captioned && !dataset.items.is_empty() && !found.words.is_empty() {
        let names = found.words.iter().take(3).map(|path| {
            let name = path.strip_prefix(root).unwrap_or(path);
            name.display().to_string()
        });
        let more = match found.words.len() {
            0..=3 => String::new(),
            n => format!(" and {} more", n - 3),
        };
        log::warn!(
            "{}: the pictures are taken without captions; not read: {}{more}",
            root.display(),
            names.collect::<Vec<_>>().join(", ")
        );
    }
    dataset.skipped.append(&mut found.skipped);
    Ok(dataset)
}

/// Whether pictures lie in `folder` itself.
pub fn has_pictures(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .any(|path| is_picture(&path))
}

/// The picture at `path`, with the lines of `sidecars` if the data set is `captioned`, or
/// why it cannot be used.
fn item(path: &Path, sidecars: &[&Path], captioned: bool) -> Result<Item, String> {
    if !is_picture(path) {
        return Err("expected PNG, JPEG, WebP or GIF".into());
    }
    let name = path.to_str().ok_or("the name is not UTF-8")?;
    let mut captions = Vec::new();
    for sidecar in sidecars {
        let name = sidecar.file_name().unwrap_or_default().to_string_lossy();
        let lines = text::captions(sidecar);
        captions.extend(lines.map_err(|problem| format!("caption file {name}: {problem}"))?);
    }
    if captioned && captions.is_empty() {
        return Err("has no caption file (.txt or .caption) beside it".into());
    }
    Ok(Item {
        picture: name.into(),
        captions,
        label: None,
    })
}

/// Path without ending, in one Unicode form: a name made on a Mac may write é as two
/// characters, and that of its caption as one.
fn stem(path: &Path) -> String {
    path.with_extension("").to_string_lossy().nfc().collect()
}

/// What lies below a folder.
#[derive(Default)]
struct Found {
    /// Of formats that can be read or not.
    pictures: Vec<PathBuf>,
    /// Files that hold captions, or may.
    words: Vec<PathBuf>,
    packed: Vec<PathBuf>,
    skipped: Vec<Skipped>,
}

impl Found {
    /// Adds what is below `folder`, where that can be read; `above` are the folders that
    /// lead here, without links.
    fn gather(&mut self, root: &Path, folder: &Path, above: &mut Vec<PathBuf>) {
        let listed = folder
            .canonicalize()
            .and_then(|real| Ok((real, std::fs::read_dir(folder)?)));
        let (real, entries) = match listed {
            Ok((real, _)) if above.contains(&real) => return,
            Ok(listed) => listed,
            Err(error) => return self.skip(root, folder, &error),
        };
        above.push(real);
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.skip(root, folder, &error);
                    break;
                }
            };
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            if path.is_dir() {
                self.gather(root, &path, above);
            } else if is_picture(&path) || has_extension(&path, &OTHER_PICTURES) {
                self.pictures.push(path);
            } else if has_extension(&path, &CAPTIONS) || has_extension(&path, &LISTS) {
                self.words.push(path);
            } else if has_extension(&path, &PACKED) {
                self.packed.push(path);
            }
        }
        above.pop();
    }

    fn skip(&mut self, root: &Path, folder: &Path, error: &std::io::Error) {
        let folder = folder.strip_prefix(root).unwrap_or(folder);
        self.skipped.push(Skipped {
            what: format!("{}/", folder.display()),
            reason: format!("the folder cannot be read: {error}"),
        });
    }
}
