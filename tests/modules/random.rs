//! The keys of random numbers: what was drawn once is drawn again by every later version.

use rand_chacha::rand_core::RngCore;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;
use vqdiffusion::diffusion::{HostNoise, Noise};
use vqdiffusion::random::{
    below, picture_generator, sample_generator, training_uniform, unit, Draw, TrainingDraw,
};
use vqdiffusion::torch::host::values;

const PICTURE: [u64; 3] = [298065847864106964, 6398397286173400273, 1228333769271981304];
const SAMPLE: [u64; 3] = [
    12087421178197362248,
    9025742729098152546,
    15176244644416757622,
];

/// The numbers 0, 1 and 9 of `generator`.
fn drawn(mut generator: ChaCha8Rng) -> [u64; 3] {
    let all: Vec<u64> = (0..10).map(|_| generator.next_u64()).collect();
    [all[0], all[1], all[9]]
}

/// Against ChaCha8 written anew from RFC 8439 (with 8 rounds and a 64-bit counter), keyed by
/// PCG32's expansion of the picture's seed, and by seed, sample, decision and "training".
#[test]
fn the_keys_are_what_they_were() {
    let picture = drawn(picture_generator(42, 3, Draw::Choice));
    assert_eq!(picture, PICTURE);
    let sample = drawn(sample_generator(7, 1_000_003, TrainingDraw::Crop));
    assert_eq!(sample, SAMPLE);

    let share = |n: u64| (n >> 11) as f64 / 2f64.powi(53);
    let mut generator = sample_generator(7, 1_000_003, TrainingDraw::Crop);
    assert_eq!(unit(&mut generator), share(SAMPLE[0]));
    let mut generator = sample_generator(7, 1_000_003, TrainingDraw::Crop);
    let tenth = (u128::from(SAMPLE[0]) * 10) >> 64;
    assert_eq!(u128::from(below(&mut generator, 10)), tenth);

    // Position n of a picture takes the n-th number, whatever lies beside it.
    let noise = HostNoise::new(&[9, 42]).uniform(3, Draw::Choice, &[2, 2, 5]);
    let noise: Vec<f64> = values(&noise);
    assert_eq!([noise[10], noise[11], noise[19]], PICTURE.map(share));
    let training = training_uniform(7, &[5, 1_000_003], TrainingDraw::Crop, 10);
    let training: Vec<f64> = values(&training);
    assert_eq!(
        [training[10], training[11], training[19]],
        SAMPLE.map(share)
    );
}

#[test]
fn host_copies_follow_the_rows_of_any_view() {
    let x = Tensor::from_slice(&[1i64, 2, 3, 4, 5, 6]).view([2, 3]);
    assert_eq!(values::<i64>(&x.tr()), [1, 4, 2, 5, 3, 6]);
    assert_eq!(values::<f32>(&x.select(1, 1)), [2.0, 5.0]);
    assert_eq!(
        values::<bool>(&x.gt(4)),
        [false, false, false, false, true, true]
    );
    assert!(values::<f64>(&x.narrow(0, 0, 0)).is_empty());
    let halves = Tensor::from_slice(&[1.0f32, -2.0]).to_kind(tch::Kind::BFloat16);
    assert_eq!(values::<f64>(&halves), [1.0, -2.0]);
    let bytes = vqdiffusion::torch::host::bytes(&halves);
    let expected = [0x3f80u16, 0xc000].map(u16::to_ne_bytes).concat();
    assert_eq!(bytes, expected);
}
