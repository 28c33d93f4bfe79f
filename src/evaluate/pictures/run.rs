//! From opened networks and paths to the report.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use tch::Tensor;

use super::captions::{self, LIST};
use super::error::ComparisonError;
use super::extract::{extract, Extractor, SetFeatures, Setting};
use super::measure::{
    caption_figures, cmmd_of, distances, embed, fd_of_halves, halves, kid_figures, memorisation,
    of_set, score, shuffled, CaptionFigures, Reals, LEAST,
};
use super::networks::Network;
use super::report::{
    ClipReport, ComparisonReport, Controls, Halves, InceptionReport, PictureSetReport,
    ReferenceReport,
};
use super::set::PictureSet;
use crate::files;
use crate::metrics::npz::Npz;
use crate::metrics::statistics_file::{self, Statistics};
use crate::metrics::{frechet_distance, Gaussian, MetricError};

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

/// The references: pictures with their features, or a file of statistics.
enum References {
    Pictures(Box<SetFeatures>),
    Statistics,
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
    let stored = stored_statistics(plan, &networks)?;
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
        on_step(ExtractionEvent::Start {
            set: &set.path,
            pictures: set.len(),
        });
        let features = extract(set, &mut extractors, plan.setting, stop, &mut |done| {
            on_step(ExtractionEvent::Done(done))
        });
        on_step(ExtractionEvent::End);
        features
    };
    let made = features(&samples)?;
    let captions = captions.map(|path| captions::read(&path, &made.names));
    let captions = captions.transpose()?;
    let real = match &references {
        None => References::Statistics,
        Some(set) => References::Pictures(Box::new(features(set)?)),
    };
    let train = train.map(|set| features(&set)).transpose()?;
    let (mut inception, mut dinov2, mut clip) = (None, None, None);
    let mut statistics = None;
    let mut controls = Controls::default();
    let mut half = Halves::default();
    let seed = plan.seed;
    for (place, extractor) in extractors.iter().enumerate() {
        let ours = &made.of[place];
        let theirs = match &real {
            References::Pictures(features) => Some(&features.of[place]),
            References::Statistics => None,
        };
        match &extractor.network {
            Network::Inception(loaded, _) => {
                let of_reals = match (&stored, &real) {
                    (Some(stored), _) => Statistics {
                        pool: copy(&stored.pool),
                        spatial: stored.spatial.as_ref().map(copy),
                    },
                    (None, References::Pictures(features)) => {
                        let gaussians = gaussians(features, place);
                        of_set(&plan.references, gaussians)?
                    }
                    (None, References::Statistics) => continue,
                };
                let reals = theirs.map_or(Reals::Statistics, Reals::Features);
                let measured = || -> Result<InceptionReport, MetricError> {
                    let sfid = match (&made.spatial, &of_reals.spatial) {
                        (Some(ours), Some(theirs)) => {
                            Some(frechet_distance(&ours.gaussian()?, theirs)?)
                        }
                        _ => None,
                    };
                    Ok(InceptionReport {
                        pool: distances(ours, &of_reals.pool, &reals, seed)?,
                        sfid,
                        inception_score: score(&loaded.network, ours, plan.setting.device, seed)?,
                    })
                };
                inception = Some(of_set(&plan.samples, measured())?);
                if let Some(theirs) = theirs {
                    half.fid = Some(of_set(&plan.references, fd_of_halves(theirs, seed))?);
                    let [a, b] = halves(theirs, seed);
                    half.kid = Some(of_set(&plan.references, kid_figures(&a, &b, seed))?);
                }
                statistics = Some(of_reals);
            }
            Network::Dinov2(..) => {
                let Some(theirs) = theirs else { continue };
                let of_reals = of_set(&plan.references, Gaussian::of(theirs))?;
                let measured = distances(ours, &of_reals, &Reals::Features(theirs), seed);
                dinov2 = Some(of_set(&plan.samples, measured)?);
                half.fd_dinov2 = Some(of_set(&plan.references, fd_of_halves(theirs, seed))?);
            }
            Network::Clip(loaded, _) => {
                let cmmd = theirs.map(|theirs| of_set(&plan.samples, cmmd_of(ours, theirs)));
                if let Some(theirs) = theirs {
                    let [a, b] = halves(theirs, seed);
                    half.cmmd = Some(of_set(&plan.references, cmmd_of(&a, &b))?);
                }
                let device = plan.setting.device;
                let texts = match &captions {
                    Some(captions) => embed(&loaded.network, captions, device)?,
                    None => None,
                };
                let scale = loaded.network.logit_scale().unwrap_or(0.0);
                let of = |texts: &Tensor| -> Result<CaptionFigures, ComparisonError> {
                    of_set(&plan.samples, caption_figures(ours, texts, scale))
                };
                controls.shuffled_captions = match &texts {
                    Some(texts) => Some(of(&shuffled(texts, seed))?),
                    None => None,
                };
                clip = Some(ClipReport {
                    cmmd: cmmd.transpose()?,
                    captions: texts.as_ref().map(of).transpose()?,
                });
            }
        }
    }
    let memorisation = match &train {
        Some(train) => Some(copies(plan, &extractors, &made, train)?),
        None => None,
    };
    if let References::Pictures(features) = &real {
        half.pictures = features.names.len() / 2;
        controls.halves = Some(half);
    }
    let report = ComparisonReport {
        measure: "pictures",
        version: env!("CARGO_PKG_VERSION"),
        samples: set_report(&samples, &made),
        references: match (&references, &real) {
            (Some(set), References::Pictures(features)) => {
                ReferenceReport::Pictures(set_report(set, features))
            }
            _ => ReferenceReport::Statistics {
                statistics: plan.references.clone(),
                sha256: files::sha256_of_file(&plan.references)?,
            },
        },
        crop: plan.setting.crop,
        pillow: plan.setting.pillow,
        seed,
        networks: described,
        inception,
        dinov2,
        clip,
        memorisation,
        controls,
    };
    Ok(Found { report, statistics })
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

/// The statistics that stand for the references, if they are no pictures.
fn stored_statistics(
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
    if npz.contains("arr_0") || !statistics_file::holds_statistics(&npz) {
        return Ok(None);
    }
    let inception = |network: &Network| matches!(network, Network::Inception(..));
    let problem = |problem: String| ComparisonError::Set {
        set: path.clone(),
        problem,
    };
    if !networks.iter().any(inception) {
        return Err(problem(
            "holds statistics of Inception's features alone, which no given network makes".into(),
        ));
    }
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
            return Err(problem(format!(
                "statistics of {found} {part}features, expected {expected}"
            )));
        }
    }
    Ok(Some(statistics))
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

/// Of the references' features by Inception.
fn gaussians(features: &SetFeatures, place: usize) -> Result<Statistics, MetricError> {
    let spatial = features.spatial.as_ref();
    Ok(Statistics {
        pool: Gaussian::of(&features.of[place])?,
        spatial: spatial.map(|moments| moments.gaussian()).transpose()?,
    })
}

fn copy(gaussian: &Gaussian) -> Gaussian {
    Gaussian::new(gaussian.mean.shallow_clone(), gaussian.covariance())
}

/// Copies of training pictures, by DINOv2 where it is there, else by the first network.
fn copies(
    plan: &Comparison,
    extractors: &[Extractor],
    made: &SetFeatures,
    train: &SetFeatures,
) -> Result<super::measure::Memorisation, ComparisonError> {
    let is_dinov2 = |e: &Extractor| matches!(e.network, Network::Dinov2(..));
    let place = extractors.iter().position(is_dinov2).unwrap_or(0);
    let found = memorisation(
        extractors[place].network.described().network,
        (&made.of[place], &made.names),
        (&train.of[place], &train.names),
    );
    of_set(&plan.samples, found)
}

fn set_report(set: &PictureSet, features: &SetFeatures) -> PictureSetReport {
    PictureSetReport {
        path: set.path.clone(),
        pictures: features.names.len(),
        size: features.size,
        sha256: features.sha256.clone(),
    }
}
