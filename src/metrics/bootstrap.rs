//! Intervals of means by the bootstrap (Efron 1979).

use rayon::prelude::*;

use crate::random::{below, measure_generator, MeasureDraw};

/// Resamples of an interval.
const RESAMPLES: u64 = 1000;

/// The 95 % interval (2.5 and 97.5 % points of 1000 resamples) of the mean of `values`, one
/// a picture. `index` tells apart the means that one `seed` serves.
pub fn mean_interval(values: &[f64], seed: u64, index: u64) -> [f64; 2] {
    let count = values.len() as u64;
    let mut means: Vec<f64> = (0..RESAMPLES)
        .into_par_iter()
        .map(|resample| {
            let place = index << 32 | resample;
            let mut generator = measure_generator(seed, place, MeasureDraw::Bootstrap);
            let drawn = (0..count).map(|_| values[below(&mut generator, count) as usize]);
            drawn.sum::<f64>() / count.max(1) as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let point = |share: f64| means[(share * (RESAMPLES - 1) as f64).round() as usize];
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
    }
}
