//! The forward chain and what the reverse one conserves of it.

use tch::{Device, Kind, Tensor};
use vqdiffusion::diffusion::forward::q_sample;
use vqdiffusion::diffusion::posterior::Posterior;

use crate::diffusion::enumeration::*;

#[test]
fn cumulative_values_are_products_of_matrices() {
    for course in COURSES {
        for (timesteps, codes) in [(4, 3), (10, 5), (100, 4)] {
            let schedule = course.schedule(timesteps, codes);
            let chain = course.chain(timesteps, codes);
            let mut q = identity(codes + 1);
            for t in 0..timesteps {
                q = product(&q, &chain.steps[t]);
                let at = schedule.at(t as i64);
                for (i, row) in q[..codes].iter().enumerate() {
                    let mut expected = vec![at.uniform / codes as f64; codes + 1];
                    expected[i] += at.keep;
                    expected[codes] = at.mask;
                    assert_close(course.name, row, &expected, 2e-15);
                }
            }
        }
    }
}

/// Evenly spaced numbers hit every outcome in proportion to its probability.
#[test]
fn noised_tokens_have_the_closed_form_marginals() {
    let (timesteps, codes, n) = (10, 4, 100_000);
    let uniform = (Tensor::arange(n, (Kind::Double, Device::Cpu)) + 0.5) / n as f64;
    for course in COURSES {
        let (schedule, chain) = (
            course.schedule(timesteps, codes),
            course.chain(timesteps, codes),
        );
        for t in -1..timesteps as i64 {
            let law = chain.between(-1, t);
            for (x_0, law) in law.iter().take(codes).enumerate() {
                let x_0s = Tensor::full([1, n], x_0 as i64, (Kind::Int64, Device::Cpu));
                let x_t = q_sample(&schedule, &x_0s, &[t], &uniform.unsqueeze(0));
                let counts = x_t
                    .flatten(0, 1)
                    .bincount(None::<&Tensor>, codes as i64 + 1);
                let found = floats(&(counts.to_kind(Kind::Double) / n as f64));
                let what = format!("{} x_{t} of {x_0}", course.name);
                assert_close(&what, &found, law, 2.0 / n as f64);
            }
        }
    }
}

/// Plans of times, T−1 first, clean last.
const PATHS: [&[i64]; 5] = [
    &[9, 8, 7, 6, 5, 4, 3, 2, 1, 0, -1],
    &[9, 6, 3, -1],
    &[9, 4, -1],
    &[9, 1, 0, -1],
    &[9, -1],
];

#[test]
fn known_start_is_conserved_along_every_plan() {
    let codes = 4;
    for course in COURSES {
        let schedule = course.schedule(10, codes);
        let chain = course.chain(10, codes);
        for path in PATHS {
            for x_0 in 0..codes {
                let p: Vec<f64> = identity(codes)[x_0].clone();
                let mut law = chain.between(-1, 9)[x_0].clone();
                for pair in path.windows(2) {
                    let kernel = Posterior::new(&schedule, pair[1], pair[0]);
                    let step: Matrix = (0..=codes).map(|x| two_stage(&kernel, x, &p)).collect();
                    law = product(&vec![law], &step).remove(0);
                    let expected = &chain.between(-1, pair[1])[x_0];
                    let what = format!("{} at {}", course.name, pair[1]);
                    assert_close(&what, &law, expected, course.rounding);
                }
            }
        }
    }
}

#[test]
fn true_posterior_is_conserved_along_every_plan() {
    let codes = 4;
    let data = [0.4, 0.3, 0.25, 0.05];
    for course in COURSES {
        let schedule = course.schedule(10, codes);
        let chain = course.chain(10, codes);
        let marginal = |t| {
            let mut law = product(
                &vec![data.to_vec()],
                &chain.between(-1, t)[..codes].to_vec(),
            );
            law.remove(0)
        };
        for path in PATHS {
            let mut law = marginal(9);
            for pair in path.windows(2) {
                let kernel = Posterior::new(&schedule, pair[1], pair[0]);
                let p = chain.bayes(pair[0], &data);
                let step: Matrix = (0..=codes).map(|x| two_stage(&kernel, x, &p[x])).collect();
                law = product(&vec![law], &step).remove(0);
                let what = format!("{} at {}", course.name, pair[1]);
                assert_close(&what, &law, &marginal(pair[1]), course.rounding);
            }
        }
    }
}
