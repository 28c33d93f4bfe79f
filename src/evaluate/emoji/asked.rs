//! What is asked of a model, or what made pictures should show.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::labelled::{EmojiLabel, LabelledFolder};
use crate::data::DataError;
use crate::evaluate::report::SetReport;
use crate::evaluate::run::make_set;
use crate::evaluate::EvaluateError;
use crate::picture::Picture;
use crate::pipeline::{Maker, Request, Subject};

/// Labelled folders, each with the places that are measured, in a drawn order.
pub struct Asked {
    folders: Vec<(LabelledFolder, Vec<usize>)>,
}

/// The measured pictures of one folder.
pub struct LabelledSet {
    pub folder: LabelledFolder,
    /// Their places in the folder's labels.
    pub places: Vec<usize>,
    pub pictures: Vec<Picture>,
    /// Where they lie.
    pub files: Vec<PathBuf>,
    /// Pictures that were to be measured.
    pub asked: usize,
}

impl LabelledSet {
    /// What each picture should show.
    pub fn labels(&self) -> Vec<&EmojiLabel> {
        let labels = &self.folder.labels;
        self.places.iter().map(|&place| &labels[place]).collect()
    }

    /// The set's report with its `scores`.
    pub fn report<S>(&self, scores: S) -> SetReport<S> {
        SetReport {
            split: self.folder.name.clone(),
            asked: self.asked,
            measured: self.pictures.len(),
            scores,
        }
    }

    /// A problem with the `n`-th picture's label.
    pub fn problem(&self, n: usize, problem: impl std::fmt::Display) -> DataError {
        self.folder.problem(self.places[n], problem)
    }
}

impl Asked {
    /// Opens the lists of the folders at `paths`; at most `limit` labels of each are
    /// measured.
    ///
    /// # Errors
    ///
    /// A list that cannot be read ([`LabelledFolder::open`]), two folders of one name.
    pub fn open(paths: &[PathBuf], limit: Option<usize>) -> Result<Self, EvaluateError> {
        let mut folders: Vec<(LabelledFolder, Vec<usize>)> = Vec::new();
        for path in paths {
            let folder = LabelledFolder::open(path)?;
            if let Some((same, _)) = folders.iter().find(|(f, _)| f.name == folder.name) {
                return Err(EvaluateError::SameName {
                    first: same.path.clone(),
                    second: folder.path,
                });
            }
            let places = folder.drawn(limit);
            folders.push((folder, places));
        }
        Ok(Asked { folders })
    }

    /// The folders' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.folders.iter().map(|(folder, _)| folder.name.as_str())
    }

    /// Pictures to be measured.
    pub fn pictures(&self) -> usize {
        self.folders.iter().map(|(_, places)| places.len()).sum()
    }

    /// Checks every label that is to be measured.
    ///
    /// # Errors
    ///
    /// The first that does not pass, by its line.
    pub fn check<E: std::fmt::Display>(
        &self,
        check: impl Fn(&EmojiLabel) -> Result<(), E>,
    ) -> Result<(), DataError> {
        for (folder, places) in &self.folders {
            for &place in places {
                check(&folder.labels[place]).map_err(|e| folder.problem(place, e))?;
            }
        }
        Ok(())
    }

    /// What a model is asked for: the first caption of each label of each folder; that at
    /// place i of a folder's list with the seed `seed` + i.
    ///
    /// # Errors
    ///
    /// A label without a caption, a seed that would pass 2^64.
    pub fn requests(&self, seed: u64) -> Result<Vec<Vec<Request>>, EvaluateError> {
        let request = |folder: &LabelledFolder, place: usize| {
            let caption = folder.labels[place].captions.first();
            let caption = caption.ok_or_else(|| folder.problem(place, "has no caption"))?;
            let request = seed.checked_add(place as u64).map(|seed| Request {
                subject: Subject::Text(caption.clone()),
                seed,
            });
            request.ok_or(EvaluateError::Seed { seed, place })
        };
        self.folders
            .iter()
            .map(|(folder, places)| places.iter().map(|&p| request(folder, p)).collect())
            .collect()
    }

    /// Reads the pictures that the labels name.
    ///
    /// # Errors
    ///
    /// The first picture that cannot be read.
    pub fn read(self) -> Result<Vec<LabelledSet>, DataError> {
        let set = |(folder, places): (LabelledFolder, Vec<usize>)| {
            let file = |&place: &usize| folder.path.join(&folder.labels[place].file);
            Ok(LabelledSet {
                pictures: folder.pictures(&places)?,
                files: places.iter().map(file).collect(),
                asked: places.len(),
                places,
                folder,
            })
        };
        self.folders.into_iter().map(set).collect()
    }

    /// Makes the pictures of [`requests`](Self::requests), those of each folder into a
    /// folder of its name in `out`, with a list as the folder's own. `stop` ends the work
    /// after the pictures being made; `observe` is told the folder of each.
    ///
    /// # Errors
    ///
    /// As for [`requests`](Self::requests), and files that cannot be written.
    pub fn make(
        self,
        maker: &mut Maker,
        seed: u64,
        out: &Path,
        stop: &AtomicBool,
        observe: &mut dyn FnMut(&str),
    ) -> Result<Vec<LabelledSet>, EvaluateError> {
        let requests = self.requests(seed)?;
        let mut sets = Vec::new();
        for ((folder, mut places), requests) in self.folders.into_iter().zip(requests) {
            let line = |n: usize, file| {
                let asked: &EmojiLabel = &folder.labels[places[n]];
                EmojiLabel {
                    file,
                    captions: asked.captions.iter().take(1).cloned().collect(),
                    ..asked.clone()
                }
            };
            let (mut pictures, mut files) = (Vec::new(), Vec::new());
            let target = out.join(&folder.name);
            make_set(maker, &requests, &target, stop, line, &mut |made, file| {
                pictures.push(made.picture);
                files.push(file);
                observe(&folder.name);
            })?;
            let asked = places.len();
            places.truncate(pictures.len());
            sets.push(LabelledSet {
                folder,
                places,
                pictures,
                files,
                asked,
            });
        }
        Ok(sets)
    }
}
