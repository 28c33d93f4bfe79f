//! From opened networks and paths to the report.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::captions::{self, LIST};
use super::compare::{compare, controls, copies, RealPictures};
use super::error::ComparisonError;
use super::extract::{extract, Extractor, Setting};
use super::gathered::SetFeatures;
use super::measure::LEAST;
use super::networks::Network;
use super::report::{ComparisonReport, Controls, PictureSetReport, ReferenceReport};
use super::set::PictureSet;
use crate::files;
use crate::metrics::npz::Npz;
use crate::metrics::statistics_file::{self, Statistics};
use crate::metrics::Gaussian;

/// What is compared, and how.
#[derive(Clone, Debug)]
pub struct Comparison {
    pub samples: PathBuf,
    pub references: PathBuf,
    pub train: Option<PathBuf>,
    /// The samples' list of captions.
    pub captions: Option<PathBuf>,
    pub seed: u64,
    pub setting: Setting,
    /// The folder that keeps features.
    pub cache: Option<PathBuf>,
}

/// What the caller hears while features are extracted.
pub enum ExtractionEvent<'a> {
    /// Features of the pictures of a set begin.
    Start { set: &'a Path, pictures: usize },
    /// So many of them are done.
    Done(usize),
    /// All are.
    End,
}

/// What is found.
pub struct Found {
    pub report: ComparisonReport,
    /// Of the references, by Inception.
    pub statistics: Option<Statistics>,
}

/// Measures by `networks`, one of a kind.
///
/// # Errors
///
/// See [`ComparisonError`]; [`ComparisonError::Stopped`] if `stop` was set.
pub fn run(
    plan: &Comparison,
    networks: Vec<Network>,
    stop: &AtomicBool,
    on_step: &mut dyn FnMut(ExtractionEvent),
) -> Result<Found, ComparisonError> {
    let stored = statistics_of(plan, &networks)?;
    let samples = open(&plan.samples)?;
    let references = match stored {
        Some(_) => None,
        None => Some(open(&plan.references)?),
    };
    let train = plan.train.as_deref().map(open).transpose()?;
    let captions = captions_of(plan, &networks)?;
    let described = networks.iter().map(Network::described).collect();
    let mut extractors = networks
        .into_iter()
        .map(|network| Extractor::new(network, plan.setting.pillow, plan.cache.as_deref()))
        .collect::<Result<Vec<_>, _>>()?;
    let mut features = |set: &PictureSet| {
        observed(&set.path, set.len(), on_step, |progress| {
            extract(set, &mut extractors, plan.setting, stop, progress)
        })
    };
    let made = features(&samples)?;
    let captions = captions.map(|path| captions::read(&path, &made.names));
    let captions = captions.transpose()?;
    let real = references.map(|set| features(&set)).transpose()?;
    let train = train.map(|set| features(&set)).transpose()?;
    let references = match &real {
        Some(features) => ReferenceReport::Pictures(set_report(features)),
        None => ReferenceReport::Statistics {
            statistics: plan.references.clone(),
            sha256: files::sha256_of_file(&plan.references)?,
        },
    };
    let reals = match (real, stored) {
        (Some(features), _) => RealPictures::of_pictures(features, &extractors, None)?,
        (None, Some(statistics)) => {
            RealPictures::of_statistics(plan.references.clone(), statistics, &extractors)
        }
        (None, None) => {
            return Err(ComparisonError::Set {
                set: plan.references.clone(),
                problem: "holds neither pictures nor statistics".into(),
            })
        }
    };
    let (device, seed) = (plan.setting.device, plan.seed);
    let captions = captions.as_deref();
    let compared = compare(&extractors, &made, &reals, captions, device, seed)?;
    let report = ComparisonReport {
        measure: "pictures",
        version: env!("CARGO_PKG_VERSION"),
        samples: set_report(&made),
        references,
        crop: plan.setting.crop,
        pillow: plan.setting.pillow,
        seed,
        networks: described,
        figures: compared.figures,
        memorisation: train
            .map(|train| copies(&extractors, &made, &train))
            .transpose()?,
        controls: Controls {
            shuffled_captions: compared.shuffled_captions,
            ..controls(&extractors, &reals, None, seed)?
        },
    };
    Ok(Found {
        report,
        statistics: reals.into_statistics(&extractors),
    })
}

/// A pass over `pictures` of the set at `set`, with `on_step` hearing of it.
pub fn observed<T>(
    set: &Path,
    pictures: usize,
    on_step: &mut dyn FnMut(ExtractionEvent),
    pass: impl FnOnce(&mut dyn FnMut(usize)) -> T,
) -> T {
    on_step(ExtractionEvent::Start { set, pictures });
    let outcome = pass(&mut |done| on_step(ExtractionEvent::Done(done)));
    on_step(ExtractionEvent::End);
    outcome
}

/// Opens a set that is large enough.
fn open(path: &Path) -> Result<PictureSet, ComparisonError> {
    let set = PictureSet::open(path)?;
    match set.len() < LEAST {
        true => Err(ComparisonError::TooFew {
            set: path.to_path_buf(),
            found: set.len(),
            least: LEAST,
        }),
        false => Ok(set),
    }
}

/// The array of pictures in the `.npz` of ADM's evaluator.
pub const REALS_ARRAY: &str = "arr_0";

/// The statistics that stand for the references, if they are no pictures.
fn statistics_of(
    plan: &Comparison,
    networks: &[Network],
) -> Result<Option<Statistics>, ComparisonError> {
    let path = &plan.references;
    let is_npz = path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("npz"));
    if !is_npz || path.is_dir() {
        return Ok(None);
    }
    let npz = Npz::open(path)?;
    if npz.contains(REALS_ARRAY) || !statistics_file::holds_statistics(&npz) {
        return Ok(None);
    }
    let inception = |network: &Network| matches!(network, Network::Inception(..));
    match networks.iter().any(inception) {
        true => stored_statistics(path).map(Some),
        false => Err(ComparisonError::Set {
            set: path.clone(),
            problem: "holds statistics of Inception's features alone, which no given network \
                      makes"
                .into(),
        }),
    }
}

/// The statistics of Inception's features in the file `path`.
///
/// # Errors
///
/// A file of something else, or of features of another network.
pub fn stored_statistics(path: &Path) -> Result<Statistics, ComparisonError> {
    let statistics = statistics_file::read(path)?;
    let parts = [
        ("", Some(statistics.pool.width()), super::networks::POOL),
        (
            "spatial ",
            statistics.spatial.as_ref().map(Gaussian::width),
            super::networks::SPATIAL,
        ),
    ];
    for (part, found, expected) in parts {
        if let Some(found) = found.filter(|&found| found != expected) {
            return Err(ComparisonError::Set {
                set: path.to_path_buf(),
                problem: format!("statistics of {found} {part}features, expected {expected}"),
            });
        }
    }
    Ok(statistics)
}

/// The list of captions, where the networks have a use for one.
fn captions_of(
    plan: &Comparison,
    networks: &[Network],
) -> Result<Option<PathBuf>, ComparisonError> {
    let reads = |network: &Network| match network {
        Network::Clip(loaded, _) => loaded.network.text_config().is_some(),
        _ => false,
    };
    let usual = plan.samples.join(LIST);
    match (&plan.captions, networks.iter().any(reads)) {
        (Some(path), false) => Err(ComparisonError::Set {
            set: path.clone(),
            problem: "captions are of no use without a CLIP network with a text tower".into(),
        }),
        (Some(path), true) => Ok(Some(path.clone())),
        (None, true) => Ok(usual.is_file().then_some(usual)),
        (None, false) => Ok(None),
    }
}

/// What a report says of a set.
pub fn set_report(features: &SetFeatures) -> PictureSetReport {
    PictureSetReport {
        path: features.path.clone(),
        pictures: features.names.len(),
        size: features.size,
        sha256: features.sha256(),
    }
}
