//! Precision and recall (arXiv 1904.06991), density and coverage (arXiv 2002.09797): how
//! two sets cover the balls around each other's points.
//!
//! The ball of a picture reaches to its k-th nearest neighbour among the others of its
//! set.

use serde::Serialize;
use tch::{Kind, Tensor};

use super::distances::{nearest_others, squared, tiles};
use super::error::{check_both, MetricError};

/// Neighbours of precision and recall, as StyleGAN, ADM and torch-fidelity take them.
pub const PRECISION_RECALL_K: i64 = 3;
/// Neighbours of density and coverage, as their authors take them.
pub const DENSITY_COVERAGE_K: i64 = 5;

/// The figures at one k.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Prdc {
    pub k: i64,
    /// Share of generated pictures within or on the ball of a real one.
    pub precision: f64,
    /// Share of real pictures within or on the ball of a generated one.
    pub recall: f64,
    /// Real balls that a generated picture lies within, in the mean, divided by k.
    pub density: f64,
    /// Share of real pictures with a generated one within their ball.
    pub coverage: f64,
}

impl Prdc {
    /// Harmonic mean of precision and recall; zero if both are.
    pub fn f_score(&self) -> f64 {
        let sum = self.precision + self.recall;
        match sum > 0.0 {
            true => 2.0 * self.precision * self.recall / sum,
            false => 0.0,
        }
    }
}

/// What every picture has to do with the balls of the other set, at one k.
pub struct Covering {
    pub k: i64,
    /// Whether a generated picture lies within or on a real ball: bool `[N]`.
    pub on_real: Tensor,
    /// Real balls that a generated picture lies within: int64 `[N]`.
    pub balls: Tensor,
    /// Whether a real picture lies within or on a generated ball: bool `[M]`.
    pub on_generated: Tensor,
    /// Whether a generated picture lies within a real one's ball: bool `[M]`.
    pub covered: Tensor,
}

impl Covering {
    pub fn figures(&self) -> Prdc {
        let mean = |x: &Tensor| x.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        Prdc {
            k: self.k,
            precision: mean(&self.on_real),
            recall: mean(&self.on_generated),
            density: mean(&self.balls) / self.k as f64,
            coverage: mean(&self.covered),
        }
    }
}

/// The figures at each k of `ks`, for generated features `[N, D]` and real ones `[M, D]`.
///
/// # Errors
///
/// As [`coverings`].
pub fn prdc(generated: &Tensor, real: &Tensor, ks: &[i64]) -> Result<Vec<Prdc>, MetricError> {
    let coverings = coverings(generated, real, ks)?;
    Ok(coverings.iter().map(Covering::figures).collect())
}

/// At each k of `ks`, for generated features `[N, D]` and real ones `[M, D]`.
///
/// Distances of all pairs are computed once for all k; memory is that of a few tiles
/// of 4096² f64 distances beside the features.
///
/// # Errors
///
/// No more pictures than the largest k, other widths, or values that are not finite.
pub fn coverings(
    generated: &Tensor,
    real: &Tensor,
    ks: &[i64],
) -> Result<Vec<Covering>, MetricError> {
    let most = ks.iter().copied().max().unwrap_or(1);
    check_both(
        "precision, recall, density, coverage",
        [generated, real],
        most + 1,
    )?;
    let _no_grad = tch::no_grad_guard();
    let around_generated = nearest_others(generated, most); // [N, most] squared
    let around_real = nearest_others(real, most); // [M, most]
    let device = generated.device();
    let counts = |rows: i64, kind: Kind| Tensor::zeros([rows], (kind, device));
    let (n, m) = (generated.size()[0], real.size()[0]);
    let mut rounds: Vec<Round> = ks
        .iter()
        .map(|&k| Round {
            generated_radius: around_generated.narrow(1, k - 1, 1), // [N, 1]
            real_radius: around_real.narrow(1, k - 1, 1).tr(),      // [1, M]
            covering: Covering {
                k,
                on_real: counts(n, Kind::Bool),
                balls: counts(n, Kind::Int64),
                on_generated: counts(m, Kind::Bool),
                covered: counts(m, Kind::Bool),
            },
        })
        .collect();
    tiles(generated, real, |x, y, from| {
        let distance = squared(x, y);
        rounds
            .iter_mut()
            .for_each(|round| round.add(&distance, from));
    });
    Ok(rounds.into_iter().map(|round| round.covering).collect())
}

/// A covering while its tiles are added.
struct Round {
    generated_radius: Tensor, // [N, 1] squared
    real_radius: Tensor,      // [1, M] squared
    covering: Covering,
}

impl Round {
    /// Adds a tile of squared distances `[n, m]` that starts at `from`.
    fn add(&mut self, distance: &Tensor, [i, j]: [i64; 2]) {
        let (n, m) = (distance.size()[0], distance.size()[1]);
        let real = self.real_radius.narrow(1, j, m);
        let generated = self.generated_radius.narrow(0, i, n);
        let or = |all: &Tensor, from: i64, size: i64, found: Tensor| {
            let _ = all.narrow(0, from, size).logical_or_(&found);
        };
        let covering = &self.covering;
        let on_real = distance.le_tensor(&real).any_dim(1, false);
        or(&covering.on_real, i, n, on_real);
        let on_generated = distance.le_tensor(&generated).any_dim(0, false);
        or(&covering.on_generated, j, m, on_generated);
        let within = distance.lt_tensor(&real);
        let balls = within.sum_dim_intlist([1].as_slice(), false, Kind::Int64);
        let _ = covering.balls.narrow(0, i, n).g_add_(&balls);
        or(&covering.covered, j, m, within.any_dim(0, false));
    }
}
