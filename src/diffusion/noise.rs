//! Noise as an argument: a sampler is a pure function of model, plan and noise.

use rand_chacha::rand_core::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

/// What a uniform number decides; part of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// Which tokens x_T starts from.
    Start = 0,
    /// Which code x̂_0 is.
    Code = 1,
    /// Whether the token stays, becomes x̂_0, or is replaced.
    Choice = 2,
    /// Which code replaces it.
    Replacement = 3,
    /// Which masked positions are revealed.
    Position = 4,
    /// Which code a picture's quantizer takes.
    Encode = 5,
}

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
///
/// ChaCha8 keyed by the image seed; step and draw select the stream, the position
/// the counter. Numbers are f64 with 53 random bits.
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
            let mut generator = ChaCha8Rng::seed_from_u64(seed);
            generator.set_stream((step as u64) << 8 | draw as u64);
            values.extend(
                (0..per_image).map(|_| (generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64),
            );
        }
        Tensor::from_slice(&values).view(shape)
    }
}
