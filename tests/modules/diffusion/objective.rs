//! The training objective against enumeration of the forward chain's matrices in f64,
//! and the laws of the training draws.

use tch::{Device, Kind, Tensor};
use vqdiffusion::diffusion::forward::q_sample;
use vqdiffusion::diffusion::objective::{Objective, ObjectiveConfig};
use vqdiffusion::diffusion::timesteps::{Duplicates, TimestepSampler};
use vqdiffusion::diffusion::{Schedule, Transition};

use crate::diffusion::paper;

const CODES: usize = 4;
const STEPS: usize = 7;

fn transitions() -> Vec<(&'static str, Transition)> {
    vec![
        ("released", Transition::released()),
        ("paper", paper()),
        (
            "mask only",
            Transition::MaskOnly {
                gamma: [0.01, 0.99],
            },
        ),
        (
            "uniform",
            Transition::Uniform {
                alpha: [0.98, 0.02],
            },
        ),
    ]
}

/// q(x_t = column | x_{t−1} = row) with the mask last.
fn one_step(schedule: &Schedule, t: i64) -> [[f64; CODES + 1]; CODES + 1] {
    let (now, then) = (schedule.at(t), schedule.at(t - 1));
    let keep = now.keep / then.keep;
    let mask = 1.0 - (1.0 - now.mask) / (1.0 - then.mask);
    let uniform = (1.0 - keep - mask).max(0.0) / CODES as f64;
    let uniform = if now.uniform > 0.0 { uniform } else { 0.0 };
    let mut q = [[0.0; CODES + 1]; CODES + 1];
    for (i, row) in q.iter_mut().enumerate().take(CODES) {
        row[..CODES].fill(uniform);
        row[i] += keep;
        row[CODES] = mask;
    }
    q[CODES][CODES] = 1.0;
    q
}

fn product(
    a: &[[f64; CODES + 1]; CODES + 1],
    b: &[[f64; CODES + 1]; CODES + 1],
) -> [[f64; CODES + 1]; CODES + 1] {
    let mut out = [[0.0; CODES + 1]; CODES + 1];
    for i in 0..=CODES {
        for j in 0..=CODES {
            out[i][j] = (0..=CODES).map(|k| a[i][k] * b[k][j]).sum();
        }
    }
    out
}

#[test]
fn terms_are_those_of_the_enumerated_posteriors() {
    let logits = [0.7, -0.3, 1.1, -1.4];
    let total: f64 = logits.iter().map(|l: &f64| l.exp()).sum();
    let p: Vec<f64> = logits.iter().map(|l| l.exp() / total).collect();
    let config = ObjectiveConfig {
        mask_weight: [0.75, 1.25],
        ..ObjectiveConfig::default()
    };
    for (name, transition) in transitions() {
        let schedule = Schedule::new(&transition, STEPS, CODES as i64);
        let objective = Objective::new(&config, &schedule, Device::Cpu);
        let mut before = [[0.0; CODES + 1]; CODES + 1];
        (0..=CODES).for_each(|i| before[i][i] = 1.0);
        for t in 0..STEPS {
            let step = one_step(&schedule, t as i64);
            let until = product(&before, &step);
            for x_0 in 0..CODES {
                for x_t in (0..=CODES).filter(|&x| until[x_0][x] > 1e-12) {
                    let posterior =
                        |k: usize, j: usize| before[k][j] * step[j][x_t] / until[k][x_t];
                    let (mut kl, mut model_at_x_0) = (0.0, 0.0);
                    for j in 0..=CODES {
                        let q = posterior(x_0, j);
                        let possible = (0..CODES).filter(|&k| until[k][x_t] > 0.0);
                        let model: f64 = possible.map(|k| p[k] * posterior(k, j)).sum();
                        // Without replacement a visible token is known to be x_0.
                        let certain = transition_is_mask_only(&transition) && x_t < CODES;
                        let model = if certain { q } else { model };
                        if q > 0.0 {
                            kl += q * (q / model).ln();
                        }
                        if j == x_0 {
                            model_at_x_0 = model;
                        }
                    }
                    let int = |x: usize| Tensor::from_slice(&[x as i64]).view([1, 1]);
                    let p_t = 0.25;
                    let terms = objective.terms(
                        &Tensor::from_slice(&logits.map(|l| l as f32)).view([1, 1, -1]),
                        &int(x_0),
                        &int(x_t),
                        &Tensor::from_slice(&[t as i64]),
                        &Tensor::from_slice(&[p_t as f32]),
                    );
                    let weight = if x_t == CODES { 0.75 } else { 1.25 };
                    let (kl, nll) = (kl * weight, -model_at_x_0.ln());
                    let auxiliary_kl = -p[x_0].ln() * weight;
                    let (main, auxiliary) = if t == 0 {
                        (nll, nll)
                    } else {
                        (kl, auxiliary_kl)
                    };
                    let lambda = 5e-4 * (2.0 - t as f64 / STEPS as f64);
                    for (what, ours, expected) in [
                        ("kl", &terms.kl, kl),
                        ("decoder", &terms.decoder_nll, nll),
                        ("auxiliary", &terms.auxiliary_kl, auxiliary_kl),
                        ("total", &terms.total, (main + lambda * auxiliary) / p_t),
                    ] {
                        let ours = ours.double_value(&[0]);
                        let bound = 3e-5 * (1.0 + expected.abs());
                        assert!(
                            (ours - expected).abs() < bound,
                            "{name}, t {t}, x_0 {x_0}, x_t {x_t}, {what}: {ours}, expected {expected}"
                        );
                    }
                }
            }
            before = until;
        }
    }
}

fn transition_is_mask_only(transition: &Transition) -> bool {
    matches!(transition, Transition::MaskOnly { .. })
}

/// Published values for K = 5 and one prediction at every position (released
/// schedule): Σ KL, decoder term and Σ −log p̂(x_0).
#[test]
fn released_schedule_gives_the_published_terms() {
    let schedule = Schedule::new(&Transition::released(), 100, 5);
    let objective = Objective::new(&ObjectiveConfig::default(), &schedule, Device::Cpu);
    let logits = Tensor::from_slice(&[1.0f32, 0.5, 0.0, -0.5, -1.0]).repeat([1, 4, 1]);
    let x_0 = Tensor::from_slice(&[0i64, 1, 2, 3]).view([1, 4]);
    let x_t = Tensor::from_slice(&[5i64, 1, 5, 2]).view([1, 4]);
    let one = Tensor::from_slice(&[1f32]);
    for (t, kl, nll) in [
        (0i64, 6.388407, 6.388407),
        (49, 0.112531, 16.771440),
        (99, 3.711121, 15.576920),
    ] {
        let terms = objective.terms(&logits, &x_0, &x_t, &Tensor::from_slice(&[t]), &one);
        let near = |x: &Tensor, y: f64| (x.double_value(&[0]) - y).abs() < 1e-5 * y.max(1.0);
        assert!(near(&terms.kl, kl), "t {t}: {:?}", terms.kl);
        assert!(
            near(&terms.decoder_nll, nll),
            "t {t}: {:?}",
            terms.decoder_nll
        );
        assert!(near(&terms.auxiliary_kl, 6.388407), "t {t}");
    }
}

/// Evenly spaced numbers in place of random ones give each outcome its probability,
/// at a time of its own for every image.
#[test]
fn corruption_has_the_law_of_the_schedule() {
    let count = 100_000;
    for (name, transition) in transitions() {
        let schedule = Schedule::new(&transition, STEPS, CODES as i64);
        let times: Vec<i64> = (0..STEPS as i64).rev().collect();
        let uniform = (Tensor::arange(count, (Kind::Double, Device::Cpu)) + 0.5) / count as f64;
        let uniform = uniform.expand([STEPS as i64, count], false);
        let x_0 = uniform.zeros_like().to_kind(Kind::Int64) + 2;
        let x_t = q_sample(&schedule, &x_0, &times, &uniform);
        for (row, &t) in times.iter().enumerate() {
            let at = schedule.at(t);
            for code in 0..=CODES as i64 {
                let drawn = x_t.get(row as i64).eq(code).to_kind(Kind::Double);
                let share = drawn.mean(Kind::Double).double_value(&[]);
                let expected = match code {
                    4 => at.mask,
                    2 => at.keep + at.uniform / CODES as f64,
                    _ => at.uniform / CODES as f64,
                };
                let off = (share - expected).abs();
                assert!(
                    off <= 2.0 / count as f64,
                    "{name}, t {t}, code {code}: off by {off}"
                );
            }
        }
    }
}

#[test]
fn times_are_drawn_by_the_loss_history() {
    let mut times = TimestepSampler::new(4, Duplicates::Mean);
    assert_eq!(times.probabilities(), vec![0.25; 4]);
    for _ in 0..11 {
        times.update(&[0, 1, 2, 3], &[8.0, 1.0, 2.0, 3.0]);
    }
    let p = times.probabilities();
    // The decoder term of t = 0 takes the weight of t = 1; the others follow the loss.
    assert_eq!(p[0], p[1]);
    assert!(
        (p[2] / p[1] - 2.0).abs() < 1e-3 && (p[3] / p[1] - 3.0).abs() < 1e-3,
        "{p:?}"
    );
    assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    let draws = 100_000;
    let u: Vec<f64> = (0..draws)
        .map(|i| (i as f64 + 0.5) / draws as f64)
        .collect();
    let (t, p_t) = times.draw(&u);
    for (time, &p) in p.iter().enumerate() {
        let count = t.iter().filter(|&&t| t == time as i64).count();
        assert!((count as f64 / draws as f64 - p).abs() < 2.0 / draws as f64);
    }
    assert!(t.iter().zip(&p_t).all(|(&t, &p_t)| p_t == p[t as usize]));
}

#[test]
fn a_repeated_time_leaves_its_mean_or_its_last_loss() {
    for (duplicates, expected) in [(Duplicates::Mean, 5.0), (Duplicates::Last, 9.0)] {
        let mut times = TimestepSampler::new(3, duplicates);
        times.update(&[1, 1], &[1.0, 3.0]);
        assert!((times.history[1] - 0.1 * expected).abs() < 1e-12);
        assert_eq!(times.count, vec![0.0, 2.0, 0.0]);
    }
}
