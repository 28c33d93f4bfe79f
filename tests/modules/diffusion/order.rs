//! Masked tokens revealed along a Halton sequence.

use tch::{Device, Kind, Tensor};
use vqdiffusion::diffusion::guidance::Prediction;
use vqdiffusion::diffusion::purity::Revealing;
use vqdiffusion::diffusion::sampler::order::halton;
use vqdiffusion::diffusion::sampler::{sample, start_from, Query, SamplerError};
use vqdiffusion::diffusion::{HostNoise, RevealOrder, ReverseRule, SamplerConfig, Times};

use crate::diffusion::enumeration::*;
use crate::diffusion::times::followed;

fn spread(steps: usize, times: Times) -> SamplerConfig {
    SamplerConfig {
        times,
        order: RevealOrder::Halton,
        ..config(ReverseRule::Exact, steps)
    }
}

/// By the mirrored digits of i = 0, 1, …: 0, 1/2, 1/4, 3/4, 1/8, … and 0, 1/3, 2/3, 1/9, ….
#[test]
fn the_order_is_that_of_first_visits() {
    assert_eq!(halton(1, 1), [0]);
    // Rows alone, then columns alone.
    assert_eq!(halton(4, 1), [0, 2, 1, 3]);
    assert_eq!(halton(1, 3), [0, 1, 2]);
    assert_eq!(halton(1, 9), [0, 3, 6, 1, 4, 7, 2, 5, 8]);
    // (0, 0), (1/2, 1/3), (1/4, 2/3), (3/4, 1/9) seen, (1/8, 4/9) seen, (5/8, 7/9).
    assert_eq!(halton(2, 2), [0, 2, 1, 3]);
    for [rows, columns] in [[3, 7], [5, 2], [16, 16], [32, 32], [31, 33], [1, 100]] {
        let order = halton(rows, columns);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..rows * columns).collect::<Vec<_>>());
        // In f64 where no product comes near a whole number from below.
        let mirrored = |mut i: u32, base: u32| {
            let (mut value, mut place) = (0.0, 1.0);
            while i > 0 {
                place /= f64::from(base);
                value += place * f64::from(i % base);
                i /= base;
            }
            value
        };
        let mut visited = Vec::new();
        for i in 0..30 {
            let row = (mirrored(i, 2) * rows as f64 + 1e-9) as usize;
            let column = (mirrored(i, 3) * columns as f64 + 1e-9) as usize;
            if !visited.contains(&(row * columns + column)) {
                visited.push(row * columns + column);
            }
        }
        assert!(order.starts_with(&visited), "{rows} by {columns}");
    }
}

/// The law of x_0 over K^L rows when tokens leave the mask in `order`, shifted over the `grid`
/// by every offset alike, a token as soon as the share still masked is at most (number of tokens
/// after it + u) / L: given offset and u it is known which step reveals a token, and nothing
/// else of the process changes.
fn ordered_law(
    chain: &Chain,
    steps: &[(i64, i64, i64)],
    start: &[f64],
    order: &[usize],
    grid: [usize; 2],
    p: &dyn Fn(i64, usize, usize) -> Vec<f64>,
) -> Vec<f64> {
    let ([rows, columns], mask) = (grid, chain.codes);
    let (length, states) = (rows * columns, chain.codes + 1);
    // Shares of the masked tokens that are still masked after each step.
    let mut remaining = 1.0;
    let thresholds: Vec<f64> = steps
        .iter()
        .map(|&(_, from, to)| {
            let stays = chain.reverse(to, from, mask, 0).map(|law| law[mask]);
            remaining *= stays.unwrap_or(1.0);
            remaining
        })
        .collect();
    let mut cuts: Vec<f64> = thresholds
        .iter()
        .map(|s| (s * length as f64).fract())
        .collect();
    cuts.extend([0.0, 1.0]);
    cuts.sort_by(f64::total_cmp);

    let mut total = vec![0.0; chain.codes.pow(length as u32)];
    for offset in 0..length {
        for cut in cuts.windows(2).filter(|cut| cut[1] > cut[0]) {
            let u = 0.5 * (cut[0] + cut[1]);
            let weight = (cut[1] - cut[0]) / length as f64;
            let revealed: Vec<usize> = (0..length)
                .map(|token| {
                    let row = (token / columns + offset / columns) % rows;
                    let column = (token + offset) % columns;
                    let cell = row * columns + column;
                    let rank = order.iter().position(|&at| at == cell).unwrap();
                    let v = ((length - 1 - rank) as f64 + u) / length as f64;
                    thresholds.iter().position(|&s| v >= s).unwrap()
                })
                .collect();
            let size = states.pow(length as u32);
            let mut law: Vec<f64> = (0..size)
                .map(|x| {
                    digits(x, states, length)
                        .iter()
                        .map(|&x| start[x])
                        .product()
                })
                .collect();
            for (i, &(network, from, to)) in steps.iter().enumerate() {
                let mut next = vec![0.0; size];
                for (x, &weight) in law.iter().enumerate().filter(|(_, &w)| w > 0.0) {
                    let each: Matrix = digits(x, states, length)
                        .iter()
                        .enumerate()
                        .map(|(token, &x_t)| {
                            if x_t == mask && revealed[token] != i {
                                return identity(states)[mask].clone();
                            }
                            let mut law = chain.mixture(to, from, x_t, &p(network, x, token));
                            if x_t == mask {
                                law[mask] = 0.0;
                                law = normalised(law);
                            }
                            law
                        })
                        .collect();
                    for (y, sum) in next.iter_mut().enumerate() {
                        let y = digits(y, states, length);
                        let q: f64 = y.iter().zip(&each).map(|(&y, law)| law[y]).product();
                        *sum += weight * q;
                    }
                }
                law = next;
            }
            for (y, sum) in total.iter_mut().enumerate() {
                let y = digits(y, chain.codes, length);
                *sum += weight * law[y.iter().fold(0, |index, &y| index * states + y)];
            }
        }
    }
    total
}

#[test]
fn runs_have_the_enumerated_law() {
    let timesteps = 12usize;
    let mut first = 7_000_000;
    // Of two tokens in a row, and of four in a square that often agree with their neighbours.
    let mut squares: Vec<f64> = (0..16)
        .map(|x| {
            let x = digits(x, 2, 4);
            let agree = [(0, 1), (1, 3), (3, 2), (2, 0)];
            let agree = agree.iter().filter(|&&(i, j)| x[i] == x[j]).count();
            3f64.powi(agree as i32) * if x[0] == 0 { 1.5 } else { 1.0 }
        })
        .collect();
    squares = normalised(squares);
    for (codes, grid, order, data, degrees) in [
        (3usize, [1usize, 2], &[0usize, 1][..], &PAIRS[..], 8),
        (2, [2, 2], &[0, 2, 1, 3], &squares[..], 15),
    ] {
        let length = grid[0] * grid[1];
        for course in [RELEASED, PAPER, MASKS, STRONG] {
            let chain = course.chain(timesteps, codes);
            let schedule = course.schedule(timesteps, codes);
            let oracle = Oracle::new(&chain, length, data);
            let p = |t: i64, x: usize, token: usize| oracle.p(t, x, token);
            let prior = chain.prior();
            for (steps, times) in [(1, Times::Even), (3, Times::Cosine), (4, Times::Even)] {
                let sides = grid.map(|side| side as i64);
                let plan = spread(steps, times).plan(&schedule, sides).unwrap();
                let visited: Vec<_> = plan
                    .steps()
                    .iter()
                    .map(|step| (step.network, step.from, step.to))
                    .collect();
                let law = ordered_law(&chain, &visited, &prior, order, grid, &p);
                let tokens = tokens_of(&plan, &oracle, &seeds(first, 20_000));
                first += 20_000;
                let rows: Vec<i64> = integers(&tokens)
                    .chunks(length)
                    .map(|x| x.iter().fold(0, |index, &x| index * codes as i64 + x))
                    .collect();
                let what = format!("{} {grid:?} {steps} {times:?} steps", course.name);
                assert_fits(&what, &rows, &law, degrees);
            }
        }
    }
}

/// As many steps as tokens, each revealing one: the order does not matter, and the law is that
/// of the data.
#[test]
fn one_token_a_step_is_exact() {
    // c̄ of the sixth of 12 times is half of the last.
    let halves = Course {
        gamma: [1.0 / 12.0, 1.0],
        ..MASKS
    };
    let chain = halves.chain(12, 3);
    let schedule = halves.schedule(12, 3);
    assert!((schedule.at(5).mask - 0.5).abs() < 1e-12 && schedule.at(11).mask == 1.0);
    let oracle = Oracle::new(&chain, 2, &PAIRS);
    let plan = spread(2, Times::Even).plan(&schedule, [1, 2]).unwrap();
    assert_eq!(plan.visited(), [11, 5]);
    let tokens = tokens_of(&plan, &oracle, &seeds(40_000_000, 20_000));
    assert_fits("one token a step", &pair_index(&tokens), &PAIRS, 8);
}

/// A step reveals the share of the tokens that the schedule says, to within one token, and
/// those of one step are the next of the sequence.
#[test]
fn counts_are_nearly_fixed_and_steps_follow_the_sequence() {
    let schedule = MASKS.schedule(20, 4);
    let grid = [8i64, 6];
    let (rows, columns) = (8usize, 6usize);
    let order = halton(rows, columns);
    for options in [spread(7, Times::Cosine), spread(5, Times::Even)] {
        let plan = options.plan(&schedule, grid).unwrap();
        let many = seeds(5, 60);
        let (steps, end) = followed(&options, MASKS, grid, &many);
        for (revealed, &seed) in steps.chunks(rows * columns).zip(&many) {
            for (i, step) in plan.steps().iter().enumerate() {
                let count = revealed.iter().filter(|&&at| at == i as i64).count() as f64;
                let share = schedule.at(step.from).mask - schedule.at(step.to).mask;
                let wanted = 48.0 * share / schedule.at(19).mask;
                assert!((count - wanted).abs() < 1.0, "{count} for {wanted}");
            }
            // Along the sequence from some offset the steps never fall.
            let follows = (0..48).any(|offset| {
                let along: Vec<i64> = order
                    .iter()
                    .map(|&cell| {
                        let row = (cell / columns + offset / columns) % rows;
                        revealed[row * columns + (cell + offset) % columns]
                    })
                    .collect();
                along.is_sorted()
            });
            assert!(follows, "seed {seed}: {revealed:?}");
        }
        // Alone as among others.
        for (i, &seed) in many.iter().enumerate().take(8) {
            let alone = followed(&options, MASKS, grid, &[seed]);
            let part = 48 * i..48 * (i + 1);
            assert_eq!(
                (&steps[part.clone()], &end[part]),
                (&alone.0[..], &alone.1[..])
            );
        }
        // Not one order for all pictures.
        assert!(steps.chunks(48).any(|other| other != &steps[..48]));
    }
}

#[test]
fn kept_tokens_stay_and_partial_runs_end() {
    let schedule = PAPER.schedule(20, 4);
    let x_0 = Tensor::from_slice(&(0..24).map(|i| i % 4).collect::<Vec<i64>>()).view([1, 24]);
    let redrawn = Tensor::arange(24, (Kind::Int64, Device::Cpu))
        .remainder(3)
        .eq(0)
        .view([1, 24]);
    for strength in [1.0, 0.5] {
        let plan = spread(6, Times::Cosine).plan(&schedule, [4, 6]).unwrap();
        let plan = plan.with_strength(strength).unwrap();
        let mut noise = HostNoise::new(&[3]);
        let start = start_from(&plan, &x_0, Some(&redrawn), &mut noise);
        let mut denoise = |query: Query| {
            let active = query.positions.unwrap().size()[1];
            Prediction {
                conditional: Tensor::zeros([1, active, 4], (Kind::Float, Device::Cpu)),
                unconditional: None,
            }
        };
        let end = finished(sample(
            &plan,
            start,
            &mut denoise,
            &mut noise,
            &mut unobserved,
        ));
        assert!(end.lt(4).all().int64_value(&[]) == 1);
        assert!(x_0.where_self(&redrawn, &end).equal(&x_0), "{strength}");
    }
}

#[test]
fn impossible_orders_are_refused_by_name() {
    let refused = |options: SamplerConfig, course: Course| match options
        .plan(&course.schedule(10, 5), [2, 2])
    {
        Err(SamplerError::Option { option, found, .. }) => Some((option, found)),
        _ => None,
    };
    let wanted = Some(("order", "halton".to_string()));
    let halton = spread(10, Times::Even);
    for rule in [ReverseRule::Official, ReverseRule::Diffusers] {
        let options = SamplerConfig {
            rule,
            ..halton.clone()
        };
        assert_eq!(refused(options, RELEASED), wanted);
    }
    let revealing = Some(Revealing {
        purity: None,
        tokens_per_evaluation: 3,
    });
    let counted = SamplerConfig {
        revealing,
        ..halton.clone()
    };
    assert_eq!(refused(counted, RELEASED), wanted);
    assert_eq!(refused(halton.clone(), UNIFORM), wanted);
    assert_eq!(refused(halton, RELEASED), None);
}
