//! What is asked of a model, or what made pictures should show.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::labelled::{EmojiLabel, LabelledFolder};
use crate::data::DataError;
use crate::evaluate::bound::{of_picture, Bound};
use crate::evaluate::report::SetReport;
use crate::evaluate::run::make_set;
use crate::evaluate::EvaluateError;
use crate::picture::Picture;
use crate::pipeline::{Error, Maker, Record, Request, Subject};

/// What of a label is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Its first caption: the concept in its style.
    #[default]
    Caption,
    /// The concept's bare name: the style is the model's choice. A model that has learned
    /// every caption by heart still chooses here, which tells samplers apart.
    Name,
}

/// Labelled folders, each with the places that are measured, in a drawn order.
pub struct Asked {
    folders: Vec<(LabelledFolder, Vec<usize>)>,
    ask: Ask,
    /// Pictures of each place, at least 1.
    each: usize,
}

/// The measured pictures of one folder.
pub struct LabelledSet {
    pub folder: LabelledFolder,
    pub ask: Ask,
    /// Pictures of each place that were to be made.
    pub each: usize,
    /// Their places in the folder's labels, those of a place one after the other.
    pub places: Vec<usize>,
    pub pictures: Vec<Picture>,
    /// Where they lie.
    pub files: Vec<PathBuf>,
    /// What each was asked for, where that is known.
    pub requests: Vec<Option<Request>>,
    /// Tokens of each; none where pictures were read.
    pub tokens: Vec<Vec<i64>>,
    /// The bound on −log p of the tokens of each in nats; none where it was not asked for.
    pub bounds: Vec<f64>,
    /// Seconds that making them took.
    pub seconds: f64,
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

    /// The text that the `n`-th picture was made for, and its seed, where they are known.
    pub fn prompt(&self, n: usize) -> (Option<String>, Option<u64>) {
        let request = self.requests[n].as_ref();
        let prompt = request.and_then(|request| match &request.subject {
            Subject::Text(prompt) => Some(prompt.clone()),
            _ => None,
        });
        (prompt, request.map(|request| request.seed))
    }

    /// A problem with the `n`-th picture's label.
    pub fn problem(&self, n: usize, problem: impl std::fmt::Display) -> DataError {
        self.folder.problem(self.places[n], problem)
    }
}

impl Asked {
    /// Opens the lists of the folders at `paths`; at most `limit` labels of each are
    /// measured, with `each` pictures.
    ///
    /// # Errors
    ///
    /// A list that cannot be read ([`LabelledFolder::open`]), two folders of one name.
    pub fn open(
        paths: &[PathBuf],
        limit: Option<usize>,
        ask: Ask,
        each: usize,
    ) -> Result<Self, EvaluateError> {
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
        Ok(Asked { folders, ask, each })
    }

    /// The folders' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.folders.iter().map(|(folder, _)| folder.name.as_str())
    }

    /// Pictures to be measured.
    pub fn pictures(&self) -> usize {
        let labels = self.folders.iter().map(|(_, places)| places.len());
        labels.sum::<usize>() * self.each
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

    /// What a model is asked for: the first caption of each label of each folder, or the
    /// concept's name. Picture j of the label at place i of a folder's list of N has the seed
    /// `seed` + i + j N.
    ///
    /// # Errors
    ///
    /// A label without a caption, a seed that would pass 2^64.
    pub fn requests(&self, seed: u64) -> Result<Vec<Vec<Request>>, EvaluateError> {
        let request = |folder: &LabelledFolder, (place, picture): (usize, usize)| {
            let label = &folder.labels[place];
            let text = match self.ask {
                Ask::Caption => label.captions.first(),
                Ask::Name => Some(&label.concept),
            };
            let text = text.ok_or_else(|| folder.problem(place, "has no caption"))?;
            let number = picture.saturating_mul(folder.labels.len());
            let place = number.saturating_add(place);
            let request = seed.checked_add(place as u64).map(|seed| Request {
                subject: Subject::Text(text.clone()),
                seed,
            });
            request.ok_or(EvaluateError::Seed { seed, place })
        };
        self.folders
            .iter()
            .map(|(folder, places)| {
                let asked = self.each_of(places);
                asked.map(|asked| request(folder, asked)).collect()
            })
            .collect()
    }

    /// Every picture of `places`, those of a place one after the other: the place, and the
    /// number among its pictures.
    fn each_of<'a>(&self, places: &'a [usize]) -> impl Iterator<Item = (usize, usize)> + 'a {
        let each = self.each;
        let of = move |&place: &usize| (0..each).map(move |picture| (place, picture));
        places.iter().flat_map(of)
    }

    /// Reads the pictures that the labels name.
    ///
    /// # Errors
    ///
    /// The first picture that cannot be read.
    pub fn read(self) -> Result<Vec<LabelledSet>, DataError> {
        let set = |(folder, places): (LabelledFolder, Vec<usize>)| {
            let file = |&place: &usize| folder.path.join(&folder.labels[place].file);
            let files: Vec<PathBuf> = places.iter().map(file).collect();
            // A picture of any origin may say nothing of how it was made.
            let request = |file: &PathBuf| Record::read(file).ok().map(|record| record.request);
            Ok(LabelledSet {
                pictures: folder.pictures(&places)?,
                requests: files.iter().map(request).collect(),
                files,
                tokens: Vec::new(),
                bounds: Vec::new(),
                seconds: 0.0,
                asked: places.len(),
                ask: self.ask,
                each: self.each,
                places,
                folder,
            })
        };
        self.folders.into_iter().map(set).collect()
    }

    /// Makes the pictures of [`requests`](Self::requests), those of each folder into a
    /// folder of its name in `out`, with a list as the folder's own, and bounds −log p of each
    /// one's tokens with `draws` ([`Bound::estimate`]), if any. `stop` ends the work after the
    /// pictures being made; `observe` is told the folder of each.
    ///
    /// # Errors
    ///
    /// As for [`requests`](Self::requests), and files that cannot be written.
    pub fn make(
        self,
        maker: &mut Maker,
        seed: u64,
        draws: Option<usize>,
        out: &Path,
        stop: &AtomicBool,
        observe: &mut dyn FnMut(&str),
    ) -> Result<Vec<LabelledSet>, EvaluateError> {
        let pipeline = maker.pipeline();
        let schedule = pipeline.config().schedule();
        let bound = Bound::new(&schedule, pipeline.device());
        let requests = self.requests(seed)?;
        let mut sets = Vec::new();
        for ((folder, places), requests) in self.folders.iter().zip(requests) {
            let mut places: Vec<usize> = self.each_of(places).map(|(place, _)| place).collect();
            let line = |n: usize, file| {
                let asked: &EmojiLabel = &folder.labels[places[n]];
                let Subject::Text(text) = &requests[n].subject else {
                    return asked.clone();
                };
                EmojiLabel {
                    file,
                    captions: vec![text.clone()],
                    ..asked.clone()
                }
            };
            let (mut pictures, mut files) = (Vec::new(), Vec::new());
            let (mut tokens, mut bounds) = (Vec::new(), Vec::new());
            let target = out.join(&folder.name);
            let seconds = make_set(maker, &requests, &target, stop, line, &mut |made, file| {
                if let Some(draws) = draws {
                    let Request { subject, seed } = &made.record.request;
                    let tokens = Tensor::from_slice(&made.tokens).unsqueeze(0); // [1, L]
                    let found = of_picture(pipeline, &bound, subject, &tokens, draws, 0, *seed);
                    bounds.push(found.map_err(Error::from)?.total());
                }
                pictures.push(made.picture);
                tokens.push(made.tokens);
                files.push(file);
                observe(&folder.name);
                Ok(())
            })?;
            let asked = places.len();
            places.truncate(pictures.len());
            sets.push(LabelledSet {
                folder: folder.clone(),
                ask: self.ask,
                each: self.each,
                places,
                requests: requests
                    .into_iter()
                    .take(pictures.len())
                    .map(Some)
                    .collect(),
                pictures,
                files,
                tokens,
                bounds,
                seconds,
                asked,
            });
        }
        Ok(sets)
    }
}
