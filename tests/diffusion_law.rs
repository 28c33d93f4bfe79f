//! The law of the reverse process against exact enumeration: explicit
//! (K + 1) × (K + 1) transition matrices in f64, multiplied and inverted by Bayes'
//! rule; sampled histograms by chi-square tests at significance 1e-4 with fixed
//! seeds.

use std::collections::HashMap;

use tch::{Device, Kind, Tensor};
use vqdiffusion::diffusion::exact::{inverse_cdf, reverse_step, Activity, StepNoise};
use vqdiffusion::diffusion::forward::q_sample;
use vqdiffusion::diffusion::guidance::Prediction;
use vqdiffusion::diffusion::kernel::{Choice, ReverseKernel};
use vqdiffusion::diffusion::noise::Draw;
use vqdiffusion::diffusion::plan::plan;
use vqdiffusion::diffusion::posterior::{
    diffusers_guidance, diffusers_truncation, gumbel_argmax, log_prediction, official_guidance,
    official_truncation, LogSchedule,
};
use vqdiffusion::diffusion::purity::Revealing;
use vqdiffusion::diffusion::sampler::SamplerError;
use vqdiffusion::diffusion::truncation::Truncation;
use vqdiffusion::diffusion::{
    HostNoise, Noise, ReverseRule, Sampler, SamplerConfig, Schedule, Transition,
};

// ---------------------------------------------------------------- enumeration

/// Row: state before, column: state after; the mask is the last state.
type Matrix = Vec<Vec<f64>>;

fn product(x: &Matrix, y: &Matrix) -> Matrix {
    let n = y[0].len();
    x.iter()
        .map(|row| {
            (0..n)
                .map(|j| row.iter().zip(y).map(|(&p, next)| p * next[j]).sum())
                .collect()
        })
        .collect()
}

fn identity(n: usize) -> Matrix {
    let unit = |i| (0..n).map(|j| f64::from(u8::from(i == j))).collect();
    (0..n).map(unit).collect()
}

/// A schedule as two lines, from which its one-step matrices are written out.
#[derive(Clone, Copy)]
struct Course {
    name: &'static str,
    alpha: [f64; 2],
    gamma: [f64; 2],
    /// Largest error of the two-stage law that rounding explains: where b_t is the
    /// small difference 1 − a − c, its absolute error 1e-16 is divided by b̄.
    rounding: f64,
}

const RELEASED: Course = Course {
    name: "released",
    alpha: [0.99999, 0.000009],
    gamma: [0.000009, 0.99999],
    rounding: 2e-10,
};
const PAPER: Course = Course {
    name: "paper",
    alpha: [0.99999, 0.000009],
    gamma: [0.000009, 0.9],
    rounding: 2e-11,
};
const MASKS: Course = Course {
    name: "mask-only",
    alpha: [0.99, 0.0001],
    gamma: [0.01, 0.9999],
    rounding: 1e-14,
};
const UNIFORM: Course = Course {
    name: "uniform",
    alpha: [0.99, 0.0001],
    gamma: [0.0, 0.0],
    rounding: 1e-14,
};
/// Much of everything at every time, for sampled tests.
const STRONG: Course = Course {
    name: "strong",
    alpha: [0.85, 0.0],
    gamma: [0.05, 0.6],
    rounding: 1e-14,
};
const COURSES: [Course; 5] = [RELEASED, PAPER, MASKS, UNIFORM, STRONG];

impl Course {
    fn transition(self) -> Transition {
        let Course { alpha, gamma, .. } = self;
        match self.name {
            "mask-only" => Transition::MaskOnly { gamma },
            "uniform" => Transition::Uniform { alpha },
            _ => Transition::MaskAndReplace { alpha, gamma },
        }
    }

    fn schedule(self, timesteps: usize, codes: usize) -> Schedule {
        Schedule::new(&self.transition(), timesteps, codes as i64)
    }

    fn chain(self, timesteps: usize, codes: usize) -> Chain {
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

struct Chain {
    steps: Vec<Matrix>,
    codes: usize,
}

impl Chain {
    /// q(x_t | x_s) by multiplying the one-step matrices s + 1…t; s = −1 is clean.
    fn between(&self, s: i64, t: i64) -> Matrix {
        let range = (s + 1) as usize..(t + 1) as usize;
        self.steps[range]
            .iter()
            .fold(identity(self.codes + 1), |p, q| product(&p, q))
    }

    /// q(x_s | x_t, x_0) by Bayes' rule; `None` if x_t cannot come of x_0.
    fn reverse(&self, s: i64, t: i64, x_t: usize, x_0: usize) -> Option<Vec<f64>> {
        let (to_s, s_to_t) = (self.between(-1, s), self.between(s, t));
        let joint: Vec<f64> = (0..=self.codes)
            .map(|x_s| to_s[x_0][x_s] * s_to_t[x_s][x_t])
            .collect();
        let total = self.between(-1, t)[x_0][x_t];
        (total > 0.0).then(|| joint.iter().map(|p| p / total).collect())
    }

    /// p(x_s | x_t) = Σ_k p_k q(x_s | x_t, x_0 = k). A token that x_0 = k cannot
    /// have led to (mask-only) stays.
    fn mixture(&self, s: i64, t: i64, x_t: usize, p: &[f64]) -> Vec<f64> {
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
    fn bayes(&self, t: i64, data: &[f64]) -> Matrix {
        let q = self.between(-1, t);
        (0..=self.codes)
            .map(|x_t| normalised((0..self.codes).map(|k| data[k] * q[k][x_t]).collect()))
            .collect()
    }
}

fn normalised(mut weights: Vec<f64>) -> Vec<f64> {
    let total: f64 = weights.iter().sum();
    if total == 0.0 {
        weights.fill(1.0);
    }
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / total).collect()
}

/// The law of x_s by the kernel's three numbers, x̂_0 ~ p.
fn two_stage(kernel: &ReverseKernel, x_t: usize, p: &[f64]) -> Vec<f64> {
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
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 + 1e-17
    }

    /// Dirichlet(1, …, 1).
    fn simplex(&mut self, n: usize) -> Vec<f64> {
        normalised((0..n).map(|_| -self.next().ln()).collect())
    }
}

fn largest_difference(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len());
    x.iter()
        .zip(y)
        .map(|(x, y)| (x - y).abs())
        .fold(0.0, |a, d| if d.is_nan() { d } else { a.max(d) })
}

fn assert_close(what: &str, x: &[f64], y: &[f64], tolerance: f64) {
    let difference = largest_difference(x, y);
    assert!(
        difference <= tolerance,
        "{what}: {difference:e} apart (allowed {tolerance:e})\n{x:?}\n{y:?}"
    );
}

// ------------------------------------------------------------------ chi-square

/// Quantiles 1 − 1e-4 of chi-square by degrees of freedom 1, 2, ….
const CRITICAL: [f64; 15] = [
    15.1367, 18.4207, 21.1075, 23.5127, 25.7448, 27.8563, 29.8775, 31.8276, 33.7199, 35.5640,
    37.3670, 39.1344, 40.8707, 42.5793, 44.2632,
];
const CRITICAL_99: f64 = 160.0557;

/// The histogram of `outcomes` fits `law` with this many degrees of freedom (cells
/// of positive probability less one); cells of probability 0 are empty.
fn assert_fits(what: &str, outcomes: &[i64], law: &[f64], degrees: usize) {
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

fn integers(x: &Tensor) -> Vec<i64> {
    Vec::try_from(x.flatten(0, -1).to_device(Device::Cpu)).unwrap()
}

fn floats(x: &Tensor) -> Vec<f64> {
    Vec::try_from(x.flatten(0, -1).to_kind(Kind::Double)).unwrap()
}

fn rows(table: &Matrix) -> Tensor {
    let width = table[0].len() as i64;
    Tensor::from_slice(&table.concat()).view([-1, width])
}

// ---------------------------------------------------------------------- kernel

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

#[test]
fn log_buffers_are_the_one_step_matrices() {
    for course in COURSES {
        let (timesteps, codes) = (10, 5);
        let chain = course.chain(timesteps, codes);
        let logs = LogSchedule::new(&course.schedule(timesteps, codes), Device::Cpu);
        let [a, b, c, not_c] = [&logs.log_at, &logs.log_bt, &logs.log_ct, &logs.log_1_min_ct]
            .map(|log| floats(&log.to_kind(Kind::Double).exp()));
        for (t, matrix) in chain.steps.iter().enumerate() {
            let row = &matrix[0];
            assert_close("b", &[b[t]], &[row[1]], 2e-6 * row[1]);
            assert_close("a", &[a[t]], &[row[0] - row[1]], 2e-6);
            assert_close("c", &[c[t]], &[row[codes]], 2e-6);
            assert_close("1 - c", &[not_c[t]], &[1.0 - row[codes]], 2e-6);
        }
    }
}

#[test]
fn kernel_entries_are_probabilities() {
    for course in COURSES {
        for timesteps in [2, 10, 100] {
            for codes in [2, 5, 2887] {
                let schedule = course.schedule(timesteps, codes);
                for t in 0..timesteps as i64 {
                    for s in -1..t {
                        let kernel = ReverseKernel::new(&schedule, t, s);
                        for choice in [kernel.masked, kernel.differs, kernel.agrees] {
                            let parts = [choice.stay, choice.take, choice.uniform];
                            let total: f64 = parts.iter().sum();
                            let what = format!("{} {t} to {s}: {choice:?}", course.name);
                            assert!((total - 1.0).abs() <= course.rounding.max(1e-10), "{what}");
                            assert!(parts.iter().all(|&p| p >= -1e-10), "{what}");
                        }
                        assert_eq!(kernel.agrees.take, 0.0);
                        // What `Activity` rests on: a visible token that stays when it
                        // differs from x̂_0 also stays when it agrees.
                        assert!(kernel.agrees.stay >= kernel.differs.stay);
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
                    let kernel = ReverseKernel::new(&schedule, t, s);
                    let states = if course.name == "uniform" {
                        codes
                    } else {
                        codes + 1
                    };
                    for x_t in 0..states {
                        let p = random.simplex(codes);
                        let found = two_stage(&kernel, x_t, &p);
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
                    let kernel = ReverseKernel::new(&schedule, pair[0], pair[1]);
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
                let kernel = ReverseKernel::new(&schedule, pair[0], pair[1]);
                let p = chain.bayes(pair[0], &data);
                let step: Matrix = (0..=codes).map(|x| two_stage(&kernel, x, &p[x])).collect();
                law = product(&vec![law], &step).remove(0);
                let what = format!("{} at {}", course.name, pair[1]);
                assert_close(&what, &law, &marginal(pair[1]), course.rounding);
            }
        }
    }
}

// ----------------------------------------------------------------- reverse step

const BELOW_ONE: f64 = 1.0 - f64::EPSILON / 2.0;

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
fn draw_steps(kernel: &ReverseKernel, p: &Tensor, x_t: usize, seed: u64) -> Vec<i64> {
    let shape = [1, 100_000];
    let mut noise = HostNoise::new(&[seed]);
    let noise = StepNoise {
        code: noise.uniform(0, Draw::Code, &shape),
        choice: noise.uniform(0, Draw::Choice, &shape),
        replacement: noise.uniform(0, Draw::Replacement, &shape),
    };
    let p = p.expand([1, shape[1], -1], false);
    let x_t = Tensor::full(shape, x_t as i64, (Kind::Int64, Device::Cpu));
    integers(&reverse_step(kernel, &p, &x_t, &noise))
}

/// p with the codes that a truncation drops set to 0, by the definition: a code
/// stays under top-p iff the strictly likelier ones weigh less than the rate, under
/// top-k iff fewer than k are strictly likelier.
fn truncated(p: &[f64], truncation: Truncation) -> Vec<f64> {
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
            let kernel = ReverseKernel::new(&schedule, t, s);
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
                    let drawn = draw_steps(&kernel, &weights, x_t, seed);
                    assert_fits(&what, &drawn, &law, expected);
                    seed += 1;
                    tests += 1;
                }
            }
        }
    }
    assert_eq!(tests, 4 * 13 * 3 + 4 * 3 + 4 * 3 + 4 * 2);
}

#[test]
fn truncation_keeps_what_a_sort_keeps() {
    let mut random = Random(9);
    for codes in [4usize, 16, 257] {
        for round in 0..60 {
            // Multiples of 2⁻²⁰ that sum to 1, with many equal ones: exact in f32.
            let levels = if round % 2 == 0 { 7.0 } else { 1e4 };
            let mut p: Vec<f64> = random
                .simplex(codes)
                .iter()
                .map(|p| (p * levels).round().max(1.0))
                .collect();
            let total: f64 = p.iter().sum();
            let unit = (2f64.powi(20) / total).floor();
            p.iter_mut().for_each(|p| *p *= unit / 2f64.powi(20));
            p[codes / 2] += 1.0 - p.iter().sum::<f64>();
            let tensor = Tensor::from_slice(&p).to_kind(Kind::Float).view([1, 1, -1]);
            let mut sorted = p.clone();
            sorted.sort_by(|x, y| y.total_cmp(x));
            let exact = sorted[..codes / 2].iter().sum::<f64>();
            for truncation in [0.05, 0.5, 0.75, 0.86, 0.99, exact, 1.0]
                .map(Truncation::TopP)
                .into_iter()
                .chain([1, 2, codes / 2, codes].map(|k| Truncation::TopK(k as i64)))
            {
                let expected = truncated(&p, truncation);
                assert_eq!(
                    floats(&truncation.apply(&tensor)),
                    expected,
                    "{truncation:?}"
                );
            }
            assert_eq!(floats(&Truncation::Off.apply(&tensor)), p);
        }
    }
}

#[test]
fn published_truncation_examples() {
    let log_p = Tensor::from_slice(&[0.5f32, 0.3, 0.15, 0.05])
        .log()
        .pad([0, 1], "constant", -70.0);
    let kept = |log_p: &Tensor, truncation| {
        let found = floats(&official_truncation(log_p, truncation));
        for (found, was) in found.iter().zip(floats(log_p)) {
            assert!(*found == was || *found == -70.0);
        }
        found.iter().filter(|&&log| log > -70.0).count()
    };
    assert_eq!(kept(&log_p, Truncation::TopP(0.86)), 3);
    assert_eq!(kept(&log_p, Truncation::TopP(0.75)), 2);
    assert_eq!(kept(&log_p, Truncation::TopP(0.8)), 3); // the f32 sum is below .8
    assert_eq!(kept(&log_p, Truncation::TopP(0.3)), 1);
    assert_eq!(kept(&log_p, Truncation::TopK(2)), 2);
    assert_eq!(kept(&log_p, Truncation::Off), 4);
    // Unsorted rows: the same codes are kept wherever they stand.
    let order = Tensor::from_slice(&[3i64, 1, 4, 0, 2]);
    let shuffled = log_p.index_select(0, &order);
    let expected = official_truncation(&log_p, Truncation::TopP(0.75)).index_select(0, &order);
    let found = official_truncation(&shuffled, Truncation::TopP(0.75));
    assert_eq!(floats(&found), floats(&expected));
    // diffusers: the same over the K codes, with the mask row appended.
    let codes = log_p.narrow(0, 0, 4);
    for truncation in [0.3, 0.75, 0.86, 1.0].map(Truncation::TopP) {
        let found = diffusers_truncation(&codes, truncation);
        let expected = official_truncation(&log_p, truncation);
        assert_eq!(floats(&found), floats(&expected));
    }
}

// -------------------------------------------------------------------- posterior

#[test]
fn log_posterior_is_the_enumerated_one() {
    let mut random = Random(5);
    for course in COURSES {
        let (timesteps, codes) = (10usize, 5usize);
        let chain = course.chain(timesteps, codes);
        let logs = LogSchedule::new(&course.schedule(timesteps, codes), Device::Cpu);
        let states = if course.name == "uniform" {
            codes
        } else {
            codes + 1
        };
        for t in 0..timesteps as i64 {
            for x_t in 0..states {
                let p = random.simplex(codes);
                let logits = Tensor::from_slice(&p).log().view([1, 1, -1]);
                let x = Tensor::full([1, 1], x_t as i64, (Kind::Int64, Device::Cpu));
                let time = Tensor::from_slice(&[t]);
                let found = logs.q_posterior(&log_prediction(&logits), &x, &time);
                let found = floats(&found.to_kind(Kind::Double).exp());
                let expected = chain.mixture(t - 1, t, x_t, &p);
                let what = format!("{} x_{t} = {x_t}", course.name);
                assert_close(&what, &found, &expected, 2e-6);
            }
        }
    }
}

#[test]
fn log_posterior_at_full_size() {
    // O(K²) from the closed-form entries of the matrices, T = 100, K = 2887.
    let (codes, mut random) = (2887usize, Random(6));
    for course in [RELEASED, PAPER] {
        let schedule = course.schedule(100, codes);
        let logs = LogSchedule::new(&schedule, Device::Cpu);
        for t in [0, 1, 2, 10, 50, 97, 98, 99i64] {
            let (now, then) = (schedule.at(t), schedule.at(t - 1));
            let a = now.keep / then.keep;
            let c = 1.0 - (1.0 - now.mask) / (1.0 - then.mask);
            let k = codes as f64;
            let (b, b_then, b_now) = ((1.0 - a - c) / k, then.uniform / k, now.uniform / k);
            let p = random.simplex(codes);
            for x_t in [codes, 17] {
                let mut expected = vec![0.0; codes + 1];
                for (start, p) in p.iter().enumerate() {
                    let is = |x: usize, y: usize| f64::from(u8::from(x == y));
                    let (mask, hit) = (x_t == codes, is(x_t, start));
                    let total = if mask {
                        now.mask
                    } else {
                        now.keep * hit + b_now
                    };
                    for (j, sum) in expected[..codes].iter_mut().enumerate() {
                        let forward = if mask { c } else { a * is(x_t, j) + b };
                        *sum += p * forward * (then.keep * is(j, start) + b_then) / total;
                    }
                    expected[codes] += p * then.mask * f64::from(u8::from(mask)) / total;
                }
                let logits = Tensor::from_slice(&p).log().view([1, 1, -1]);
                let x = Tensor::full([1, 1], x_t as i64, (Kind::Int64, Device::Cpu));
                let log_p = log_prediction(&logits);
                let found = logs.q_posterior(&log_p, &x, &Tensor::from_slice(&[t]));
                let found = floats(&found.to_kind(Kind::Double).exp());
                assert_close(&format!("{} at {t}", course.name), &found, &expected, 2e-6);
            }
        }
    }
}

#[test]
fn golden_posterior_and_divergence() {
    let logs = LogSchedule::new(&RELEASED.schedule(100, 5), Device::Cpu);
    let logits = Tensor::from_slice(&[1.0f32, 0.5, 0.0, -0.5, -1.0]).expand([1, 4, 5], false);
    let log_p = log_prediction(&logits);
    let (x_0, x_t) = (
        Tensor::from_slice(&[0i64, 1, 2, 3]).view([1, 4]),
        Tensor::from_slice(&[5i64, 1, 5, 2]).view([1, 4]),
    );
    let at = |t: i64, log_x0: &Tensor| logs.q_posterior(log_x0, &x_t, &Tensor::from_slice(&[t]));

    let model = at(49, &log_p).exp();
    let masked = [
        0.0087479, 0.0053059, 0.0032182, 0.0019519, 0.0011839, 0.9795922,
    ];
    assert_close("mask", &floats(&model.get(0).get(0)), &masked, 2e-6);
    let visible = [0.0084049, 0.0050978, 0.9834845, 0.0018754, 0.0011375, 0.0];
    assert_close("code 2", &floats(&model.get(0).get(3)), &visible, 2e-6);
    // The published digits themselves, by the matrices.
    let chain = RELEASED.chain(100, 5);
    let p = floats(&logits.get(0).get(0).softmax(-1, Kind::Double));
    assert_close("mask", &chain.mixture(48, 49, 5, &p), &masked, 6e-8);
    assert_close("code 2", &chain.mixture(48, 49, 2, &p), &visible, 6e-8);

    // t | KL per token | decoder −log p(x_{t−1} = x_0)
    for (t, divergences, nll) in [
        (0, [0.847102, 1.347102, 1.847102, 2.347102], 6.388407),
        (49, [0.017287, 0.014616, 0.037695, 0.042933], 16.771440),
        (99, [0.008549, 1.344491, 0.018648, 2.339434], 15.576920),
    ] {
        let (truth, model) = (at(t, &logs.log_one_hot(&x_0)), at(t, &log_p));
        let found = (truth.exp() * (&truth - &model)).sum_dim_intlist(-1, false, Kind::Float);
        assert_close(&format!("KL at {t}"), &floats(&found), &divergences, 4e-6);
        let found = -model
            .gather(-1, &x_0.unsqueeze(-1), false)
            .sum(Kind::Double);
        let found = found.double_value(&[]);
        assert!((found - nll).abs() < 2e-5, "NLL at {t}: {found}");
    }
    let nll = -log_p
        .gather(-1, &x_0.unsqueeze(-1), false)
        .sum(Kind::Double);
    assert!((nll.double_value(&[]) - 6.388407).abs() < 2e-6);
}

#[test]
fn diffusers_posterior_is_the_official_one() {
    let mut random = Random(8);
    for course in [RELEASED, PAPER, STRONG] {
        let codes = 6;
        let logs = LogSchedule::new(&course.schedule(10, codes), Device::Cpu);
        for t in 0..10i64 {
            let mut logits = || {
                let values: Vec<f64> = (0..7 * codes).map(|_| 6.0 * random.next()).collect();
                Tensor::from_slice(&values)
                    .to_kind(Kind::Float)
                    .view([1, 7, -1])
            };
            let prediction = Prediction {
                conditional: logits(),
                unconditional: Some(logits()),
            };
            let x = Tensor::from_slice(&[0i64, 1, 2, 3, 4, 5, 6]).view([1, 7]);
            let time = Tensor::from_slice(&[t]);
            for (scale, truncation) in [
                (1.0, Truncation::Off),
                (3.0, Truncation::Off),
                (5.0, Truncation::TopP(0.86)),
                (2.0, Truncation::TopK(2)),
            ] {
                let official =
                    official_truncation(&official_guidance(&prediction, scale), truncation);
                let diffusers =
                    diffusers_truncation(&diffusers_guidance(&prediction, scale), truncation);
                let found = logs.q_posterior(&diffusers, &x, &time).exp();
                let expected = logs.q_posterior(&official, &x, &time).exp();
                let what = format!("{} at {t}", course.name);
                assert_close(&what, &floats(&found), &floats(&expected), 2e-6);
                if t == 0 {
                    // diffusers takes p̂ itself at time 0.
                    let p = floats(&diffusers.exp());
                    assert_close(&what, &p, &floats(&expected), 2e-6);
                }
            }
        }
    }
}

#[test]
fn gumbel_draws_follow_the_probabilities() {
    let p = [0.4, 0.3, 0.2, 0.0, 0.1];
    let log_p = Tensor::from_slice(&p)
        .log()
        .clamp_min(-70.0)
        .to_kind(Kind::Float);
    let u = HostNoise::new(&[4]).uniform(0, Draw::Code, &[1, 100_000, 5]);
    let drawn = gumbel_argmax(
        &log_p.expand([1, 100_000, 5], false),
        &u.to_kind(Kind::Float),
    );
    assert_fits("Gumbel", &integers(&drawn), &p, 3);
    // Gumbel numbers of f32 uniforms lie within −4.235…16.636: a class 20.9 below
    // the best is never drawn, whatever the numbers.
    let log_p = Tensor::from_slice(&[0.0f32, -20.9]).view([1, 2]);
    let best = Tensor::from_slice(&[0.0f64, BELOW_ONE]).view([1, 2]);
    for u in [&best, &best.to_kind(Kind::Float)] {
        assert_eq!(
            integers(&gumbel_argmax(&log_p, &u.to_kind(Kind::Float))),
            [0]
        );
    }
}

// ----------------------------------------------------------------- whole sampler

fn config(rule: ReverseRule, steps: usize) -> SamplerConfig {
    SamplerConfig {
        steps,
        guidance: 1.0,
        truncation: Truncation::Off,
        revealing: None,
        rule,
    }
}

/// log p(x_0 at position l | x_t) for each time and each x_t of L positions:
/// `tables[t]` `[(K + 1)^L, L, K]`.
struct Oracle {
    tables: Vec<Tensor>,
    states: i64,
}

impl Oracle {
    /// Exact posteriors of `data`, a law over the K^L token rows (first position
    /// slowest).
    fn new(chain: &Chain, length: usize, data: &[f64]) -> Self {
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
    fn logits(&self, x: &Tensor, t: &Tensor, positions: Option<&Tensor>) -> Tensor {
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

    fn p(&self, t: i64, x: usize, position: usize) -> Vec<f64> {
        let row = self.tables[t as usize].get(x as i64).get(position as i64);
        floats(&row.to_kind(Kind::Double).exp())
    }
}

/// `index` in base `base`, most significant first.
fn digits(mut index: usize, base: usize, length: usize) -> Vec<usize> {
    let mut digits = vec![0; length];
    for digit in digits.iter_mut().rev() {
        *digit = index % base;
        index /= base;
    }
    digits
}

fn tokens_of(sampler: &Sampler, oracle: &Oracle, seeds: &[u64]) -> Tensor {
    let mut noise = HostNoise::new(seeds);
    let x = sampler.start(seeds.len() as i64, &mut noise);
    let mut denoise = |x: &Tensor, t: &Tensor, positions: Option<&Tensor>| Prediction {
        conditional: oracle.logits(x, t, positions),
        unconditional: None,
    };
    sampler.sample(x, &mut denoise, &mut noise, &mut |_| {})
}

fn seeds(first: u64, count: u64) -> Vec<u64> {
    (first..first + count).collect()
}

#[test]
fn one_position_recovers_the_data() {
    let data = [0.55, 0.3, 0.15];
    let mut first = 0;
    for course in [RELEASED, PAPER, MASKS, UNIFORM, STRONG] {
        for timesteps in [4, 6] {
            let schedule = course.schedule(timesteps, 3);
            let oracle = Oracle::new(&course.chain(timesteps, 3), 1, &data);
            for steps in [timesteps, 3, 2, 1] {
                let config = config(ReverseRule::Exact, steps);
                let sampler = Sampler::new(&config, &schedule, 1).unwrap();
                let tokens = tokens_of(&sampler, &oracle, &seeds(first, 20_000));
                let what = format!("{} {steps} of {timesteps} steps", course.name);
                assert_fits(&what, &integers(&tokens), &data, 2);
                first += 20_000;
            }
        }
    }
    // The originals' full sampler, which starts from masks; diffusers' equals it.
    for course in [RELEASED, MASKS] {
        for rule in [ReverseRule::Official, ReverseRule::Diffusers] {
            let oracle = Oracle::new(&course.chain(4, 3), 1, &data);
            let sampler = Sampler::new(&config(rule, 4), &course.schedule(4, 3), 1).unwrap();
            let tokens = tokens_of(&sampler, &oracle, &seeds(first, 20_000));
            assert_fits(course.name, &integers(&tokens), &data, 2);
            first += 20_000;
        }
    }
}

/// The law of x_0 over K^L rows when each step redraws the positions independently
/// from the mixture of posteriors: `steps` of (network, from, to) over the
/// (K + 1)^L states, starting from `start[l]` at position l. Positions that are `kept`
/// stay.
fn sampler_law(
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

/// Strongly dependent tokens.
const PAIRS: [f64; 9] = [0.25, 0.02, 0.03, 0.05, 0.2, 0.05, 0.1, 0.05, 0.25];
const OTHER_PAIRS: [f64; 9] = [0.1, 0.1, 0.2, 0.1, 0.05, 0.15, 0.05, 0.15, 0.1];

fn pair_index(tokens: &Tensor) -> Vec<i64> {
    integers(&(tokens.select(1, 0) * 3 + tokens.select(1, 1)))
}

#[test]
fn two_positions_have_the_enumerated_law() {
    let (timesteps, codes) = (5, 3);
    let full = vec![(4, 4, 3), (3, 3, 2), (2, 2, 1), (1, 1, 0), (0, 0, -1)];
    let strided = vec![(4, 4, 2), (2, 2, -1)];
    // timeX with X = 2: the one-step posterior at d − 1, whatever the stride.
    let official = vec![(4, 3, 2), (2, 1, 0), (0, 0, -1)];
    let diffusers = vec![(2, 2, 1), (1, 1, 0), (0, 0, -1)];
    let (exact, theirs) = (ReverseRule::Exact, ReverseRule::Official);
    let cases = [
        (STRONG, exact, &full, 1.0, Truncation::Off),
        (STRONG, exact, &strided, 1.0, Truncation::Off),
        (STRONG, exact, &full, 1.0, Truncation::TopP(0.6)),
        (STRONG, exact, &full, 2.0, Truncation::Off),
        (STRONG, exact, &full, 0.0, Truncation::Off),
        (STRONG, exact, &strided, 2.5, Truncation::TopP(0.9)),
        (MASKS, exact, &full, 1.0, Truncation::Off),
        (MASKS, exact, &strided, 2.0, Truncation::Off),
        (UNIFORM, exact, &full, 1.0, Truncation::Off),
        (UNIFORM, exact, &strided, 1.0, Truncation::Off),
        (STRONG, theirs, &full, 1.0, Truncation::Off),
        (STRONG, theirs, &full, 2.0, Truncation::TopP(0.9)),
        (STRONG, theirs, &official, 1.0, Truncation::Off),
        (STRONG, theirs, &official, 0.0, Truncation::Off),
        (MASKS, theirs, &full, 1.0, Truncation::Off),
        (STRONG, ReverseRule::Diffusers, &full, 2.0, Truncation::Off),
        (
            STRONG,
            ReverseRule::Diffusers,
            &diffusers,
            1.0,
            Truncation::Off,
        ),
    ];
    let mut first = 1_000_000;
    for (course, rule, steps, guidance, truncation) in cases {
        let what = format!(
            "{} {rule:?} {} {guidance} {truncation:?}",
            course.name,
            steps.len()
        );
        let chain = course.chain(timesteps, codes);
        let (given, null) = (
            Oracle::new(&chain, 2, &PAIRS),
            Oracle::new(&chain, 2, &OTHER_PAIRS),
        );
        let p = |t: i64, x: usize, position: usize| {
            let (y, u) = (given.p(t, x, position), null.p(t, x, position));
            let mixed = y
                .iter()
                .zip(u)
                .map(|(&y, u): (&f64, f64)| {
                    // 0⁰ = 1, but a code impossible under both stays so
                    let p = y.powf(guidance) * u.powf(1.0 - guidance);
                    if p.is_finite() {
                        p
                    } else {
                        0.0
                    }
                })
                .collect();
            normalised(truncated(&normalised(mixed), truncation))
        };
        let last = chain.between(-1, 4)[0].clone();
        let start = match rule {
            ReverseRule::Exact => {
                // p(x_T): γ̄ for the mask, β̄ for each code, up to ᾱ
                let mut prior = vec![last[1]; codes];
                prior.push(last[codes]);
                normalised(prior)
            }
            _ => identity(codes + 1)[codes].clone(),
        };
        let law = sampler_law(&chain, steps, &[start.clone(), start], &[false; 2], &p);
        assert!((law.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{what}");
        let config = SamplerConfig {
            guidance,
            truncation,
            ..config(rule, steps.len())
        };
        let sampler = Sampler::new(&config, &course.schedule(timesteps, codes), 2).unwrap();
        let seeds = seeds(first, 20_000);
        first += 20_000;
        let mut noise = HostNoise::new(&seeds);
        let x = sampler.start(seeds.len() as i64, &mut noise);
        let mut denoise = |x: &Tensor, t: &Tensor, at: Option<&Tensor>| {
            let guided = config.uses_guidance();
            Prediction {
                conditional: given.logits(x, t, at),
                unconditional: guided.then(|| null.logits(x, t, at)),
            }
        };
        let tokens = sampler.sample(x, &mut denoise, &mut noise, &mut |_| {});
        assert_fits(&what, &pair_index(&tokens), &law, 8);
    }
}

#[test]
fn start_has_the_prior_law() {
    let n = 50_000;
    for (course, law) in [
        // c̄ : K·b̄ = 0.6 : 0.4 over 4 codes
        (STRONG, vec![0.1, 0.1, 0.1, 0.1, 0.6]),
        (MASKS, vec![0.0, 0.0, 0.0, 0.0, 1.0]),
        (UNIFORM, vec![0.25, 0.25, 0.25, 0.25, 0.0]),
    ] {
        let exact = config(ReverseRule::Exact, 3);
        let sampler = Sampler::new(&exact, &course.schedule(5, 4), n).unwrap();
        let x = sampler.start(2, &mut HostNoise::new(&[3, 4]));
        assert_eq!(x.size(), [2, n]);
        let degrees = law.iter().filter(|&&p| p > 0.0).count() - 1;
        assert_fits(course.name, &integers(&x), &law, degrees);
    }
    for rule in [ReverseRule::Official, ReverseRule::Diffusers] {
        let sampler = Sampler::new(&config(rule, 5), &STRONG.schedule(5, 4), 7).unwrap();
        let x = sampler.start(2, &mut HostNoise::new(&[3, 4]));
        assert_eq!(integers(&x), vec![4; 14]);
        // A model that never masks cannot start from masks.
        let error = Sampler::new(&config(rule, 5), &UNIFORM.schedule(5, 4), 7);
        assert!(matches!(
            error,
            Err(SamplerError::Option { option: "rule", .. })
        ));
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

#[test]
fn runs_from_pictures_have_the_enumerated_law() {
    let (timesteps, codes) = (5, 3);
    let full = [(4, 4, 3), (3, 3, 2), (2, 2, 1), (1, 1, 0), (0, 0, -1)];
    let strided = [(4, 4, 2), (2, 2, -1)];
    let x_0 = [2usize, 0];
    let (exact, theirs) = (ReverseRule::Exact, ReverseRule::Official);
    let cases = [
        // course, rule, steps, strength, first step, redrawn, degrees of freedom
        (STRONG, exact, &full[..], 1.0, 0, [false, true], 2),
        (STRONG, exact, &full, 0.6, 2, [false, true], 2),
        (STRONG, exact, &full, 0.6, 2, [true, true], 8),
        (STRONG, exact, &full, 0.01, 4, [true, true], 8),
        (STRONG, exact, &full, 0.0, 5, [true, true], 0),
        (STRONG, exact, &strided, 1.0, 0, [true, false], 2),
        (STRONG, exact, &strided, 0.5, 1, [true, true], 8),
        (MASKS, exact, &full, 1.0, 0, [false, true], 2),
        (MASKS, exact, &full, 0.6, 2, [true, true], 8),
        (UNIFORM, exact, &full, 1.0, 0, [true, false], 2),
        (UNIFORM, exact, &full, 0.4, 3, [true, true], 8),
        (STRONG, theirs, &full, 1.0, 0, [false, true], 2),
        (STRONG, theirs, &full, 0.6, 2, [true, true], 8),
        (MASKS, theirs, &full, 0.6, 2, [true, false], 2),
        (
            STRONG,
            ReverseRule::Diffusers,
            &full,
            0.6,
            2,
            [true, true],
            8,
        ),
    ];
    let mut first = 2_000_000;
    for (course, rule, steps, strength, skipped, redrawn, degrees) in cases {
        let what = format!("{} {rule:?} {strength} {redrawn:?}", course.name);
        let chain = course.chain(timesteps, codes);
        let oracle = Oracle::new(&chain, 2, &PAIRS);
        let p = |t: i64, x: usize, position: usize| oracle.p(t, x, position);
        let last = chain.between(-1, 4)[0].clone();
        let start: Vec<Vec<f64>> = (0..2)
            .map(|l| match (redrawn[l], steps.get(skipped), rule) {
                (false, ..) | (_, None, _) => identity(codes + 1)[x_0[l]].clone(),
                (true, Some(&(t, ..)), _) if skipped > 0 => chain.between(-1, t)[x_0[l]].clone(),
                (true, _, ReverseRule::Exact) => {
                    let mut prior = vec![last[1]; codes];
                    prior.push(last[codes]);
                    normalised(prior)
                }
                (true, ..) => identity(codes + 1)[codes].clone(),
            })
            .collect();
        let kept = redrawn.map(|redrawn| !redrawn);
        let law = sampler_law(&chain, &steps[skipped..], &start, &kept, &p);

        let schedule = course.schedule(timesteps, codes);
        let sampler = Sampler::new(&config(rule, steps.len()), &schedule, 2)
            .and_then(|sampler| sampler.with_strength(strength))
            .unwrap();
        let seeds = seeds(first, 20_000);
        first += 20_000;
        let mut noise = HostNoise::new(&seeds);
        let pictures = Tensor::from_slice(&x_0.map(|x| x as i64)).repeat([20_000, 1]);
        let redrawn = Tensor::from_slice(&redrawn).repeat([20_000, 1]);
        let start = sampler.start_from(&pictures, Some(&redrawn), &mut noise);
        let mut denoise = |x: &Tensor, t: &Tensor, at: Option<&Tensor>| Prediction {
            conditional: oracle.logits(x, t, at),
            unconditional: None,
        };
        let tokens = sampler.sample(start, &mut denoise, &mut noise, &mut |_| {});
        assert_fits(&what, &pair_index(&tokens), &law, degrees);
    }
}

/// Revealing by count: as many tokens as are redrawn, kept ones untouched.
#[test]
fn fixed_counts_reveal_the_redrawn_tokens_alone() {
    let (codes, length) = (3i64, 12i64);
    let schedule = MASKS.schedule(6, 3);
    let config = SamplerConfig {
        revealing: Some(Revealing {
            purity: Some(1.0),
            tokens_per_evaluation: 2,
        }),
        ..config(ReverseRule::Exact, 6)
    };
    let sampler = Sampler::new(&config, &schedule, length).unwrap();
    for redrawn in [1i64, 5, 12] {
        let x_0 = Tensor::arange(length, (Kind::Int64, Device::Cpu)).remainder(codes);
        let x_0 = x_0.repeat([2, 1]);
        let chosen = Tensor::arange(length, (Kind::Int64, Device::Cpu)).lt(redrawn);
        let chosen = chosen.repeat([2, 1]);
        let mut noise = HostNoise::new(&[1, 2]);
        let start = sampler.start_from(&x_0, Some(&chosen), &mut noise);
        let mut asked = 0;
        let mut denoise = |x: &Tensor, _: &Tensor, _: Option<&Tensor>| {
            asked += 1;
            Prediction {
                conditional: Tensor::zeros(
                    [x.size()[0], length, codes],
                    (Kind::Float, Device::Cpu),
                ),
                unconditional: None,
            }
        };
        let mut masked = Vec::new();
        let tokens = sampler.sample(start, &mut denoise, &mut noise, &mut |step| {
            masked.push(step.tokens.eq(codes).sum(Kind::Int64).int64_value(&[]) / 2);
        });
        // The course of R c̄ from R masked tokens to none.
        let course: Vec<i64> = (0..6)
            .rev()
            .map(|t| {
                (redrawn as f64 * schedule.at(t - 1).mask / schedule.at(5).mask).round() as i64
            })
            .collect();
        assert_eq!(masked, course, "{redrawn} redrawn");
        assert!(
            asked <= redrawn + 1,
            "{redrawn} redrawn, {asked} evaluations"
        );
        let kept = chosen.logical_not();
        assert_eq!(
            integers(&tokens.masked_select(&kept)),
            integers(&x_0.masked_select(&kept))
        );
    }
    for (strength, possible) in [(0.0, true), (0.5, false), (1.0, true)] {
        let sampler = Sampler::new(&config, &schedule, length).unwrap();
        assert_eq!(
            sampler.with_strength(strength).is_ok(),
            possible,
            "{strength}"
        );
    }
    for strength in [-0.1, 1.1, f64::NAN] {
        let sampler = Sampler::new(&config, &schedule, length).unwrap();
        assert!(matches!(
            sampler.with_strength(strength),
            Err(SamplerError::Option {
                option: "strength",
                ..
            })
        ));
    }
}

#[test]
fn only_active_positions_are_asked_about_and_change() {
    let (timesteps, codes, length) = (40usize, 3usize, 2i64);
    for course in [RELEASED, PAPER, MASKS, UNIFORM, STRONG] {
        let schedule = course.schedule(timesteps, codes);
        let oracle = Oracle::new(&course.chain(timesteps, codes), 2, &PAIRS);
        for steps in [40usize, 13] {
            let config = config(ReverseRule::Exact, steps);
            let sampler = Sampler::new(&config, &schedule, length).unwrap();
            let planned = plan(ReverseRule::Exact, steps, timesteps).unwrap();
            let (mut calls, mut skipped) = (0, 0);
            for batch in [seeds(0, 1), seeds(7, 1), seeds(20, 3), seeds(30, 8)] {
                let n = batch.len() as i64;
                let mut noise = HostNoise::new(&batch);
                let start = sampler.start(n, &mut noise);

                // Every position at every step, with the same noise.
                let mut dense = start.copy();
                let mut history = Vec::new();
                for (i, step) in planned.iter().enumerate() {
                    let kernel = ReverseKernel::new(&schedule, step.from, step.to);
                    let mut number = |draw| noise.uniform(i, draw, &[n, length]);
                    let numbers = StepNoise {
                        code: number(Draw::Code),
                        choice: number(Draw::Choice),
                        replacement: number(Draw::Replacement),
                    };
                    let t = Tensor::from_slice(&[step.network]);
                    let p = oracle.logits(&dense, &t, None).softmax(-1, Kind::Float);
                    dense = reverse_step(&kernel, &p, &dense, &numbers);
                    history.push(integers(&dense));
                }

                // What the sampler does.
                let asked = std::cell::RefCell::new(HashMap::new());
                let mut denoise = |x: &Tensor, t: &Tensor, at: Option<&Tensor>| {
                    let at = at.expect("the exact sampler names its positions");
                    let time = t.int64_value(&[0]);
                    let before = asked.borrow_mut().insert(time, at.copy());
                    assert!(before.is_none(), "time {time} asked twice");
                    Prediction {
                        conditional: oracle.logits(x, t, Some(at)),
                        unconditional: None,
                    }
                };
                let mut before = integers(&start);
                let mut done = 0;
                let mut observe = |progress: vqdiffusion::diffusion::sampler::Progress| {
                    done += 1;
                    assert_eq!((progress.done, progress.steps), (done, steps));
                    let after = integers(progress.tokens);
                    assert_eq!(after, history[done - 1], "{} step {done}", course.name);
                    let asked = asked.borrow();
                    let at = asked.get(&planned[done - 1].network);
                    for (i, (x, y)) in before.iter().zip(&after).enumerate() {
                        let (image, position) = (i as i64 / length, i as i64 % length);
                        let named =
                            at.is_some_and(|at| integers(&at.get(image)).contains(&position));
                        assert!(x == y || named, "position {position} changed unasked");
                    }
                    before = after;
                };
                let tokens = sampler.sample(start.copy(), &mut denoise, &mut noise, &mut observe);
                assert_eq!(done, steps);
                assert_eq!(integers(&tokens), history[steps - 1]);
                let evaluations = asked.borrow().len();
                calls += evaluations;
                skipped += steps - evaluations;

                // The same plan from the noise alone.
                let kernels: Vec<_> = planned
                    .iter()
                    .map(|s| ReverseKernel::new(&schedule, s.from, s.to))
                    .collect();
                let choice: Vec<_> = (0..steps)
                    .map(|i| floats(&noise.uniform(i, Draw::Choice, &[n, length])))
                    .collect();
                let masked = integers(&start)
                    .chunks(length as usize)
                    .map(|row| row.iter().map(|&x| x == codes as i64).collect())
                    .collect();
                let activity = Activity::new(&kernels, masked, &choice, Device::Cpu);
                assert_eq!(activity.evaluations(), evaluations);
                for (i, step) in planned.iter().enumerate() {
                    let asked = asked.borrow();
                    let (x, y) = (activity.at(i), asked.get(&step.network));
                    assert_eq!(x.map(integers), y.map(integers));
                }
            }
            assert!(calls > 0);
            // One or two tokens, 40 steps: most steps have nothing to do.
            assert!(steps == 13 || skipped > 0, "{}", course.name);
        }
    }
}

#[test]
fn tokens_do_not_depend_on_the_batch() {
    let (timesteps, codes) = (12, 3);
    let rules = [
        ReverseRule::Exact,
        ReverseRule::Official,
        ReverseRule::Diffusers,
    ];
    for course in [PAPER, MASKS, UNIFORM, STRONG] {
        let oracle = Oracle::new(&course.chain(timesteps, codes), 2, &PAIRS);
        for rule in rules {
            let schedule = course.schedule(timesteps, codes);
            let Ok(sampler) = Sampler::new(&config(rule, timesteps), &schedule, 2) else {
                assert!(rule != ReverseRule::Exact && course.name == "uniform");
                continue;
            };
            let batch = [5u64, 900, 5, 17, 3, 123_456_789, u64::MAX, 0];
            let together = integers(&tokens_of(&sampler, &oracle, &batch));
            for (i, &seed) in batch.iter().enumerate() {
                let alone = integers(&tokens_of(&sampler, &oracle, &[seed]));
                assert_eq!(
                    alone,
                    together[2 * i..2 * i + 2],
                    "{} {rule:?}",
                    course.name
                );
            }
            assert_eq!(together[..2], together[4..6]);
            let many = integers(&tokens_of(&sampler, &oracle, &seeds(0, 64)));
            assert!(many.chunks(2).any(|x| x != &many[..2]), "seeds matter");
        }
    }
}

#[test]
fn official_and_diffusers_rules_draw_the_same_tokens() {
    let (timesteps, codes) = (8, 3);
    for course in [RELEASED, STRONG] {
        let oracle = Oracle::new(&course.chain(timesteps, codes), 2, &PAIRS);
        let [official, diffusers] = [ReverseRule::Official, ReverseRule::Diffusers].map(|rule| {
            let config = config(rule, timesteps);
            let sampler = Sampler::new(&config, &course.schedule(timesteps, codes), 2).unwrap();
            integers(&tokens_of(&sampler, &oracle, &seeds(50, 500)))
        });
        // At time 0 one draws over K + 1 classes of either rule's shape.
        assert_eq!(official, diffusers, "{}", course.name);
    }
}

// ------------------------------------------------------------------------ noise

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
