//! The variational bound of a hand-made model, K = 3 codes and L = 2 tokens, against
//! enumeration of every state.

use tch::{Kind, Tensor};
use vqdiffusion::diffusion::{Schedule, Transition};
use vqdiffusion::evaluate::bound::Bound;

const K: usize = 3;
const T: usize = 4;
/// States of a token: the codes, and the mask.
const STATES: usize = K + 1;

/// ᾱ, Kβ̄ and γ̄ behind time t; −1 is clean.
fn cumulative(t: i64) -> [f64; 3] {
    let line = |from: f64, to: f64| from + (to - from) * t as f64 / (T - 1) as f64;
    match t {
        -1 => [1.0, 0.0, 0.0],
        _ => {
            let (keep, mask) = (line(0.9, 0.1), line(0.05, 0.75));
            [keep, 1.0 - keep - mask, mask]
        }
    }
}

/// Column x_0 of the matrix Q̄_t: the probability of each state.
fn from_start(t: i64, x_0: usize) -> [f64; STATES] {
    let [keep, uniform, mask] = cumulative(t);
    let mut column = [uniform / K as f64; STATES];
    column[x_0] += keep;
    column[K] = mask;
    column
}

/// Q_t[x_t][x_{t−1}], the step whose product the cumulative ones are.
fn step(t: i64) -> [[f64; STATES]; STATES] {
    let ([keep_then, uniform_then, mask_then], [keep, uniform, mask]) =
        (cumulative(t - 1), cumulative(t));
    let a = keep / keep_then;
    let c = 1.0 - (1.0 - mask) / (1.0 - mask_then);
    let b = (uniform - a * uniform_then) / (1.0 - mask_then) / K as f64;
    let mut q = [[0.0; STATES]; STATES];
    for from in 0..K {
        for row in q.iter_mut().take(K) {
            row[from] = b;
        }
        q[from][from] += a;
        q[K][from] = c;
    }
    q[K][K] = 1.0;
    q
}

/// q(x_{t−1} | x_t, x_0) by Bayes' rule, where x_t can come from x_0.
fn posterior(t: i64, x_t: usize, x_0: usize) -> [f64; STATES] {
    let (q, before) = (step(t), from_start(t - 1, x_0));
    let joint: [f64; STATES] = std::array::from_fn(|x| q[x_t][x] * before[x]);
    let sum: f64 = joint.iter().sum();
    joint.map(|p| p / sum)
}

/// Logits of both tokens, from both noisy tokens and the time.
fn logits(x_t: [usize; 2], t: i64) -> [[f64; K]; 2] {
    std::array::from_fn(|token| {
        std::array::from_fn(|code| {
            let mixed = 1.0 + token as f64 + 2.0 * code as f64 + 0.7 * x_t[0] as f64;
            1.5 * (mixed * 1.3 - 0.9 * x_t[1] as f64 + 0.4 * t as f64).sin()
        })
    })
}

fn softmax(logits: [f64; K]) -> [f64; K] {
    let sum: f64 = logits.iter().map(|x| x.exp()).sum();
    logits.map(|x| x.exp() / sum)
}

/// p_θ(x_{t−1} | x_t) of each token (eq. 11).
fn model(x_t: [usize; 2], t: i64) -> [[f64; STATES]; 2] {
    let logits = logits(x_t, t);
    std::array::from_fn(|token| {
        let p = softmax(logits[token]);
        let mut mixed = [0.0; STATES];
        for (x_0, p) in p.into_iter().enumerate() {
            let q = posterior(t, x_t[token], x_0);
            mixed.iter_mut().zip(q).for_each(|(sum, q)| *sum += p * q);
        }
        mixed
    })
}

fn pairs(states: usize) -> impl Iterator<Item = [usize; 2]> {
    (0..states * states).map(move |i| [i / states, i % states])
}

/// L_{t} by eq. 9 for every x_t, with its probability.
fn terms(t: i64, x_0: [usize; 2]) -> Vec<([usize; 2], f64, f64)> {
    let chance = |x_t: [usize; 2]| from_start(t, x_0[0])[x_t[0]] * from_start(t, x_0[1])[x_t[1]];
    let term = |x_t: [usize; 2]| {
        let p = model(x_t, t);
        (0..2)
            .map(|token| match t {
                0 => -p[token][x_0[token]].ln(),
                _ => {
                    let q = posterior(t, x_t[token], x_0[token]);
                    let parts = q.into_iter().zip(p[token]);
                    parts
                        .filter(|(q, _)| *q > 0.0)
                        .map(|(q, p)| q * (q / p).ln())
                        .sum()
                }
            })
            .sum::<f64>()
    };
    pairs(STATES)
        .map(|x_t| (x_t, chance(x_t), term(x_t)))
        .collect()
}

/// p(x_T): the mask, or any code alike, in the proportion of Kβ̄ and γ̄.
fn prior(x: usize) -> f64 {
    let [_, uniform, mask] = cumulative(T as i64 - 1);
    match x {
        K => mask / (uniform + mask),
        _ => uniform / (uniform + mask) / K as f64,
    }
}

/// −log p_θ(x_0), by following every chain.
fn surprise(x_0: [usize; 2]) -> f64 {
    let mut p: Vec<f64> = pairs(STATES).map(|[a, b]| prior(a) * prior(b)).collect();
    for t in (0..T as i64).rev() {
        let mut next = vec![0.0; STATES * STATES];
        for (from, x_t) in pairs(STATES).enumerate() {
            let step = model(x_t, t);
            for (to, [a, b]) in pairs(STATES).enumerate() {
                next[to] += p[from] * step[0][a] * step[1][b];
            }
        }
        p = next;
    }
    -p[x_0[0] * STATES + x_0[1]].ln()
}

fn schedule() -> Schedule {
    let transition = Transition::MaskAndReplace {
        alpha: [0.9, 0.1],
        gamma: [0.05, 0.75],
    };
    Schedule::new(&transition, T, K as i64)
}

fn tokens(x: [usize; 2]) -> Tensor {
    Tensor::from_slice(&[x[0] as i64, x[1] as i64]).view([1, 2])
}

fn as_tensor(logits: [[f64; K]; 2]) -> Tensor {
    let flat: Vec<f64> = logits.into_iter().flatten().collect();
    Tensor::from_slice(&flat)
        .view([1, 2, K as i64])
        .to_kind(Kind::Float)
}

#[test]
fn the_bound_equals_the_enumerated_one() {
    let schedule = schedule();
    let bound = Bound::new(&schedule, tch::Device::Cpu);
    for x_0 in pairs(K) {
        let q: f64 = (0..2)
            .map(|token| {
                let q = from_start(T as i64 - 1, x_0[token]);
                q.into_iter()
                    .enumerate()
                    .map(|(x, q)| q * (q / prior(x)).ln())
                    .sum::<f64>()
            })
            .sum();
        assert!(
            (q - 2.0 * bound.prior()).abs() < 1e-12,
            "{q} {}",
            bound.prior()
        );
        let (mut enumerated, mut ours) = (q, 2.0 * bound.prior());
        for t in 0..T as i64 {
            for (x_t, chance, term) in terms(t, x_0) {
                enumerated += chance * term;
                let time = Tensor::from_slice(&[t]);
                let logits = as_tensor(logits(x_t, t));
                let found = bound.terms(&logits, &tokens(x_0), &tokens(x_t), &time);
                let found = found.double_value(&[0]);
                assert!(
                    chance == 0.0 || (found - term).abs() < 1e-5,
                    "{x_0:?} {x_t:?} {t}: {found} {term}"
                );
                ours += chance * found;
            }
        }
        assert!((ours - enumerated).abs() < 1e-5, "{ours} {enumerated}");
        // It bounds what it bounds.
        assert!(enumerated > surprise(x_0), "{enumerated} {}", surprise(x_0));
    }
}

/// Times and noise are drawn so that the mean of estimates is the bound, in each quarter.
#[test]
fn estimates_are_without_bias() {
    let schedule = schedule();
    let bound = Bound::new(&schedule, tch::Device::Cpu);
    let x_0 = [2, 0];
    let mut denoise = |x_t: &Tensor, t: &Tensor| {
        let at = |token: i64| x_t.int64_value(&[0, token]) as usize;
        as_tensor(logits([at(0), at(1)], t.int64_value(&[0])))
    };
    const COUNT: usize = 400;
    let estimates: Vec<[f64; 4]> = (0..COUNT as u64)
        .map(|index| {
            bound
                .estimate(&tokens(x_0), 1, 7, index, &mut denoise)
                .quarters
        })
        .collect();
    for quarter in 0..4 {
        // T = 4: a quarter is one time.
        let expected: f64 = terms(quarter as i64, x_0)
            .iter()
            .map(|(_, p, term)| p * term)
            .sum();
        let values: Vec<f64> = estimates.iter().map(|e| e[quarter]).collect();
        let mean = values.iter().sum::<f64>() / COUNT as f64;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let error = (squares / (COUNT * COUNT) as f64).sqrt();
        assert!(
            (mean - expected).abs() < 4.0 * error,
            "{quarter}: {mean} {expected} {error}"
        );
    }
}
