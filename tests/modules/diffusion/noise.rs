//! The counter-based noise: known answers, keys, and its law.

use std::collections::HashMap;

use tch::Kind;
use vqdiffusion::diffusion::noise::Draw;
use vqdiffusion::diffusion::{HostNoise, Noise};

use crate::diffusion::enumeration::*;

#[test]
fn host_noise_known_answers() {
    // Recorded: a change of generator or key changes every picture.
    let mut noise = HostNoise::new(&[0, 7]);
    let found = floats(&noise.uniform(0, Draw::Code, &[2, 3]));
    let expected = [
        0.755531016687046,
        0.7381167640990809,
        0.5899972116915172,
        0.9921087752234984,
        0.009051410273493876,
        0.7216117295825087,
    ];
    assert_eq!(found, expected);
    let found = floats(&noise.uniform(3, Draw::Position, &[2, 2]));
    let expected = [
        0.45670513386426115,
        0.02179079514673221,
        0.7097048004041625,
        0.36521968733983656,
    ];
    assert_eq!(found, expected);
}

#[test]
fn host_noise_is_keyed_by_image_step_and_draw() {
    let draws = [
        Draw::Start,
        Draw::Code,
        Draw::Choice,
        Draw::Replacement,
        Draw::Position,
    ];
    let list = [4u64, 0, 4, 77, u64::MAX];
    let mut batch = HostNoise::new(&list);
    let mut seen = HashMap::new();
    // 255 and 256: the step must not run into the draw's part of the key.
    for step in [0, 1, 2, 99, 255, 256, 257, 1000] {
        for draw in draws {
            let together = batch.uniform(step, draw, &[5, 4, 2]);
            assert_eq!(
                (together.size(), together.kind()),
                (vec![5, 4, 2], Kind::Double)
            );
            for (i, &seed) in list.iter().enumerate() {
                let row = floats(&together.get(i as i64));
                let mut alone = HostNoise::new(&[seed]);
                assert_eq!(floats(&alone.uniform(step, draw, &[1, 8])), row);
                // A longer row begins with the shorter one.
                assert_eq!(floats(&alone.uniform(step, draw, &[1, 30]))[..8], row);
                let bits: Vec<u64> = row.iter().map(|u| u.to_bits()).collect();
                let key = (seed, step, draw as u8);
                let owner = *seen.entry(bits).or_insert(key);
                assert_eq!(owner, key, "two keys, one stream");
            }
        }
    }
}

#[test]
fn host_noise_is_uniform() {
    let n = 100_000i64;
    let bins = |values: &[f64]| {
        values
            .iter()
            .map(|u| (u * 100.0) as i64)
            .collect::<Vec<_>>()
    };
    let mut noise = HostNoise::new(&[11]);
    let along = floats(&noise.uniform(2, Draw::Choice, &[1, n]));
    // Across images, steps and draws too: the first number of each stream.
    let mut images = HostNoise::new(&seeds(0, n as u64));
    let across = floats(&images.uniform(0, Draw::Code, &[n, 1]));
    let steps: Vec<f64> = (0..20_000)
        .flat_map(|step| floats(&noise.uniform(step, Draw::Code, &[1, 5])))
        .collect();
    for values in [&along, &across, &steps] {
        assert!(values.iter().all(|u| (0.0..1.0).contains(u)));
        assert_fits("uniform", &bins(values), &[0.01; 100], 99);
        let mean = values.iter().sum::<f64>() / n as f64;
        let variance = values.iter().map(|u| (u - mean).powi(2)).sum::<f64>() / n as f64;
        // Standard errors √(1/12n) = 9.1e-4 and √(1/180n) = 2.4e-4; four of each.
        assert!((mean - 0.5).abs() < 4.0 * 9.13e-4, "mean {mean}");
        assert!(
            (variance - 1.0 / 12.0).abs() < 4.0 * 2.36e-4,
            "variance {variance}"
        );
    }
    // Neighbours are independent: 10 × 10 cells of (even, odd) numbers.
    let pairs: Vec<i64> = along
        .chunks(2)
        .map(|u| (u[0] * 10.0) as i64 * 10 + (u[1] * 10.0) as i64)
        .collect();
    assert_fits("pairs", &pairs, &[0.01; 100], 99);
    // So are the draws of one position.
    let code = floats(&noise.uniform(2, Draw::Code, &[1, n]));
    let pairs: Vec<i64> = along
        .iter()
        .zip(&code)
        .map(|(u, v)| (u * 10.0) as i64 * 10 + (v * 10.0) as i64)
        .collect();
    assert_fits("draws", &pairs, &[0.01; 100], 99);
    // e ~ Exp(1): 1 − exp(−e) is uniform, and it is of the same key.
    let exponential = floats(&noise.exponential(2, Draw::Choice, &[1, n]));
    for (e, u) in exponential.iter().zip(&along) {
        assert!(*e >= 0.0 && (-(-e).exp_m1() - u).abs() < 1e-15);
    }
}
