//! FD∞: the Fréchet distance at infinitely many pictures, extrapolated (arXiv 1911.07023;
//! sizes as in dgm-eval).

use tch::Tensor;

use super::error::{check_both, MetricError};
use super::frechet::frechet_distance;
use super::moments::Gaussian;

/// Sizes that the line is laid through.
pub const SIZES: usize = 15;
/// The smallest size, where there are ten times as many pictures.
const SMALLEST: usize = 5000;

/// The line FD = value + slope / size.
#[derive(Clone, Debug, PartialEq)]
pub struct Extrapolation {
    /// Its intercept: the distance at infinite size.
    pub value: f64,
    pub slope: f64,
    /// The distance at each size.
    pub values: Vec<f64>,
}

/// [`SIZES`] sizes, evenly from min(5000, `pictures` / 10) to `pictures`, cut to integers.
pub fn sizes(pictures: usize) -> Vec<usize> {
    let first = SMALLEST.min((pictures / 10).max(2)) as f64;
    let step = (pictures as f64 - first) / (SIZES - 1) as f64;
    (0..SIZES)
        .map(|i| match i + 1 {
            SIZES => pictures,
            _ => (first + i as f64 * step) as usize,
        })
        .collect()
}

/// From the distances of subsets of `generated` `[N, D]`, given by their rows, to all of
/// the reals.
///
/// # Errors
///
/// Subsets of fewer than two pictures, fewer than two subsets of different sizes, other
/// widths, or values that are not finite.
pub fn fd_infinity(
    generated: &Tensor,
    real: &Gaussian,
    subsets: &[Vec<i64>],
) -> Result<Extrapolation, MetricError> {
    const MEASURE: &str = "FD∞";
    check_both(MEASURE, [generated, generated], 2)?;
    let mut points = Vec::with_capacity(subsets.len());
    for subset in subsets {
        let rows = Tensor::from_slice(subset).to_device(generated.device());
        let part = Gaussian::of(&generated.index_select(0, &rows))?;
        let value = frechet_distance(&part, real)?;
        points.push((1.0 / subset.len() as f64, value));
    }
    let count = points.len() as f64;
    let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|p| p.0), mean(|p| p.1));
    let spread: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    if spread.is_nan() || spread <= 0.0 {
        return Err(MetricError::TooFew {
            measure: MEASURE,
            what: "sizes",
            found: 1,
            least: 2,
        });
    }
    let shared: f64 = points
        .iter()
        .map(|(x, y)| (x - x_mean) * (y - y_mean))
        .sum();
    let slope = shared / spread;
    Ok(Extrapolation {
        value: y_mean - slope * x_mean,
        slope,
        values: points.into_iter().map(|(_, y)| y).collect(),
    })
}
