//! Intervals of means by the bootstrap (Efron 1979).

use rayon::prelude::*;

use crate::random::{below, measure_generator, MeasureDraw};

/// Resamples of an interval.
const RESAMPLES: u64 = 1000;

/// The 95 % interval (2.5 and 97.5 % points of 1000 resamples) of the mean of `values`, one
/// a picture. `index` tells apart the means that one `seed` serves.
pub fn mean_interval(values: &[f64], seed: u64, index: u64) -> [f64; 2] {
    let parts: Vec<[f64; 2]> = values.iter().map(|&value| [value, 1.0]).collect();
    ratio_interval(&parts, seed, index)
}

/// As [`mean_interval`] of Σa/Σb over `parts` [a, b], which are drawn whole: of sums and
/// counts of what belongs together it is the interval of the mean, of pairs that of the ratio
/// of their means.
pub fn ratio_interval(parts: &[[f64; 2]], seed: u64, index: u64) -> [f64; 2] {
    let count = parts.len() as u64;
    if count == 0 {
        return [0.0; 2];
    }
    let mut ratios: Vec<f64> = (0..RESAMPLES)
        .into_par_iter()
        .map(|resample| {
            let place = index << 32 | resample;
            let mut generator = measure_generator(seed, place, MeasureDraw::Bootstrap);
            let mut sums = [0.0; 2];
            for _ in 0..count {
                let part = parts[below(&mut generator, count) as usize];
                sums = [sums[0] + part[0], sums[1] + part[1]];
            }
            sums[0] / sums[1]
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let point = |share: f64| ratios[(share * (RESAMPLES - 1) as f64).round() as usize];
    [point(0.025), point(0.975)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean of n numbers of deviation σ lies within 1.96 σ/√n of theirs in 95 % of cases.
    #[test]
    fn the_interval_is_the_normal_one_for_many_values() {
        let values: Vec<f64> = (0..2000).map(|i| f64::from(i % 2)).collect();
        let half = 1.96 * 0.5 / 2000f64.sqrt();
        let [low, high] = mean_interval(&values, 1, 0);
        assert!((low - (0.5 - half)).abs() < 0.1 * half, "{low}");
        assert!((high - (0.5 + half)).abs() < 0.1 * half, "{high}");
        assert_ne!(mean_interval(&values, 1, 1), [low, high]);
        assert_eq!(mean_interval(&[3.0; 5], 1, 0), [3.0; 2]);
        assert_eq!(mean_interval(&[], 1, 0), [0.0; 2]);
    }

    /// What belongs together counts once: pairs of equal values have the interval of one each.
    #[test]
    fn parts_are_drawn_whole() {
        let values: Vec<f64> = (0..100).map(|i| f64::from(i % 7)).collect();
        let doubled: Vec<[f64; 2]> = values.iter().map(|v| [2.0 * v, 2.0]).collect();
        assert_eq!(ratio_interval(&doubled, 1, 0), mean_interval(&values, 1, 0));
        // The ratio of proportional numbers is known for sure.
        let pairs: Vec<[f64; 2]> = values.iter().map(|v| [v + 1.0, 4.0 * (v + 1.0)]).collect();
        assert_eq!(ratio_interval(&pairs, 1, 0), [0.25; 2]);
    }
}
