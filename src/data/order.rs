//! The order of the samples of an epoch, and choices among few.

use std::sync::{Arc, Mutex};

use crate::random::{below, sample_generator, TrainingDraw};

/// A permutation of the rows of a data set for every epoch, a function of the seed.
pub struct Order {
    seed: u64,
    rows: u64,
    /// The epoch used last and its permutation.
    known: Mutex<Option<(u64, Arc<Vec<u32>>)>>,
}

impl Order {
    pub fn new(seed: u64, rows: u64) -> Self {
        Order {
            seed,
            rows,
            known: Mutex::default(),
        }
    }

    /// The row of each global sample index (epoch · rows + position).
    pub fn rows(&self, samples: &[u64]) -> Vec<u64> {
        samples
            .iter()
            .map(|&sample| {
                let permutation = self.permutation(sample / self.rows);
                u64::from(permutation[(sample % self.rows) as usize])
            })
            .collect()
    }

    fn permutation(&self, epoch: u64) -> Arc<Vec<u32>> {
        let mut known = self.known.lock().unwrap_or_else(|e| e.into_inner());
        match &*known {
            Some((of, permutation)) if *of == epoch => permutation.clone(),
            _ => {
                let permutation = Arc::new(shuffled(self.seed, epoch, self.rows as u32));
                *known = Some((epoch, permutation.clone()));
                permutation
            }
        }
    }
}

/// The numbers below `count` in the order of `epoch`: a Fisher–Yates shuffle.
pub fn shuffled(seed: u64, epoch: u64, count: u32) -> Vec<u32> {
    let mut generator = sample_generator(seed, epoch, TrainingDraw::Order);
    let mut rows: Vec<u32> = (0..count).collect();
    for i in (1..rows.len()).rev() {
        rows.swap(i, below(&mut generator, i as u64 + 1) as usize);
    }
    rows
}
