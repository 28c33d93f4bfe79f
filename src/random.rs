//! The keys of all random numbers.
//!
//! Every draw is a function of what it decides and for what alone: of a seed, the picture or
//! sample, the step and the kind of decision. Nothing depends on the batch, the device or
//! what was drawn before, and no generator's state is ever saved. (Weights that a run starts
//! from are the exception: libtorch draws them one after the other from the run's seed.)

use rand_chacha::rand_core::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

/// What a number decides about a picture that is made; part of its key.
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
    /// In which order masked tokens are revealed.
    Order = 6,
}

/// The generator of one decision in the network evaluation `step` (counted from 0) of the
/// picture of this seed: ChaCha8 keyed by the seed, with step and decision as its stream.
/// Position n of the picture takes the n-th number.
pub fn picture_generator(seed: u64, step: usize, draw: Draw) -> ChaCha8Rng {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream((step as u64) << 8 | draw as u64);
    generator
}

/// What a number of training decides; part of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrainingDraw {
    /// The order of the samples in an epoch.
    Order = 0,
    /// Whether the condition is dropped.
    Dropout = 1,
    /// The time t.
    Time = 2,
    /// The tokens of x_t.
    Corruption = 3,
    /// Which caption of an image is taken.
    Caption = 4,
    /// Where the image is cropped, and at which size.
    Crop = 5,
    /// Whether the image is mirrored.
    Flip = 6,
    /// The noise of the codec's sampled codes.
    Codec = 7,
    /// Which of the cached views of an image is taken.
    View = 8,
    /// Which image takes the place of one that cannot be read.
    Substitute = 9,
    /// The start of a codebook and the entries that are moved, by step.
    Codebook = 10,
    /// Keys of the masks of a network's dropout, by layer and place.
    Mask = 11,
}

/// The generator of one decision for one sample of a training run: `index` is the
/// global sample index (epoch · samples per epoch + position), or the epoch for
/// [`TrainingDraw::Order`]. Its numbers depend on nothing else, so that a run can be
/// continued, or spread over processes, without any generator state.
pub fn sample_generator(seed: u64, index: u64, draw: TrainingDraw) -> ChaCha8Rng {
    keyed(seed, index, draw as u8, b"training")
}

/// What is drawn for a measure of pictures; part of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeasureDraw {
    /// Subsets of KID.
    Kid = 0,
    /// Subsets of FD∞, by size.
    FdInfinity = 1,
    /// The parts of the Inception score.
    InceptionScore = 2,
    /// The halves of the reals.
    Halves = 3,
    /// Which caption another picture gets.
    Captions = 4,
    /// Which pictures are measured again in a resample of a bootstrap.
    Bootstrap = 5,
    /// Which pictures stand for a set that is too large for distances of all pairs.
    Pairs = 6,
    /// Which real pictures a protocol takes.
    Reals = 7,
    /// Which caption of a picture is taken first.
    FirstCaption = 8,
    /// The times of the variational bound.
    Time = 9,
    /// The noisy tokens of the variational bound.
    Corruption = 10,
}

/// The generator of the draw `index` for a measure.
pub fn measure_generator(seed: u64, index: u64, draw: MeasureDraw) -> ChaCha8Rng {
    keyed(seed, index, draw as u8, b"measures")
}

/// The generator of a key; the last word keeps it apart from the keys of pictures and of other
/// purposes.
fn keyed(seed: u64, index: u64, draw: u8, purpose: &[u8; 8]) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&index.to_le_bytes());
    key[16] = draw;
    key[24..].copy_from_slice(purpose);
    ChaCha8Rng::from_seed(key)
}

/// The next number in [0, 1) of `generator`, with 53 random bits.
pub fn unit(generator: &mut ChaCha8Rng) -> f64 {
    (generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Numbers in [0, 1) `[B, count]` f64 on the CPU for a decision about each of `samples`.
pub fn training_uniform(seed: u64, samples: &[u64], draw: TrainingDraw, count: i64) -> Tensor {
    let mut values = Vec::with_capacity(samples.len() * count as usize);
    for &sample in samples {
        let mut generator = sample_generator(seed, sample, draw);
        values.extend((0..count).map(|_| unit(&mut generator)));
    }
    Tensor::from_slice(&values).view([samples.len() as i64, count])
}

/// A number below `count`, all equally likely to within 2⁻⁶⁴ · count.
pub fn below(generator: &mut ChaCha8Rng, count: u64) -> u64 {
    ((u128::from(generator.next_u64()) * u128::from(count)) >> 64) as u64
}
