//! Random subsets of pictures, a function of the seed alone.

use crate::random::{below, measure_generator, MeasureDraw};

/// `size` of the rows below `count`, each at most once, in random order: the subset
/// `index` of the `seed` for a purpose. `size` is at most `count`.
pub fn subset(seed: u64, draw: MeasureDraw, index: u64, count: usize, size: usize) -> Vec<i64> {
    let mut generator = measure_generator(seed, index, draw);
    let mut rows: Vec<i64> = (0..count as i64).collect();
    for i in 0..size {
        let at = i + below(&mut generator, (count - i) as u64) as usize;
        rows.swap(i, at);
    }
    rows.truncate(size);
    rows
}
