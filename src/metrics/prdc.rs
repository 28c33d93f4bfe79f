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

/// At each k of `ks`, for generated features `[N, D]` and real ones `[M, D]`.
///
/// Distances of all pairs are computed once for all k; memory is that of a few tiles
/// of 4096² f64 distances beside the features.
///
/// # Errors
///
/// No more pictures than the largest k, other widths, or values that are not finite.
pub fn prdc(generated: &Tensor, real: &Tensor, ks: &[i64]) -> Result<Vec<Prdc>, MetricError> {
    let most = ks.iter().copied().max().unwrap_or(1);
    check_both(
        "precision, recall, density, coverage",
        [generated, real],
        most + 1,
    )?;
    let _no_grad = tch::no_grad_guard();
    let around_generated = nearest_others(generated, most); // [N, most] squared
    let around_real = nearest_others(real, most); // [M, most]
    let mut counts: Vec<Counts> = ks
        .iter()
        .map(|&k| Counts {
            generated_radius: around_generated.narrow(1, k - 1, 1), // [N, 1]
            real_radius: around_real.narrow(1, k - 1, 1).tr(),      // [1, M]
            hits_generated: around_generated
                .narrow(1, 0, 1)
                .zeros_like()
                .to_kind(Kind::Bool),
            hits_real: around_real
                .narrow(1, 0, 1)
                .tr()
                .zeros_like()
                .to_kind(Kind::Bool),
            covered: around_real
                .narrow(1, 0, 1)
                .tr()
                .zeros_like()
                .to_kind(Kind::Bool),
            inside: 0,
        })
        .collect();
    tiles(generated, real, |x, y, from| {
        let distance = squared(x, y);
        counts.iter_mut().for_each(|c| c.add(&distance, from));
    });
    let figures = ks.iter().zip(&counts).map(|(&k, count)| count.figures(k));
    Ok(figures.collect())
}

struct Counts {
    generated_radius: Tensor, // [N, 1] squared
    real_radius: Tensor,      // [1, M] squared
    hits_generated: Tensor,   // [N, 1]: within or on a real ball
    hits_real: Tensor,        // [1, M]: within or on a generated ball
    covered: Tensor,          // [1, M]: a generated picture within the ball
    inside: i64,              // pairs of a generated picture within a real ball
}

impl Counts {
    /// Adds a tile of squared distances `[n, m]` that starts at `from`.
    fn add(&mut self, distance: &Tensor, [i, j]: [i64; 2]) {
        let (n, m) = (distance.size()[0], distance.size()[1]);
        let real = self.real_radius.narrow(1, j, m);
        let generated = self.generated_radius.narrow(0, i, n);
        let or = |all: &Tensor, dim: i64, from: i64, size: i64, found: Tensor| {
            let _ = all.narrow(dim, from, size).logical_or_(&found);
        };
        let on_real = distance.le_tensor(&real).any_dim(1, true);
        or(&self.hits_generated, 0, i, n, on_real);
        let on_generated = distance.le_tensor(&generated).any_dim(0, true);
        or(&self.hits_real, 1, j, m, on_generated);
        let within = distance.lt_tensor(&real);
        self.inside += within.sum(Kind::Int64).int64_value(&[]);
        or(&self.covered, 1, j, m, within.any_dim(0, true));
    }

    fn figures(&self, k: i64) -> Prdc {
        let share = |hits: &Tensor| {
            hits.to_kind(Kind::Double)
                .mean(Kind::Double)
                .double_value(&[])
        };
        Prdc {
            k,
            precision: share(&self.hits_generated),
            recall: share(&self.hits_real),
            density: self.inside as f64 / (k * self.hits_generated.size()[0]) as f64,
            coverage: share(&self.covered),
        }
    }
}
