//! The posterior and the reverse step, against enumeration.

use tch::{Device, Kind, Tensor};
use vqdiffusion::diffusion::noise::Draw;
use vqdiffusion::diffusion::posterior::{inverse_cdf, reverse_step, Posterior, StepNoise};
use vqdiffusion::diffusion::truncation::Truncation;
use vqdiffusion::diffusion::{HostNoise, Noise};

use crate::diffusion::enumeration::*;

#[test]
fn entries_are_probabilities() {
    for course in COURSES {
        for timesteps in [2, 10, 100] {
            for codes in [2, 5, 2887] {
                let schedule = course.schedule(timesteps, codes);
                for t in 0..timesteps as i64 {
                    for s in -1..t {
                        let posterior = Posterior::new(&schedule, s, t);
                        for choice in [posterior.masked, posterior.differs, posterior.agrees] {
                            let parts = [choice.stay, choice.take, choice.uniform];
                            let total: f64 = parts.iter().sum();
                            let what = format!("{} {t} to {s}: {choice:?}", course.name);
                            assert!((total - 1.0).abs() <= course.rounding.max(1e-10), "{what}");
                            assert!(parts.iter().all(|&p| p >= -1e-10), "{what}");
                        }
                        assert_eq!(posterior.agrees.take, 0.0);
                        // What `Activity` rests on: a visible token that stays when it
                        // differs from x̂_0 also stays when it agrees.
                        assert!(posterior.agrees.stay >= posterior.differs.stay);
                    }
                }
            }
        }
    }
}

#[test]
fn two_stage_law_is_the_mixture_of_posteriors() {
    let mut random = Random(1);
    for course in COURSES {
        for (timesteps, codes) in [(4, 2), (6, 3), (10, 5), (10, 6)] {
            let schedule = course.schedule(timesteps, codes);
            let chain = course.chain(timesteps, codes);
            for t in 0..timesteps as i64 {
                for s in -1..t {
                    let posterior = Posterior::new(&schedule, s, t);
                    let states = if course.name == "uniform" {
                        codes
                    } else {
                        codes + 1
                    };
                    for x_t in 0..states {
                        let p = random.simplex(codes);
                        let found = two_stage(&posterior, x_t, &p);
                        let expected = chain.mixture(s, t, x_t, &p);
                        let what = format!("{} K = {codes}, x_{t} = {x_t} to x_{s}", course.name);
                        assert_close(&what, &found, &expected, course.rounding);
                        if x_t < codes {
                            assert_eq!(found[codes], 0.0, "{what}: never back to the mask");
                        }
                        if s == -1 && !(course.name == "mask-only" && x_t < codes) {
                            // To clean tokens the mixture is p̂ itself.
                            assert_close(&what, &found[..codes], &p, course.rounding);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn inverse_cdf_takes_half_open_intervals() {
    let draw = |p: &[f32], u: &[f64]| {
        let n = u.len() as i64;
        let p = Tensor::from_slice(p).expand([1, n, -1], false);
        integers(&inverse_cdf(&p, &Tensor::from_slice(u).view([1, n])))
    };
    assert_eq!(BELOW_ONE, 0.999_999_999_999_999_9);
    // Code k has [Σ before, Σ through k): a boundary belongs to the next code.
    let p = [0.25, 0.5, 0.125, 0.125];
    let u = [
        0.0,
        0.25f64.next_down(),
        0.25,
        0.75f64.next_down(),
        0.75,
        0.875,
        BELOW_ONE,
    ];
    assert_eq!(draw(&p, &u), [0, 0, 1, 1, 2, 3, 3]);
    // Codes of probability 0, at the ends and in the middle.
    let p = [0.0, 0.0, 0.5, 0.0, 0.0, 0.5, 0.0];
    let u = [0.0, 0.5f64.next_down(), 0.5, BELOW_ONE];
    assert_eq!(draw(&p, &u), [2, 2, 5, 5]);
    // Weights that sum to something else.
    for scale in [1e-30f32, 1e-3, 0.86, 3.0, 1e30] {
        let p = [0.0, scale, 0.0, 3.0 * scale, 0.0];
        let u = [0.0, 0.2499, 0.2501, BELOW_ONE];
        assert_eq!(draw(&p, &u), [1, 1, 3, 3], "scale {scale}");
    }
    assert_eq!(draw(&[1.0], &[0.0, BELOW_ONE]), [0, 0]);
    // No sum of f32 weights rounds u · Σ up to Σ.
    let mut random = Random(3);
    for codes in [3usize, 7, 2887] {
        for _ in 0..200 {
            let mut p: Vec<f32> = (0..codes).map(|_| random.next() as f32).collect();
            let zero = codes / 2;
            p[0] = 0.0;
            p[zero] = 0.0;
            p[codes - 1] = 0.0;
            if codes == 3 {
                p[zero] = 0.3;
            }
            let boundary = p[..zero].iter().map(|&p| f64::from(p)).sum::<f64>()
                / p.iter().map(|&p| f64::from(p)).sum::<f64>();
            let u = [
                0.0,
                boundary,
                boundary.next_down(),
                boundary.next_up(),
                BELOW_ONE,
            ];
            for code in draw(&p, &u) {
                assert!(p[code as usize] > 0.0, "drew code {code} of {codes}");
            }
        }
    }
}

/// 1e5 draws of x_s at positions that all hold `x_t`.
fn draw_steps(posterior: &Posterior, p: &Tensor, x_t: usize, seed: u64) -> Vec<i64> {
    let shape = [1, 100_000];
    let mut noise = HostNoise::new(&[seed]);
    let noise = StepNoise {
        code: noise.uniform(0, Draw::Code, &shape),
        choice: noise.uniform(0, Draw::Choice, &shape),
        replacement: noise.uniform(0, Draw::Replacement, &shape),
    };
    let p = p.expand([1, shape[1], -1], false);
    let x_t = Tensor::full(shape, x_t as i64, (Kind::Int64, Device::Cpu));
    integers(&reverse_step(posterior, &p, &x_t, &noise))
}

#[test]
fn reverse_step_draws_the_enumerated_law() {
    let codes = 5;
    // Dyadic, so that sums and ties are exact in f32.
    let p: Vec<f64> = [8.0, 4.0, 16.0, 2.0, 2.0].map(|p| p / 32.0).to_vec();
    let row = Tensor::from_slice(&p).to_kind(Kind::Float);
    let truncations = [
        (Truncation::Off, 5),
        (Truncation::TopP(0.4), 1),   // .5
        (Truncation::TopP(0.5), 1),   // exactly .5: reached by one code
        (Truncation::TopP(0.51), 2),  // .5 .25
        (Truncation::TopP(0.75), 2),  // exactly .75
        (Truncation::TopP(0.8), 3),   // .5 .25 .125
        (Truncation::TopP(0.875), 3), // exactly .875
        (Truncation::TopP(0.88), 5),  // the two of .0625 are equally likely: both
        (Truncation::TopP(1.0), 5),
        (Truncation::TopK(1), 1),
        (Truncation::TopK(3), 3),
        (Truncation::TopK(4), 5), // the tie again
        (Truncation::TopK(5), 5),
    ];
    let mut seed = 100;
    let mut tests = 0;
    for course in [STRONG, PAPER, MASKS, UNIFORM] {
        let schedule = course.schedule(10, codes);
        let chain = course.chain(10, codes);
        for (t, s) in [(5, 4), (9, 8), (8, 3), (6, -1)] {
            let posterior = Posterior::new(&schedule, s, t);
            for (truncation, kept) in truncations {
                if course.name != "strong" && truncation != Truncation::TopP(0.8) {
                    continue;
                }
                let cut = truncated(&p, truncation);
                assert_eq!(cut.iter().filter(|&&p| p > 0.0).count(), kept);
                let weights = truncation.apply(&row);
                assert_eq!(floats(&weights), cut, "{truncation:?}");
                let cut = normalised(cut);
                // The mask; a code that x̂_0 often agrees with; the least likely one,
                // which is 0 under most truncations.
                for x_t in [5, 2, 4] {
                    if course.name == "uniform" && x_t == 5 {
                        continue;
                    }
                    let law = chain.mixture(s, t, x_t, &cut);
                    let degrees = law.iter().filter(|&&p| p >= 1e-13).count() - 1;
                    let expected = match course.name {
                        _ if s == -1 && course.name != "mask-only" => kept - 1,
                        "strong" | "paper" if x_t == 5 => 5,
                        "strong" | "paper" | "uniform" => 4,
                        _ if x_t < 5 => 0,
                        _ => kept - usize::from(s == -1),
                    };
                    assert_eq!(degrees, expected);
                    let what = format!("{} {x_t} at {t} to {s}, {truncation:?}", course.name);
                    let drawn = draw_steps(&posterior, &weights, x_t, seed);
                    assert_fits(&what, &drawn, &law, expected);
                    seed += 1;
                    tests += 1;
                }
            }
        }
    }
    assert_eq!(tests, 4 * 13 * 3 + 4 * 3 + 4 * 3 + 4 * 2);
}
