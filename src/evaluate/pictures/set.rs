//! A set of pictures: a folder with all below it, a zip archive, the `.npz` of ADM's
//! evaluator, or items of a data set, read one after the other.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zip::ZipArchive;

use super::error::ComparisonError;
use crate::data::layout;
use crate::data::Dataset;
use crate::files::{self, FileError};
use crate::metrics::npz::{NpyHeader, Npz};
use crate::picture::{decode_picture, Picture};

/// Bytes of the largest picture file.
const LARGEST_FILE: u64 = 1 << 30;
/// The array of pictures in a `.npz`.
const ARRAY: &str = "arr_0";

/// Where the pictures are.
#[derive(Clone, Debug)]
enum Source {
    /// Files below a folder, sorted.
    Folder(Vec<PathBuf>),
    /// Names in an archive, sorted.
    Zip(Vec<String>),
    /// uint8 `[N, H, W, 3]`.
    Npz { count: usize, size: [u32; 2] },
    /// Places in a data set.
    Items(Arc<Dataset>, Vec<usize>),
}

/// An opened set.
#[derive(Clone, Debug)]
pub struct PictureSet {
    pub path: PathBuf,
    source: Source,
}

/// A picture as it is stored.
pub enum Stored {
    /// The bytes of a file.
    File(Vec<u8>),
    Pixels(Picture),
}

/// The next picture of a set.
pub struct StoredPicture {
    /// Its name in the set.
    pub name: String,
    pub stored: Stored,
}

impl StoredPicture {
    /// # Errors
    ///
    /// A file that is no whole picture.
    pub fn decode(self, set: &Path) -> Result<(String, Picture), ComparisonError> {
        let picture = match self.stored {
            Stored::File(bytes) => decode_picture(&bytes, &set.join(&self.name))?,
            Stored::Pixels(picture) => picture,
        };
        Ok((self.name, picture))
    }
}

/// Whether a file of this name is a picture of the set: hidden ones are not, nor what macOS
/// adds to archives.
fn is_picture(name: &str) -> bool {
    let path = Path::new(name);
    let hidden = |part: &OsStr| part.as_encoded_bytes().starts_with(b".") || part == "__MACOSX";
    layout::is_picture(path) && !path.iter().any(hidden)
}

impl PictureSet {
    /// # Errors
    ///
    /// A path that does not exist or cannot be read, and a set without pictures.
    pub fn open(path: &Path) -> Result<Self, ComparisonError> {
        let problem = |problem: String| ComparisonError::Set {
            set: path.to_path_buf(),
            problem,
        };
        let source = if path.is_dir() {
            let mut found = Vec::new();
            collect(path, Path::new(""), &mut found)?;
            found.sort();
            Source::Folder(found)
        } else {
            let archive = open_zip(path)?;
            let names = archive.file_names().filter_map(|name| name.ok());
            let names: Vec<String> = names.map(|name| name.into_owned()).collect();
            if names.iter().any(|name| name.ends_with(".npy")) {
                return Self::open_npz(path);
            }
            let mut pictures: Vec<String> =
                names.into_iter().filter(|name| is_picture(name)).collect();
            pictures.sort();
            Source::Zip(pictures)
        };
        let set = PictureSet {
            path: path.to_path_buf(),
            source,
        };
        match set.len() {
            0 => Err(problem(
                "no PNG or JPEG in it, nor another picture (.webp, .gif)".into(),
            )),
            _ => Ok(set),
        }
    }

    /// The pictures at `places` of a data set, in that order.
    pub fn of_items(dataset: Arc<Dataset>, places: Vec<usize>) -> Self {
        PictureSet {
            path: dataset.root.clone(),
            source: Source::Items(dataset, places),
        }
    }

    /// The pictures in the files `names` of the folder `path`, in that order.
    pub fn of_files(path: &Path, names: Vec<PathBuf>) -> Self {
        PictureSet {
            path: path.to_path_buf(),
            source: Source::Folder(names),
        }
    }

    fn open_npz(path: &Path) -> Result<Self, ComparisonError> {
        let mut npz = Npz::open(path)?;
        let (header, _) = npz.array(ARRAY)?;
        let (count, size) = pictures_of(&header).ok_or_else(|| ComparisonError::Set {
            set: path.to_path_buf(),
            problem: format!(
                "array '{ARRAY}' is {} of shape {:?}, expected uint8 pictures [N, H, W, 3], \
                 rows first",
                header.descr, header.shape
            ),
        })?;
        Ok(PictureSet {
            path: path.to_path_buf(),
            source: Source::Npz { count, size },
        })
    }

    /// The first `count` pictures.
    pub fn first(&self, count: usize) -> Self {
        let mut first = self.clone();
        match &mut first.source {
            Source::Folder(files) => files.truncate(count),
            Source::Zip(names) => names.truncate(count),
            Source::Npz { count: all, .. } => *all = count.min(*all),
            Source::Items(_, places) => places.truncate(count),
        }
        first
    }

    pub fn len(&self) -> usize {
        match &self.source {
            Source::Folder(files) => files.len(),
            Source::Zip(names) => names.len(),
            Source::Npz { count, .. } => *count,
            Source::Items(_, places) => places.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the pictures in order.
    ///
    /// # Errors
    ///
    /// A file that can no longer be opened.
    pub fn read(
        &self,
        take: &mut dyn FnMut(StoredPicture) -> Result<(), ComparisonError>,
    ) -> Result<(), ComparisonError> {
        match &self.source {
            Source::Folder(found) => {
                for name in found {
                    let bytes = files::read(&self.path.join(name), LARGEST_FILE)?;
                    take(StoredPicture {
                        name: name.to_string_lossy().into_owned(),
                        stored: Stored::File(bytes),
                    })?;
                }
                Ok(())
            }
            Source::Zip(names) => {
                let mut archive = open_zip(&self.path)?;
                for name in names {
                    take(StoredPicture {
                        name: name.clone(),
                        stored: Stored::File(self.entry(&mut archive, name)?),
                    })?;
                }
                Ok(())
            }
            Source::Npz { count, size } => self.read_npz(*count, *size, take),
            Source::Items(dataset, places) => {
                for &place in places {
                    let item = &dataset.items[place].picture;
                    take(StoredPicture {
                        name: item.to_string(),
                        stored: Stored::File(item.read(&dataset.root)?),
                    })?;
                }
                Ok(())
            }
        }
    }

    fn entry(
        &self,
        archive: &mut ZipArchive<BufReader<File>>,
        name: &str,
    ) -> Result<Vec<u8>, ComparisonError> {
        let problem = |e: &dyn std::fmt::Display| ComparisonError::Set {
            set: self.path.clone(),
            problem: format!("'{name}' could not be read: {e}"),
        };
        let entry = archive.by_name(name).map_err(|e| problem(&e))?;
        let mut bytes = Vec::new();
        let read = entry.take(LARGEST_FILE + 1).read_to_end(&mut bytes);
        read.map_err(|e| problem(&e))?;
        match bytes.len() as u64 > LARGEST_FILE {
            true => Err(problem(&format!("holds more than {LARGEST_FILE} bytes"))),
            false => Ok(bytes),
        }
    }

    fn read_npz(
        &self,
        count: usize,
        [width, height]: [u32; 2],
        take: &mut dyn FnMut(StoredPicture) -> Result<(), ComparisonError>,
    ) -> Result<(), ComparisonError> {
        let mut npz = Npz::open(&self.path)?;
        let (_, mut elements) = npz.array(ARRAY)?;
        for place in 0..count {
            let mut rgb = vec![0; 3 * width as usize * height as usize];
            elements
                .read_exact(&mut rgb)
                .map_err(|e| ComparisonError::Set {
                    set: self.path.clone(),
                    problem: format!("array '{ARRAY}' ends in picture {place} of {count}: {e}"),
                })?;
            take(StoredPicture {
                name: place.to_string(),
                stored: Stored::Pixels(Picture { width, height, rgb }),
            })?;
        }
        Ok(())
    }
}

/// Number and size (width, height) of the pictures of an array that holds some.
fn pictures_of(header: &NpyHeader) -> Option<(usize, [u32; 2])> {
    const LONGEST: usize = 1 << 14;
    match header.shape[..] {
        [count, height, width, 3]
            if ["|u1", "<u1", "u1"].contains(&header.descr.as_str())
                && !header.fortran
                && count > 0
                && (1..=LONGEST).contains(&height)
                && (1..=LONGEST).contains(&width) =>
        {
            Some((count, [width as u32, height as u32]))
        }
        _ => None,
    }
}

fn open_zip(path: &Path) -> Result<ZipArchive<BufReader<File>>, ComparisonError> {
    let file = files::open(path)?;
    ZipArchive::new(BufReader::new(file)).map_err(|e| ComparisonError::Set {
        set: path.to_path_buf(),
        problem: format!("expected a folder, a zip archive or an .npz ({e})"),
    })
}

/// Adds the pictures in the folder `root`/`below` and under it; hidden ones do not count.
fn collect(root: &Path, below: &Path, found: &mut Vec<PathBuf>) -> Result<(), FileError> {
    let folder = root.join(below);
    let entries = std::fs::read_dir(&folder).map_err(FileError::reading(&folder))?;
    for entry in entries {
        let entry = entry.map_err(FileError::reading(&folder))?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = below.join(&name);
        let kind = entry.file_type();
        if kind.map_err(FileError::reading(&entry.path()))?.is_dir() {
            collect(root, &path, found)?;
        } else if is_picture(&name.to_string_lossy()) {
            found.push(path);
        }
    }
    Ok(())
}
