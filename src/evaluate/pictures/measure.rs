//! What the features of two sets say.

use std::path::Path;

use serde::Serialize;
use tch::{Device, Tensor};

use super::error::ComparisonError;
use crate::metrics::bootstrap::mean_interval;
use crate::metrics::clip_score::{clip_score, cosines, scaled, ClipScore};
use crate::metrics::cmmd::cmmd;
use crate::metrics::fd_infinity::{fd_infinity, sizes};
use crate::metrics::inception_score::inception_score;
use crate::metrics::kid::kid;
use crate::metrics::memorisation::{authpct, nearest};
use crate::metrics::networks::Inception;
use crate::metrics::prdc::{coverings, DENSITY_COVERAGE_K, PRECISION_RECALL_K};
use crate::metrics::subsets::subset;
use crate::metrics::{frechet_distance, Gaussian, MetricError};
use crate::random::MeasureDraw;
use crate::torch::host::values;

/// Subsets of KID, and pictures of each, at most: those of its authors.
pub const KID_SUBSETS: u64 = 100;
pub const KID_SUBSET: usize = 1000;
/// Parts of the Inception score.
pub const PARTS: i64 = 10;
/// Pictures of a set, at least: as many as the Inception score has parts.
pub const LEAST: usize = PARTS as usize;
/// Pictures of a set in measures of all pairs, at most; of more a part is drawn.
pub const MOST_PAIRS: usize = 50_000;
/// Copies that a report names.
const NEAREST: usize = 10;

/// Real pictures, or what a file says of some.
pub enum Reals<'a> {
    /// Features `[M, D]`.
    Features(&'a Tensor),
    Statistics,
}

/// Kernel distance over subsets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct KidFigures {
    pub mean: f64,
    pub std: f64,
    pub subsets: u64,
    pub subset_size: usize,
}

/// Figures of a network's features.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Distances {
    /// Fréchet distance.
    pub fd: f64,
    /// At infinitely many generated pictures.
    pub fd_infinity: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<KidFigures>,
    #[serde(flatten)]
    pub balls: Option<Balls>,
}

/// Precision and recall at k = 3, density and coverage at k = 5.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Balls {
    pub precision: f64,
    pub recall: f64,
    pub density: f64,
    pub coverage: f64,
    /// 95 % by the bootstrap over the pictures that each is a mean of: the generated ones
    /// of precision and density, the real ones of recall and coverage.
    pub intervals: BallIntervals,
    /// Pictures of each side, where a part stands for a set above [`MOST_PAIRS`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drawn: Option<[usize; 2]>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BallIntervals {
    pub precision: [f64; 2],
    pub recall: [f64; 2],
    pub density: [f64; 2],
    pub coverage: [f64; 2],
}

/// Of generated features `[N, D]` against the Gaussian of the reals, and against their
/// features where there are some.
pub fn distances(
    generated: &Tensor,
    real: &Gaussian,
    reals: &Reals,
    seed: u64,
) -> Result<Distances, MetricError> {
    let count = generated.size()[0] as usize;
    let subsets: Vec<Vec<i64>> = (0u64..)
        .zip(sizes(count))
        .map(|(i, size)| subset(seed, MeasureDraw::FdInfinity, i, count, size))
        .collect();
    let (kid, balls) = match reals {
        Reals::Statistics => (None, None),
        Reals::Features(real) => (
            Some(kid_figures(generated, real, seed)?),
            Some(balls(generated, real, seed)?),
        ),
    };
    Ok(Distances {
        fd: frechet_distance(&Gaussian::of(generated)?, real)?,
        fd_infinity: fd_infinity(generated, real, &subsets)?.value,
        kid,
        balls,
    })
}

pub fn kid_figures(a: &Tensor, b: &Tensor, seed: u64) -> Result<KidFigures, MetricError> {
    let counts = [a, b].map(|x| x.size()[0] as usize);
    let size = KID_SUBSET.min(counts[0]).min(counts[1]);
    let subsets: Vec<_> = (0..KID_SUBSETS)
        .map(|i| {
            let draw = |side: u64| {
                subset(
                    seed,
                    MeasureDraw::Kid,
                    2 * i + side,
                    counts[side as usize],
                    size,
                )
            };
            (draw(0), draw(1))
        })
        .collect();
    let kid = kid(a, b, &subsets)?;
    Ok(KidFigures {
        mean: kid.mean,
        std: kid.std,
        subsets: KID_SUBSETS,
        subset_size: size,
    })
}

/// A part of features `[N, D]` where there are more than [`MOST_PAIRS`].
fn at_most(features: &Tensor, seed: u64, side: u64) -> Tensor {
    let count = features.size()[0] as usize;
    match count > MOST_PAIRS {
        true => {
            let rows = subset(seed, MeasureDraw::Pairs, side, count, MOST_PAIRS);
            features.index_select(0, &Tensor::from_slice(&rows))
        }
        false => features.shallow_clone(),
    }
}

fn balls(generated: &Tensor, real: &Tensor, seed: u64) -> Result<Balls, MetricError> {
    let counts = [generated, real].map(|x| x.size()[0] as usize);
    let (generated, real) = (at_most(generated, seed, 0), at_most(real, seed, 1));
    let found = coverings(&generated, &real, &[PRECISION_RECALL_K, DENSITY_COVERAGE_K])?;
    let figures = [found[0].figures(), found[1].figures()];
    let interval = |of: &Tensor, scale: f64, index: u64| {
        let of: Vec<f64> = values(&(of.to_kind(tch::Kind::Double) * scale));
        mean_interval(&of, seed, index)
    };
    let balls = 1.0 / DENSITY_COVERAGE_K as f64;
    let drawn = counts.map(|count| count.min(MOST_PAIRS));
    Ok(Balls {
        precision: figures[0].precision,
        recall: figures[0].recall,
        density: figures[1].density,
        coverage: figures[1].coverage,
        intervals: BallIntervals {
            precision: interval(&found[0].on_real, 1.0, 0),
            recall: interval(&found[0].on_generated, 1.0, 1),
            density: interval(&found[1].balls, balls, 2),
            coverage: interval(&found[1].covered, 1.0, 3),
        },
        drawn: (drawn != counts).then_some(drawn),
    })
}

/// Inception score, mean and standard deviation over ten parts of the pictures in random
/// order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ScoreFigures {
    pub mean: f64,
    pub std: f64,
}

/// Of pool features `[N, 2048]`.
pub fn score(
    network: &Inception,
    pool: &Tensor,
    device: Device,
    seed: u64,
) -> Result<ScoreFigures, MetricError> {
    let count = pool.size()[0] as usize;
    let order = subset(seed, MeasureDraw::InceptionScore, 0, count, count);
    let shuffled = pool.index_select(0, &Tensor::from_slice(&order));
    let logits = tch::no_grad(|| network.logits(&shuffled.to_device(device)));
    let score = inception_score(&logits, PARTS)?;
    Ok(ScoreFigures {
        mean: score.mean,
        std: score.std,
    })
}

/// Two halves of features `[M, D]`, the same rows for every network of a set.
pub fn halves(features: &Tensor, seed: u64) -> [Tensor; 2] {
    let count = features.size()[0] as usize;
    let order = Tensor::from_slice(&subset(seed, MeasureDraw::Halves, 0, count, count));
    let half = count as i64 / 2;
    [0, half].map(|from| features.index_select(0, &order.narrow(0, from, half)))
}

/// Fréchet distance of features `[N, D]` from a Gaussian.
pub fn fd_of(features: &Tensor, real: &Gaussian) -> Result<f64, MetricError> {
    frechet_distance(&Gaussian::of(features)?, real)
}

/// CMMD of image embeddings `[N, E]` and `[M, E]` of any length.
pub fn cmmd_of(a: &Tensor, b: &Tensor, seed: u64) -> Result<f64, MetricError> {
    let (a, b) = (at_most(a, seed, 0), at_most(b, seed, 1));
    let unit = |x: &Tensor| x / x.norm_scalaropt_dim(2.0, [1], true).clamp_min(1e-12);
    cmmd(&unit(&a), &unit(&b))
}

/// How pictures fit their captions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CaptionFigures {
    #[serde(flatten)]
    pub clip_score: ClipScore,
    /// 95 % of `score_100`, by the bootstrap over the pictures.
    pub score_100_interval: [f64; 2],
    /// Mean of exp(logit scale) · cosine.
    pub scaled: f64,
    /// Mean cosine.
    pub cosine: f64,
}

/// Of picture and caption embeddings `[N, E]`.
pub fn caption_figures(
    images: &Tensor,
    texts: &Tensor,
    logit_scale: f64,
    seed: u64,
) -> Result<CaptionFigures, MetricError> {
    let cosines = cosines(images, texts)?;
    let positive: Vec<f64> = values(&(cosines.clamp_min(0.0) * 100.0));
    let mean = |x: &Tensor| x.mean(tch::Kind::Double).double_value(&[]);
    Ok(CaptionFigures {
        clip_score: clip_score(&cosines),
        score_100_interval: mean_interval(&positive, seed, 4),
        scaled: mean(&scaled(&cosines, logit_scale)),
        cosine: mean(&cosines),
    })
}

/// Every caption's embedding given to another picture.
pub fn shuffled(texts: &Tensor, seed: u64) -> Tensor {
    let count = texts.size()[0] as usize;
    let order = subset(seed, MeasureDraw::Captions, 0, count, count);
    let mut given = vec![0i64; count];
    for (i, &place) in order.iter().enumerate() {
        given[place as usize] = order[(i + 1) % count];
    }
    texts.index_select(0, &Tensor::from_slice(&given))
}

/// Whether generated pictures are copies of training pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Memorisation {
    /// The network that tells the distance.
    pub network: &'static str,
    pub authpct: f64,
    pub mean_distance: f64,
    /// The generated pictures nearest to a training picture, nearest first.
    pub nearest: Vec<Copy>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Copy {
    pub generated: String,
    pub training: String,
    pub distance: f64,
}

/// Of features `[N, D]` and `[M, D]` with the pictures' names.
pub fn memorisation(
    network: &'static str,
    (generated, names): (&Tensor, &[String]),
    (train, train_names): (&Tensor, &[String]),
) -> Result<Memorisation, MetricError> {
    let found = nearest(generated, train)?;
    let (distance, order) = found.distance.sort(0, false);
    let count = NEAREST.min(names.len()) as i64;
    let nearest = (0..count).map(|i| {
        let row = order.int64_value(&[i]);
        Copy {
            generated: names[row as usize].clone(),
            training: train_names[found.index.int64_value(&[row]) as usize].clone(),
            distance: distance.double_value(&[i]),
        }
    });
    Ok(Memorisation {
        network,
        authpct: authpct(generated, train)?,
        mean_distance: found.distance.mean(tch::Kind::Double).double_value(&[]),
        nearest: nearest.collect(),
    })
}

/// `result` with the set that it concerns.
pub fn of_set<T>(set: &Path, result: Result<T, MetricError>) -> Result<T, ComparisonError> {
    result.map_err(|source| ComparisonError::Metric {
        set: set.to_path_buf(),
        source,
    })
}
