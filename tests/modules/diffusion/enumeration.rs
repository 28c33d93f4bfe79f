//! The law of the process by exact enumeration: explicit (K + 1) × (K + 1) transition
//! matrices in f64, multiplied and inverted by Bayes' rule; sampled histograms by
//! chi-square tests at significance 1e-4 with fixed seeds.

use std::ops::ControlFlow;

use tch::{Device, Kind, Tensor};
use vqdiffusion::diffusion::guidance::Prediction;
use vqdiffusion::diffusion::posterior::{Choice, Posterior};
use vqdiffusion::diffusion::sampler::{
    sample, start, PlannedStep, Progress, Query, SamplerError, Stopped,
};
use vqdiffusion::diffusion::truncation::Truncation;
use vqdiffusion::diffusion::{
    HostNoise, RevealOrder, ReverseRule, SamplerConfig, SamplingPlan, Schedule, Times, Transition,
};

/// Row: state before, column: state after; the mask is the last state.
pub type Matrix = Vec<Vec<f64>>;

pub fn product(x: &Matrix, y: &Matrix) -> Matrix {
    let n = y[0].len();
    x.iter()
        .map(|row| {
            (0..n)
                .map(|j| row.iter().zip(y).map(|(&p, next)| p * next[j]).sum())
                .collect()
        })
        .collect()
}

pub fn identity(n: usize) -> Matrix {
    let unit = |i| (0..n).map(|j| f64::from(u8::from(i == j))).collect();
    (0..n).map(unit).collect()
}

/// A schedule as two lines, from which its one-step matrices are written out.
#[derive(Clone, Copy)]
pub struct Course {
    pub name: &'static str,
    pub alpha: [f64; 2],
    pub gamma: [f64; 2],
    /// Largest error of the two-stage law that rounding explains: where b_t is the
    /// small difference 1 − a − c, its absolute error 1e-16 is divided by b̄.
    pub rounding: f64,
}

pub const RELEASED: Course = Course {
    name: "released",
    alpha: [0.99999, 0.000009],
    gamma: [0.000009, 0.99999],
    rounding: 2e-10,
};

pub const PAPER: Course = Course {
    name: "paper",
    alpha: [0.99999, 0.000009],
    gamma: [0.000009, 0.9],
    rounding: 2e-11,
};

pub const MASKS: Course = Course {
    name: "mask-only",
    alpha: [0.99, 0.0001],
    gamma: [0.01, 0.9999],
    rounding: 1e-14,
};

pub const UNIFORM: Course = Course {
    name: "uniform",
    alpha: [0.99, 0.0001],
    gamma: [0.0, 0.0],
    rounding: 1e-14,
};

/// Much of everything at every time, for sampled tests.
pub const STRONG: Course = Course {
    name: "strong",
    alpha: [0.85, 0.0],
    gamma: [0.05, 0.6],
    rounding: 1e-14,
};

pub const COURSES: [Course; 5] = [RELEASED, PAPER, MASKS, UNIFORM, STRONG];

impl Course {
    pub fn transition(self) -> Transition {
        let Course { alpha, gamma, .. } = self;
        match self.name {
            "mask-only" => Transition::MaskOnly { gamma },
            "uniform" => Transition::Uniform { alpha },
            _ => Transition::MaskAndReplace { alpha, gamma },
        }
    }

    pub fn schedule(self, timesteps: usize, codes: usize) -> Schedule {
        Schedule::new(&self.transition(), timesteps, codes as i64)
    }

    pub fn chain(self, timesteps: usize, codes: usize) -> Chain {
        let line = |[first, last]: [f64; 2], t: usize| {
            first + t as f64 / (timesteps - 1) as f64 * (last - first)
        };
        let (mut keep, mut mask) = (1.0, 0.0);
        let mut steps = Vec::new();
        for t in 0..timesteps {
            let (next_keep, next_mask) = (line(self.alpha, t), line(self.gamma, t));
            let a = next_keep / keep;
            let c = 1.0 - (1.0 - next_mask) / (1.0 - mask);
            let b = match self.name {
                "mask-only" => 0.0,
                _ => (1.0 - a - c) / codes as f64,
            };
            let mut matrix = vec![vec![b; codes + 1]; codes + 1];
            for (i, row) in matrix.iter_mut().enumerate() {
                row[codes] = c;
                if i == codes {
                    row.fill(0.0);
                    row[codes] = 1.0;
                } else {
                    row[i] += a;
                }
            }
            steps.push(matrix);
            (keep, mask) = (next_keep, next_mask);
        }
        Chain { steps, codes }
    }
}

pub struct Chain {
    pub steps: Vec<Matrix>,
    pub codes: usize,
}

impl Chain {
    /// q(x_t | x_s) by multiplying the one-step matrices s + 1…t; s = −1 is clean.
    pub fn between(&self, s: i64, t: i64) -> Matrix {
        let range = (s + 1) as usize..(t + 1) as usize;
        self.steps[range]
            .iter()
            .fold(identity(self.codes + 1), |p, q| product(&p, q))
    }

    /// p(x_T): γ̄ for the mask, β̄ for each code, up to ᾱ.
    pub fn prior(&self) -> Vec<f64> {
        let last = self.between(-1, self.steps.len() as i64 - 1)[0].clone();
        let mut law = vec![last[1]; self.codes];
        law.push(last[self.codes]);
        normalised(law)
    }

    /// q(x_s | x_t, x_0) by Bayes' rule; `None` if x_t cannot come of x_0.
    pub fn reverse(&self, s: i64, t: i64, x_t: usize, x_0: usize) -> Option<Vec<f64>> {
        let (to_s, s_to_t) = (self.between(-1, s), self.between(s, t));
        let joint: Vec<f64> = (0..=self.codes)
            .map(|x_s| to_s[x_0][x_s] * s_to_t[x_s][x_t])
            .collect();
        let total = self.between(-1, t)[x_0][x_t];
        (total > 0.0).then(|| joint.iter().map(|p| p / total).collect())
    }

    /// p(x_s | x_t) = Σ_k p_k q(x_s | x_t, x_0 = k). A token that x_0 = k cannot
    /// have led to (mask-only) stays.
    pub fn mixture(&self, s: i64, t: i64, x_t: usize, p: &[f64]) -> Vec<f64> {
        let mut law = vec![0.0; self.codes + 1];
        for (k, p) in p.iter().enumerate() {
            let reverse = self
                .reverse(s, t, x_t, k)
                .unwrap_or_else(|| identity(self.codes + 1)[x_t].clone());
            for (sum, q) in law.iter_mut().zip(reverse) {
                *sum += p * q;
            }
        }
        law
    }

    /// p(x_0 | x_t) if x_0 ~ `data`: `[K + 1][K]`, uniform where x_t is impossible.
    pub fn bayes(&self, t: i64, data: &[f64]) -> Matrix {
        let q = self.between(-1, t);
        (0..=self.codes)
            .map(|x_t| normalised((0..self.codes).map(|k| data[k] * q[k][x_t]).collect()))
            .collect()
    }
}

pub fn normalised(mut weights: Vec<f64>) -> Vec<f64> {
    let total: f64 = weights.iter().sum();
    if total == 0.0 {
        weights.fill(1.0);
    }
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / total).collect()
}

/// The law of x_s by the kernel's three numbers, x̂_0 ~ p.
pub fn two_stage(kernel: &Posterior, x_t: usize, p: &[f64]) -> Vec<f64> {
    let codes = p.len();
    let mut law = vec![0.0; codes + 1];
    for (start, &p) in p.iter().enumerate() {
        let Choice {
            stay,
            take,
            uniform,
        } = if x_t == codes {
            kernel.masked
        } else if x_t == start {
            kernel.agrees
        } else {
            kernel.differs
        };
        law[x_t] += p * stay;
        law[start] += p * take;
        for code in &mut law[..codes] {
            *code += p * uniform / codes as f64;
        }
    }
    law
}

/// SplitMix64 (Steele, Lea, Flood 2014), as numbers in (0, 1).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 + 1e-17
    }

    /// Dirichlet(1, …, 1).
    pub fn simplex(&mut self, n: usize) -> Vec<f64> {
        normalised((0..n).map(|_| -self.next().ln()).collect())
    }
}

pub fn largest_difference(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len());
    x.iter()
        .zip(y)
        .map(|(x, y)| (x - y).abs())
        .fold(0.0, |a, d| if d.is_nan() { d } else { a.max(d) })
}

pub fn assert_close(what: &str, x: &[f64], y: &[f64], tolerance: f64) {
    let difference = largest_difference(x, y);
    assert!(
        difference <= tolerance,
        "{what}: {difference:e} apart (allowed {tolerance:e})\n{x:?}\n{y:?}"
    );
}

/// Quantiles 1 − 1e-4 of chi-square by degrees of freedom 1, 2, ….
pub const CRITICAL: [f64; 15] = [
    15.1367, 18.4207, 21.1075, 23.5127, 25.7448, 27.8563, 29.8775, 31.8276, 33.7199, 35.5640,
    37.3670, 39.1344, 40.8707, 42.5793, 44.2632,
];

pub const CRITICAL_99: f64 = 160.0557;

/// The histogram of `outcomes` fits `law` with this many degrees of freedom (cells
/// of positive probability less one); cells of probability 0 are empty.
pub fn assert_fits(what: &str, outcomes: &[i64], law: &[f64], degrees: usize) {
    let mut counts = vec![0usize; law.len()];
    for &outcome in outcomes {
        counts[outcome as usize] += 1;
    }
    let n = outcomes.len() as f64;
    let (mut statistic, mut cells) = (0.0, 0);
    for (cell, (&count, &p)) in counts.iter().zip(law).enumerate() {
        if p < 1e-13 {
            assert_eq!(count, 0, "{what}: cell {cell} has probability 0");
        } else {
            assert!(n * p >= 5.0, "{what}: cell {cell} expects {}", n * p);
            statistic += (count as f64 - n * p).powi(2) / (n * p);
            cells += 1;
        }
    }
    assert_eq!(cells - 1, degrees, "{what}: degrees of freedom");
    let critical = match degrees {
        0 => return,
        99 => CRITICAL_99,
        _ => CRITICAL[degrees - 1],
    };
    assert!(
        statistic < critical,
        "{what}: chi-square {statistic:.2} with {degrees} degrees of freedom\n{counts:?}\n{:?}",
        law.iter().map(|p| n * p).collect::<Vec<_>>()
    );
}

pub fn integers(x: &Tensor) -> Vec<i64> {
    Vec::try_from(x.flatten(0, -1).to_device(Device::Cpu)).unwrap()
}

pub fn floats(x: &Tensor) -> Vec<f64> {
    Vec::try_from(x.flatten(0, -1).to_kind(Kind::Double)).unwrap()
}

pub fn rows(table: &Matrix) -> Tensor {
    let width = table[0].len() as i64;
    Tensor::from_slice(&table.concat()).view([-1, width])
}

/// `index` in base `base`, most significant first.
pub fn digits(mut index: usize, base: usize, length: usize) -> Vec<usize> {
    let mut digits = vec![0; length];
    for digit in digits.iter_mut().rev() {
        *digit = index % base;
        index /= base;
    }
    digits
}

pub fn seeds(first: u64, count: u64) -> Vec<u64> {
    (first..first + count).collect()
}

pub fn config(rule: ReverseRule, steps: usize) -> SamplerConfig {
    SamplerConfig {
        steps,
        times: Times::Even,
        order: RevealOrder::Independent,
        guidance: 1.0,
        guidance_span: None,
        local_steps: 0,
        truncation: Truncation::Off,
        revealing: None,
        rule,
    }
}

/// log p(x_0 at position l | x_t) for each time and each x_t of L positions:
/// `tables[t]` `[(K + 1)^L, L, K]`.
pub struct Oracle {
    pub tables: Vec<Tensor>,
    pub states: i64,
}

impl Oracle {
    /// Exact posteriors of `data`, a law over the K^L token rows (first position
    /// slowest).
    pub fn new(chain: &Chain, length: usize, data: &[f64]) -> Self {
        let (codes, states) = (chain.codes, chain.codes + 1);
        let tables = (0..chain.steps.len() as i64)
            .map(|t| {
                let q = chain.between(-1, t);
                let mut table = Matrix::new();
                for x in 0..states.pow(length as u32) {
                    let x = digits(x, states, length);
                    let mut marginals = vec![vec![0.0; codes]; length];
                    for (y, weight) in data.iter().enumerate() {
                        let y = digits(y, codes, length);
                        let p: f64 = y.iter().zip(&x).map(|(&y, &x)| q[y][x]).product();
                        for (position, &y) in y.iter().enumerate() {
                            marginals[position][y] += weight * p;
                        }
                    }
                    table.extend(marginals.into_iter().map(normalised));
                }
                let shape = [-1, length as i64, codes as i64];
                rows(&table).log().to_kind(Kind::Float).view(shape)
            })
            .collect();
        Oracle {
            tables,
            states: states as i64,
        }
    }

    /// Logits at `positions` `[B, A]` of `x` `[B, L]`: `[B, A, K]`.
    pub fn logits(&self, query: &Query) -> Tensor {
        let Query {
            x_t: x,
            t,
            positions,
            ..
        } = query;
        let length = x.size()[1];
        let mut index = Tensor::zeros([x.size()[0]], (Kind::Int64, Device::Cpu));
        for position in 0..length {
            index = index * self.states + x.select(1, position);
        }
        let logits = self.tables[t.int64_value(&[0]) as usize].index_select(0, &index);
        match positions {
            None => logits,
            Some(at) => {
                let codes = self.states - 1;
                logits.gather(1, &at.unsqueeze(-1).expand([-1, -1, codes], false), false)
            }
        }
    }

    pub fn p(&self, t: i64, x: usize, position: usize) -> Vec<f64> {
        let row = self.tables[t as usize].get(x as i64).get(position as i64);
        floats(&row.to_kind(Kind::Double).exp())
    }
}

/// Strongly dependent tokens.
pub const PAIRS: [f64; 9] = [0.25, 0.02, 0.03, 0.05, 0.2, 0.05, 0.1, 0.05, 0.25];

pub const OTHER_PAIRS: [f64; 9] = [0.1, 0.1, 0.2, 0.1, 0.05, 0.15, 0.05, 0.15, 0.1];

pub fn pair_index(tokens: &Tensor) -> Vec<i64> {
    integers(&(tokens.select(1, 0) * 3 + tokens.select(1, 1)))
}

/// What the run of `plan` with the oracle as its network ends in.
pub fn tokens_of(plan: &SamplingPlan, oracle: &Oracle, seeds: &[u64]) -> Tensor {
    let mut noise = HostNoise::new(seeds);
    let x = start(plan, seeds.len() as i64, &mut noise);
    let mut denoise = |query: Query| Prediction {
        conditional: oracle.logits(&query),
        unconditional: None,
    };
    finished(sample(plan, x, &mut denoise, &mut noise, &mut unobserved))
}

/// An observer that lets every run go on.
pub fn unobserved(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The tokens of a run that nobody stopped.
pub fn finished(tokens: Result<Tensor, Stopped>) -> Tensor {
    tokens.expect("nobody stops this run")
}

/// The steps of a run of `steps` by `rule` over `timesteps` times.
pub fn steps(
    rule: ReverseRule,
    steps: usize,
    timesteps: usize,
) -> Result<Vec<PlannedStep>, SamplerError> {
    let schedule = RELEASED.schedule(timesteps, 3);
    let plan = config(rule, steps).plan(&schedule, [1, 1])?;
    Ok(plan.steps().to_vec())
}

pub const BELOW_ONE: f64 = 1.0 - f64::EPSILON / 2.0;

/// p with the codes that a truncation drops set to 0, by the definition: a code
/// stays under top-p iff the strictly likelier ones weigh less than the rate, under
/// top-k iff fewer than k are strictly likelier.
pub fn truncated(p: &[f64], truncation: Truncation) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&i, &j| p[j].total_cmp(&p[i]));
    let mut kept = vec![0.0; p.len()];
    for &code in &order {
        let likelier = order.iter().filter(|&&other| p[other] > p[code]);
        let stays = match truncation {
            Truncation::Off => true,
            Truncation::TopP(rate) => likelier.map(|&k| p[k]).sum::<f64>() < rate,
            Truncation::TopK(k) => (likelier.count() as i64) < k,
        };
        if stays {
            kept[code] = p[code];
        }
    }
    kept
}

/// The law of x_0 over K^L rows when each step redraws the positions independently
/// from the mixture of posteriors: `steps` of (network, from, to) over the
/// (K + 1)^L states, starting from `start[l]` at position l. Positions that are `kept`
/// stay.
pub fn sampler_law(
    chain: &Chain,
    steps: &[(i64, i64, i64)],
    start: &[Vec<f64>],
    kept: &[bool],
    p: &dyn Fn(i64, usize, usize) -> Vec<f64>,
) -> Vec<f64> {
    let length = start.len();
    let states = chain.codes + 1;
    let size = states.pow(length as u32);
    let mut law: Vec<f64> = (0..size)
        .map(|x| {
            let digits = digits(x, states, length);
            digits.iter().zip(start).map(|(&x, law)| law[x]).product()
        })
        .collect();
    for &(network, from, to) in steps {
        let mut next = vec![0.0; size];
        for (x, &weight) in law.iter().enumerate() {
            if weight == 0.0 {
                continue;
            }
            let each: Matrix = digits(x, states, length)
                .iter()
                .enumerate()
                .map(|(position, &x_t)| match kept[position] {
                    true => identity(states)[x_t].clone(),
                    false => chain.mixture(to, from, x_t, &p(network, x, position)),
                })
                .collect();
            for (y, sum) in next.iter_mut().enumerate() {
                let y = digits(y, states, length);
                *sum += weight * y.iter().zip(&each).map(|(&y, law)| law[y]).product::<f64>();
            }
        }
        law = next;
    }
    (0..chain.codes.pow(length as u32))
        .map(|y| {
            let y = digits(y, chain.codes, length);
            law[y.iter().fold(0, |index, &y| index * states + y)]
        })
        .collect()
}
