//! Fixed-count revealing: counts, numbers of evaluations, choice of positions.

use std::cell::Cell;
use std::ops::ControlFlow;

use tch::{Device, Kind, Tensor};
use vqdiffusion::diffusion::compat::official::n_sample;
use vqdiffusion::diffusion::guidance::Prediction;
use vqdiffusion::diffusion::noise::Draw;
use vqdiffusion::diffusion::purity::{
    batch_of, choose_positions, evaluations, reveal_counts, scores, sharpen, Revealing,
};
use vqdiffusion::diffusion::sampler::times::even;
use vqdiffusion::diffusion::sampler::{sample, start, Progress, Query};
use vqdiffusion::diffusion::truncation::Truncation;
use vqdiffusion::diffusion::{
    HostNoise, Noise, RevealOrder, ReverseRule, SamplerConfig, Schedule, Times, Transition,
};

use crate::diffusion::enumeration::{finished, floats, integers, steps, unobserved};
use crate::diffusion::paper;

const RULES: [ReverseRule; 3] = [
    ReverseRule::Exact,
    ReverseRule::Official,
    ReverseRule::Diffusers,
];

fn config(rule: ReverseRule, steps: usize, purity: Option<f64>, limit: usize) -> SamplerConfig {
    SamplerConfig {
        steps,
        times: Times::Even,
        order: RevealOrder::Independent,
        guidance: 1.0,
        guidance_span: None,
        local_steps: 0,
        truncation: Truncation::Off,
        revealing: Some(Revealing {
            purity,
            tokens_per_evaluation: limit,
        }),
        rule,
    }
}

#[test]
fn official_tables() {
    // T, prior_ps | first two, last two | Σ, Σ without index 0
    for (timesteps, limit, first, last, total, rest) in [
        (100, 1024, [1, 10], [11, 11], 1025, 1024),
        (100, 11, [1, 10], [11, 11], 1025, 1024),
        (100, 10, [1, 6], [11, 15], 1025, 1024),
        (100, 1, [1, 6], [11, 15], 1025, 1024),
        (50, 1024, [10, 21], [20, 30], 1024, 1014),
        (25, 1024, [21, 41], [41, 60], 1024, 1003),
        (10, 1024, [69, 102], [102, 139], 1024, 955),
    ] {
        let counts = n_sample(timesteps, 1024, limit).unwrap();
        assert_eq!(counts.len(), timesteps);
        assert_eq!(counts[..2], first);
        assert_eq!(counts[timesteps - 2..], last);
        assert_eq!(counts.iter().sum::<usize>(), total);
        assert_eq!(counts[1..].iter().sum::<usize>(), rest);
    }
    let counts = n_sample(100, 1024, 1024).unwrap();
    for (i, count) in counts[2..98].iter().enumerate() {
        assert_eq!(*count, [11, 10, 10][i % 3]);
    }
    for (timesteps, tokens) in [(100, 256), (99, 1024), (20, 1024), (1, 1024)] {
        assert_eq!(n_sample(timesteps, tokens, 1024), None);
    }
}

#[test]
fn evaluations_reveal_at_most_the_limit() {
    // missing, limit → revealed: a single leftover is taken along
    for (missing, limit, count) in [
        (10, 1024, 10),
        (10, 10, 10),
        (10, 9, 10),
        (10, 8, 8),
        (3, 1, 1),
        (2, 1, 2),
        (1, 1, 1),
    ] {
        assert_eq!(batch_of(missing, limit), count);
    }
    for (missing, limit, counts) in [
        (0, 5, &[][..]),
        (10, 1024, &[10]),
        (10, 3, &[3, 3, 4]),
        (5, 1, &[1, 1, 1, 2]),
    ] {
        assert_eq!(evaluations(missing, limit).collect::<Vec<_>>(), counts);
    }
}

#[test]
fn general_counts_cover_every_token() {
    let transitions = [
        Transition::released(),
        paper(),
        Transition::MaskOnly { gamma: [0.1, 1.0] },
    ];
    for transition in &transitions {
        for timesteps in [1usize, 2, 7, 50, 100] {
            let schedule = Schedule::new(transition, timesteps, 5);
            for tokens in [1usize, 2, 16, 256, 1000, 1024, 4096] {
                for steps in [1, 2, 5, timesteps] {
                    if steps > timesteps {
                        continue;
                    }
                    let steps = even(steps, timesteps);
                    let times: Vec<_> = steps.iter().map(|s| (s.from, s.to)).collect();
                    let counts = reveal_counts(&schedule, &times, tokens);
                    assert_eq!(counts.len(), steps.len());
                    assert_eq!(counts.iter().sum::<usize>(), tokens);
                    // After each step the expected number is masked, to one half.
                    let first = schedule.at(times[0].0).mask;
                    let mut masked = tokens as f64;
                    for (count, &(_, to)) in counts.iter().zip(&times) {
                        masked -= *count as f64;
                        let expected = tokens as f64 * schedule.at(to).mask / first;
                        assert!((masked - expected).abs() <= 0.5 + 1e-9);
                    }
                }
            }
        }
    }
}

/// Runs `config` on a network of constant logits; checks that before the last step
/// visible tokens stay and `per_step` are revealed (`None`: whatever), and returns
/// the evaluations and the tokens.
fn run(
    config: &SamplerConfig,
    schedule: &Schedule,
    tokens: i64,
    seeds: &[u64],
    per_step: Option<&[usize]>,
) -> (usize, Vec<i64>) {
    let codes = schedule.codes();
    let plan = config.plan(schedule, [1, tokens]).unwrap();
    let mut noise = HostNoise::new(seeds);
    let batch = seeds.len() as i64;
    let start = start(&plan, batch, &mut noise);
    let logits = Tensor::arange(tokens * codes, (Kind::Float, Device::Cpu))
        .sin()
        .view([1, tokens, codes])
        .repeat([batch, 1, 1]);
    let evaluations = Cell::new(0);
    let mut known = integers(&start);
    let masked = |x: &[i64]| x.iter().filter(|&&x| x == codes).count();
    let last = Cell::new(false);
    let mut denoise = |query: Query| {
        assert!(query.positions.is_none());
        evaluations.set(evaluations.get() + 1);
        let x = integers(query.x_t);
        for (before, after) in known.iter().zip(&x) {
            assert!(before == after || *before == codes, "a token was revised");
        }
        known = x;
        Prediction {
            conditional: logits.shallow_clone(),
            unconditional: None,
        }
    };
    let mut before = integers(&start);
    let mut observe = |progress: Progress| {
        let after = integers(progress.tokens);
        last.set(progress.done == progress.steps);
        if let (Some(counts), false) = (per_step, last.get()) {
            let revealed = masked(&before) - masked(&after);
            assert_eq!(revealed, counts[progress.done - 1] * seeds.len());
        }
        before = after;
        ControlFlow::Continue(())
    };
    let x = finished(sample(&plan, start, &mut denoise, &mut noise, &mut observe));
    assert!(last.get());
    let x = integers(&x);
    assert!(x.iter().all(|&x| (0..codes).contains(&x)));
    (evaluations.get(), x)
}

#[test]
fn evaluations_of_the_official_inference_speeds() {
    let schedule = Schedule::new(&Transition::released(), 100, 3);
    for (speed, expected) in [
        (0.1, 926),
        (0.2, 496),
        (0.3, 332),
        (0.5, 199),
        (0.7, 198),
        (0.9, 134),
    ] {
        let limit = (10.0 * speed) as usize; // prior_ps = int(10 · X)
        let table = n_sample(100, 1024, limit).unwrap();
        let per_step: Vec<usize> = table.into_iter().rev().collect();
        for purity in [None, Some(0.0), Some(2.0)] {
            if purity.is_none() && expected > 200 {
                continue;
            }
            let config = config(ReverseRule::Official, 100, purity, limit);
            let (evaluations, _) = run(&config, &schedule, 1024, &[1], Some(&per_step));
            assert_eq!(
                evaluations, expected,
                "infer_speed {speed} purity {purity:?}"
            );
        }
    }
    // Rule 2 with the default prior_ps.
    let table = n_sample(100, 1024, 1024).unwrap();
    let per_step: Vec<usize> = table.into_iter().rev().collect();
    for rule in [ReverseRule::Official, ReverseRule::Diffusers] {
        let config = config(rule, 100, Some(0.0), 1024);
        let (evaluations, _) = run(&config, &schedule, 1024, &[1, 2], Some(&per_step));
        assert_eq!(evaluations, 100);
    }
}

/// On a small grid the schedule masks less than half a token at time 0, so that
/// n_sample[0] is 0: the original then makes no call there, and what was revealed stays.
#[test]
fn official_rule_makes_no_call_where_nothing_is_revealed() {
    let schedule = Schedule::new(&Transition::released(), 100, 3);
    // By hand: c̄ is linear in t and c̄_0 ≈ 0, so that 36·t/99 tokens are masked after
    // the step to t: one token at each of 36 steps, none at the step from 0 to −1.
    let masked = |t: i64| (36.0 * t as f64 / 99.0).round() as usize;
    let by_hand: Vec<usize> = steps(ReverseRule::Official, 100, 100)
        .unwrap()
        .iter()
        .map(|s| masked(s.from) - masked(s.to.max(0)))
        .collect();
    assert_eq!((by_hand.iter().sum::<usize>(), by_hand[99]), (36, 0));
    for (limit, evaluations) in [(1024, 36), (1, 36)] {
        for purity in [None, Some(0.0), Some(1.0)] {
            let official = config(ReverseRule::Official, 100, purity, limit);
            let (calls, _) = run(&official, &schedule, 36, &[3, 4], Some(&by_hand));
            assert_eq!(calls, evaluations, "limit {limit} purity {purity:?}");
            // The exact kernel has a step at time 0 like any other.
            let exact = config(ReverseRule::Exact, 100, purity, limit);
            let (calls, _) = run(&exact, &schedule, 36, &[3, 4], Some(&by_hand));
            assert_eq!(calls, evaluations + 1);
        }
    }
    // A table that leaves tokens masked at time 0 still makes the step there.
    let mut table: Vec<usize> = by_hand.iter().rev().copied().collect();
    let revealing = table.iter().position(|&count| count > 0).unwrap();
    table[revealing] = 0;
    let official = config(ReverseRule::Official, 100, Some(1.0), 1024);
    let plan = official
        .plan(&schedule, [1, 36])
        .unwrap()
        .with_reveal_counts(&table);
    let mut noise = HostNoise::new(&[3]);
    let start = start(&plan, 1, &mut noise);
    let times = std::cell::RefCell::new(Vec::new());
    let mut denoise = |query: Query| {
        times.borrow_mut().push(query.t.int64_value(&[0]));
        Prediction {
            conditional: Tensor::zeros([1, 36, 3], (Kind::Float, Device::Cpu)),
            unconditional: None,
        }
    };
    let x = finished(sample(
        &plan,
        start,
        &mut denoise,
        &mut noise,
        &mut unobserved,
    ));
    assert!(integers(&x).iter().all(|&x| x < 3));
    assert_eq!(times.borrow().len(), 36);
    assert_eq!(times.borrow().last(), Some(&0));
}

#[test]
fn every_rule_and_number_of_steps_reveals() {
    for tokens in [1024i64, 60, 1] {
        for timesteps in [100usize, 10, 1] {
            let schedule = Schedule::new(&Transition::released(), timesteps, 3);
            for rule in RULES {
                for count in [100usize, 51, 10, 2, 1] {
                    if steps(rule, count, timesteps).is_err() {
                        continue;
                    }
                    let config = config(rule, count, Some(1.0), 1024);
                    let (evaluations, _) = run(&config, &schedule, tokens, &[5], None);
                    // Steps without a masked position or a count ask nothing.
                    assert!(evaluations <= count && evaluations >= 1);
                    assert!(tokens < 1024 || evaluations == count);
                }
            }
        }
    }
    // One kind of limit: no evaluation reveals more than 7 (or 8, with a leftover).
    let schedule = Schedule::new(&Transition::released(), 10, 3);
    let times: Vec<_> = even(4, 10).iter().map(|s| (s.from, s.to)).collect();
    let counts = reveal_counts(&schedule, &times, 60);
    let config = config(ReverseRule::Exact, 4, None, 7);
    let (evaluations, _) = run(&config, &schedule, 60, &[1, 2, 3], Some(&counts));
    // 18, 18, 12 or so a step: 3 + 3 + 2 evaluations by hand, and the last step.
    let by_hand = |count: usize| {
        if count % 7 == 1 {
            count / 7
        } else {
            count.div_ceil(7)
        }
    };
    let expected: usize = counts[..3].iter().map(|&c| by_hand(c)).sum();
    assert_eq!(evaluations, expected + 1);
}

#[test]
fn revealing_does_not_depend_on_the_batch() {
    // The paper's prior leaves a tenth of x_T visible, not the same number in each
    // image, so images run out of masked positions at different steps.
    for transition in [Transition::released(), paper()] {
        let schedule = Schedule::new(&transition, 12, 4);
        for rule in RULES {
            let config = config(rule, 12, Some(1.5), 3);
            let seeds = [9u64, 1, 2, 3, 4, 5, 9];
            let (_, together) = run(&config, &schedule, 40, &seeds, None);
            for (i, &seed) in seeds.iter().enumerate() {
                let (_, alone) = run(&config, &schedule, 40, &[seed], None);
                assert_eq!(alone, together[40 * i..40 * (i + 1)], "{rule:?} image {i}");
            }
        }
    }
}

#[test]
fn chosen_positions_are_masked_and_proportional_to_scores() {
    let n = 100_000i64;
    let weights = [0.1, 0.2, 0.3, 0.15, 0.25, 1.0];
    let visible = [false, false, true, false, false, true];
    let scores = Tensor::from_slice(&weights)
        .to_kind(Kind::Float)
        .expand([n, 6], false);
    let masked = Tensor::from_slice(&visible)
        .logical_not()
        .expand([n, 6], false);
    let seeds: Vec<u64> = (0..n as u64).collect();
    let exponential = HostNoise::new(&seeds).exponential(0, Draw::Position, &[n, 6]);
    let chosen = choose_positions(&scores, &masked, &exponential, 2);
    assert_eq!(chosen.size(), [n, 2]);
    let chosen = integers(&chosen);
    // Ordered pairs without replacement: p_i · p_j / (1 − p_i) among 0, 1, 3, 4.
    let total = 0.1 + 0.2 + 0.15 + 0.25;
    let (mut statistic, mut cells) = (0.0, 0);
    for i in 0..6 {
        for j in 0..6 {
            let count = chosen.chunks(2).filter(|c| **c == [i, j]).count() as f64;
            let (i, j) = (i as usize, j as usize);
            if i == j || visible[i] || visible[j] {
                assert_eq!(count, 0.0);
                continue;
            }
            let expected = n as f64 * weights[i] / total * weights[j] / (total - weights[i]);
            statistic += (count - expected).powi(2) / expected;
            cells += 1;
        }
    }
    // 1e-4 quantile for 11 degrees of freedom.
    assert_eq!(cells, 12);
    assert!(statistic < 37.3670, "chi-square {statistic}");

    // Extremes: exponential numbers of 0, scores of 0.
    let row = |values: &[f64]| Tensor::from_slice(values).view([1, -1]);
    let masked = row(&[0.0, 1.0, 1.0, 0.0]).gt(0.5);
    for exponential in [[0.0, 1.0, 1.0, 0.0], [1e-300, 50.0, 50.0, 1e-300]] {
        for scores in [[1.0, 0.5, 0.5, 1.0], [1.0, 0.0, 0.0, 1.0], [0.0; 4]] {
            let chosen = choose_positions(&row(&scores), &masked, &row(&exponential), 2);
            let mut chosen = integers(&chosen);
            chosen.sort_unstable();
            assert_eq!(chosen, [1, 2], "scores {scores:?}");
        }
    }
}

#[test]
fn purity_scores_and_sharpening() {
    let p = [0.5, 0.3, 0.2, 0.9, 0.05, 0.05, 0.4, 0.4, 0.2];
    let log_p = Tensor::from_slice(&p).log().view([1, 3, 3]);
    assert_eq!(floats(&scores(&log_p, None)), [1.0; 3]);
    let purity = scores(&log_p, Some(2.0));
    let expected = [0.5 / 0.9, 1.0, 0.4 / 0.9];
    for (found, expected) in floats(&purity).iter().zip(expected) {
        assert!((found - expected).abs() < 1e-9);
    }
    // P ∝ p^(1 + r · score)
    let sharp = floats(&sharpen(&log_p, &purity, 2.0).exp());
    for ((row, sharp), score) in p.chunks(3).zip(sharp.chunks(3)).zip(expected) {
        let powers: Vec<f64> = row
            .iter()
            .map(|p: &f64| p.powf(1.0 + 2.0 * score))
            .collect();
        let total: f64 = powers.iter().sum();
        for (found, power) in sharp.iter().zip(powers) {
            assert!((found - power / total).abs() < 1e-9);
        }
    }
}
