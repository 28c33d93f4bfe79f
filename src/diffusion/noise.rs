//! Noise as an argument: a sampler is a pure function of model, plan and noise.

use tch::Tensor;

pub use crate::random::Draw;
use crate::random::{picture_generator, unit};

/// A source of uniform numbers.
pub trait Noise {
    /// Numbers in [0, 1) of `shape` `[B, …]` on the CPU for the network evaluation
    /// `step` (counted from 0) of the run and the decision `draw`.
    fn uniform(&mut self, step: usize, draw: Draw, shape: &[i64]) -> Tensor;

    /// Exponential numbers of mean 1, keyed alike.
    fn exponential(&mut self, step: usize, draw: Draw, shape: &[i64]) -> Tensor {
        (1.0f64 - self.uniform(step, draw, shape)).log().neg()
    }
}

/// Counter-based noise made on the host: every number is a function of (image
/// seed, step, draw, position) alone, whatever the batch or the device.
/// Numbers are f64 with 53 random bits.
pub struct HostNoise {
    seeds: Vec<u64>,
}

impl HostNoise {
    /// One seed per image of the batch.
    pub fn new(seeds: &[u64]) -> Self {
        HostNoise {
            seeds: seeds.to_vec(),
        }
    }
}

impl Noise for HostNoise {
    fn uniform(&mut self, step: usize, draw: Draw, shape: &[i64]) -> Tensor {
        let per_image = shape[1..].iter().product::<i64>() as usize;
        let mut values = Vec::with_capacity(per_image * self.seeds.len());
        for &seed in &self.seeds {
            let mut generator = picture_generator(seed, step, draw);
            values.extend((0..per_image).map(|_| unit(&mut generator)));
        }
        Tensor::from_slice(&values).view(shape)
    }
}
