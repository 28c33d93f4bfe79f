//! What a model is asked for, and which real pictures it is compared with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::ModelError;
use super::protocol::ModelProtocol;
use crate::config_error::ConfigError;
use crate::data::{DataError, Dataset};
use crate::evaluate::pictures::run::REALS_ARRAY;
use crate::evaluate::pictures::set::PictureSet;
use crate::evaluate::pictures::ComparisonError;
use crate::files;
use crate::metrics::npz::Npz;
use crate::metrics::subsets::subset;
use crate::model::ModelConfig;
use crate::pipeline::{Request, Subject};
use crate::random::{below, measure_generator, MeasureDraw};
use crate::transformer::Conditioning;

/// The real pictures of a protocol.
pub enum Reals {
    Pictures(PictureSet),
    /// A file of their statistics.
    Statistics(PathBuf),
}

/// Everything that a protocol and a model decide before anything is made.
pub struct Asked {
    pub reals: Reals,
    /// The reals and the captions asked for, a line each.
    pub list: String,
    /// What each picture should show, in order.
    pub subjects: Vec<Subject>,
}

impl Asked {
    /// Opens the reals of `protocol` and settles what a model of the shape `model` is asked
    /// for.
    ///
    /// # Errors
    ///
    /// A data set that cannot be read, has too few pictures, lacks the captions that the
    /// model needs, or whose list is not the protocol's.
    pub fn new(protocol: &ModelProtocol, model: &ModelConfig) -> Result<Self, ModelError> {
        let path = &protocol.reals.data;
        let contradiction = |key: &str, problem: String| ModelError::Config {
            path: path.clone(),
            source: ConfigError::contradiction(key, problem),
        };
        if path.as_os_str().is_empty() {
            return Err(ModelError::Config {
                path: PathBuf::from("the protocol"),
                source: ConfigError::contradiction("reals.data", "is missing: the real pictures"),
            });
        }
        let text = matches!(model.denoiser.condition, Conditioning::Text { .. });
        let is_npz = path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("npz"));
        let asked = if is_npz && !path.is_dir() {
            if text {
                let problem = "is an .npz, expected a data set with captions: the model reads text";
                return Err(contradiction("reals.data", problem.into()));
            }
            Self::of_npz(protocol, model)?
        } else {
            Self::of_items(protocol, model)?
        };
        let found = files::sha256(asked.list.as_bytes());
        match &protocol.reals.list_sha256 {
            Some(wanted) if *wanted != found => Err(ModelError::OtherReals {
                path: path.clone(),
                wanted: wanted.clone(),
                found,
            }),
            _ => Ok(asked),
        }
    }

    fn of_npz(protocol: &ModelProtocol, model: &ModelConfig) -> Result<Self, ModelError> {
        let path = &protocol.reals.data;
        let pictures = Npz::open(path).map(|npz| npz.contains(REALS_ARRAY));
        let reals = match pictures.map_err(ComparisonError::from)? {
            true => Reals::Pictures(PictureSet::open(path)?),
            false => Reals::Statistics(path.clone()),
        };
        let subjects = (0..protocol.samples.pictures).map(|n| unworded(n, protocol, model));
        Ok(Asked {
            reals,
            list: format!("{}\n", files::sha256_of_file(path)?),
            subjects: subjects.collect(),
        })
    }

    fn of_items(protocol: &ModelProtocol, model: &ModelConfig) -> Result<Self, ModelError> {
        let (path, seed) = (&protocol.reals.data, protocol.measures.seed);
        let dataset = Dataset::open(path, protocol.reals.split, false)?;
        let all = dataset.items.len();
        let count = protocol.reals.pictures.unwrap_or(all);
        if count > all {
            return Err(ModelError::Config {
                path: path.clone(),
                source: ConfigError::value(
                    "reals.pictures",
                    count,
                    format!("at most {all}, which the data set has"),
                ),
            });
        }
        let places: Vec<usize> = match protocol.reals.pictures {
            None => (0..all).collect(),
            Some(_) => subset(seed, MeasureDraw::Reals, 0, all, count)
                .into_iter()
                .map(|place| place as usize)
                .collect(),
        };
        let asked = protocol.samples.pictures;
        let subjects: Vec<Subject> = match model.denoiser.condition {
            Conditioning::Text { .. } => captions(path, &dataset, &places, protocol)?
                .into_iter()
                .map(Subject::Text)
                .collect(),
            _ => (0..asked).map(|n| unworded(n, protocol, model)).collect(),
        };
        let mut list = String::new();
        for &place in &places {
            list += &format!("{}\n", dataset.items[place].picture);
        }
        for subject in &subjects {
            match subject {
                Subject::Text(caption) => list += &format!("{caption}\n"),
                Subject::Class(class) => list += &format!("class {class}\n"),
                Subject::Anything => {}
            }
        }
        let reals = PictureSet::of_items(Arc::new(dataset), places);
        Ok(Asked {
            reals: Reals::Pictures(reals),
            list,
            subjects,
        })
    }

    /// The pictures of the run `run`, counted from 0.
    ///
    /// # Errors
    ///
    /// Seeds that would pass 2^64.
    pub fn requests(&self, protocol: &ModelProtocol, run: u64) -> Result<Vec<Request>, ModelError> {
        let first = protocol.samples.first_seed;
        let pictures = self.subjects.len() as u64;
        let last = pictures
            .checked_mul(protocol.samples.best_of as u64)
            .and_then(|a_run| a_run.checked_mul(run + 1))
            .and_then(|all| first.checked_add(all));
        if last.is_none() {
            let expected = "room above it for the seeds of all pictures below 2^64";
            return Err(ModelError::Config {
                path: protocol.reals.data.clone(),
                source: ConfigError::value("samples.first_seed", first, expected),
            });
        }
        let subjects = self.subjects.iter().cloned();
        Ok((0..)
            .zip(subjects)
            .map(|(n, subject): (u64, Subject)| Request {
                subject,
                seed: first + run * pictures + n,
            })
            .collect())
    }
}

/// What picture `n` of a model that reads no text should show: its class, as many of each one
/// after the other.
fn unworded(n: usize, protocol: &ModelProtocol, model: &ModelConfig) -> Subject {
    match model.denoiser.condition {
        Conditioning::Class { classes, .. } => {
            let place = n as u128 * classes.max(0) as u128;
            Subject::Class((place / protocol.samples.pictures.max(1) as u128) as i64)
        }
        _ => Subject::Anything,
    }
}

/// The captions asked for: of each drawn picture in turn, beginning with one that is drawn.
fn captions(
    path: &Path,
    dataset: &Dataset,
    places: &[usize],
    protocol: &ModelProtocol,
) -> Result<Vec<String>, ModelError> {
    let samples = &protocol.samples;
    let mut found = Vec::with_capacity(samples.pictures);
    for round in 0..samples.captions_a_picture {
        for &place in places {
            if found.len() == samples.pictures {
                return Ok(found);
            }
            let item = &dataset.items[place];
            let count = item.captions.len();
            if count == 0 {
                let problem = format!("{} has no caption", item.picture);
                return Err(DataError::Unusable {
                    path: path.to_path_buf(),
                    problem,
                }
                .into());
            }
            let (seed, draw) = (protocol.measures.seed, MeasureDraw::FirstCaption);
            let mut generator = measure_generator(seed, place as u64, draw);
            let first = below(&mut generator, count as u64) as usize;
            found.push(item.captions[(first + round) % count].clone());
        }
    }
    match found.len() == samples.pictures {
        true => Ok(found),
        false => Err(ModelError::Config {
            path: path.to_path_buf(),
            source: ConfigError::value(
                "samples.pictures",
                samples.pictures,
                format!(
                    "at most {}: {} real pictures with {} captions each \
                     (samples.captions_a_picture)",
                    found.len(),
                    places.len(),
                    samples.captions_a_picture
                ),
            ),
        }),
    }
}
