//! Whole runs against the enumerated law of their steps.

use std::collections::HashMap;
use std::ops::ControlFlow;

use tch::{Device, Kind, Tensor};
use vqdiffusion::diffusion::guidance::Prediction;
use vqdiffusion::diffusion::noise::Draw;
use vqdiffusion::diffusion::posterior::{reverse_step, Posterior, StepNoise};
use vqdiffusion::diffusion::purity::Revealing;
use vqdiffusion::diffusion::sampler::activity::{Activity, Widths};
use vqdiffusion::diffusion::sampler::times::even;
use vqdiffusion::diffusion::sampler::{
    sample, start, start_from, Progress, Query, Reuse, SamplerError,
};
use vqdiffusion::diffusion::truncation::Truncation;
use vqdiffusion::diffusion::{HostNoise, Noise, ReverseRule, SamplerConfig};

use crate::diffusion::enumeration::*;

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
        let plan = exact.plan(&course.schedule(5, 4), [1, n]).unwrap();
        let x = start(&plan, 2, &mut HostNoise::new(&[3, 4]));
        assert_eq!(x.size(), [2, n]);
        let degrees = law.iter().filter(|&&p| p > 0.0).count() - 1;
        assert_fits(course.name, &integers(&x), &law, degrees);
    }
    for rule in [ReverseRule::Official, ReverseRule::Diffusers] {
        let plan = config(rule, 5)
            .plan(&STRONG.schedule(5, 4), [1, 7])
            .unwrap();
        let x = start(&plan, 2, &mut HostNoise::new(&[3, 4]));
        assert_eq!(integers(&x), vec![4; 14]);
        // A model that never masks cannot start from masks.
        let error = config(rule, 5).plan(&UNIFORM.schedule(5, 4), [1, 7]);
        assert!(matches!(
            error,
            Err(SamplerError::Option { option: "rule", .. })
        ));
    }
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
                let plan = config.plan(&schedule, [1, 1]).unwrap();
                let tokens = tokens_of(&plan, &oracle, &seeds(first, 20_000));
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
            let plan = config(rule, 4)
                .plan(&course.schedule(4, 3), [1, 1])
                .unwrap();
            let tokens = tokens_of(&plan, &oracle, &seeds(first, 20_000));
            assert_fits(course.name, &integers(&tokens), &data, 2);
            first += 20_000;
        }
    }
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
        let prior = match rule {
            ReverseRule::Exact => chain.prior(),
            _ => identity(codes + 1)[codes].clone(),
        };
        let law = sampler_law(&chain, steps, &[prior.clone(), prior], &[false; 2], &p);
        assert!((law.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{what}");
        let config = SamplerConfig {
            guidance,
            truncation,
            ..config(rule, steps.len())
        };
        let plan = config
            .plan(&course.schedule(timesteps, codes), [1, 2])
            .unwrap();
        let seeds = seeds(first, 20_000);
        first += 20_000;
        let mut noise = HostNoise::new(&seeds);
        let x = start(&plan, seeds.len() as i64, &mut noise);
        let mut denoise = |query: Query| Prediction {
            conditional: given.logits(&query),
            unconditional: query.null.then(|| null.logits(&query)),
        };
        let tokens = finished(sample(&plan, x, &mut denoise, &mut noise, &mut unobserved));
        assert_fits(&what, &pair_index(&tokens), &law, 8);
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
        let start: Vec<Vec<f64>> = (0..2)
            .map(|l| match (redrawn[l], steps.get(skipped), rule) {
                (false, ..) | (_, None, _) => identity(codes + 1)[x_0[l]].clone(),
                (true, Some(&(t, ..)), _) if skipped > 0 => chain.between(-1, t)[x_0[l]].clone(),
                (true, _, ReverseRule::Exact) => chain.prior(),
                (true, ..) => identity(codes + 1)[codes].clone(),
            })
            .collect();
        let kept = redrawn.map(|redrawn| !redrawn);
        let law = sampler_law(&chain, &steps[skipped..], &start, &kept, &p);

        let schedule = course.schedule(timesteps, codes);
        let plan = config(rule, steps.len())
            .plan(&schedule, [1, 2])
            .and_then(|plan| plan.with_strength(strength))
            .unwrap();
        let seeds = seeds(first, 20_000);
        first += 20_000;
        let mut noise = HostNoise::new(&seeds);
        let pictures = Tensor::from_slice(&x_0.map(|x| x as i64)).repeat([20_000, 1]);
        let redrawn = Tensor::from_slice(&redrawn).repeat([20_000, 1]);
        let start = start_from(&plan, &pictures, Some(&redrawn), &mut noise);
        let mut denoise = |query: Query| Prediction {
            conditional: oracle.logits(&query),
            unconditional: None,
        };
        let tokens = finished(sample(
            &plan,
            start,
            &mut denoise,
            &mut noise,
            &mut unobserved,
        ));
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
    let plan = config.plan(&schedule, [1, length]).unwrap();
    for redrawn in [1i64, 5, 12] {
        let x_0 = Tensor::arange(length, (Kind::Int64, Device::Cpu)).remainder(codes);
        let x_0 = x_0.repeat([2, 1]);
        let chosen = Tensor::arange(length, (Kind::Int64, Device::Cpu)).lt(redrawn);
        let chosen = chosen.repeat([2, 1]);
        let mut noise = HostNoise::new(&[1, 2]);
        let start = start_from(&plan, &x_0, Some(&chosen), &mut noise);
        let mut asked = 0;
        let mut denoise = |query: Query| {
            asked += 1;
            Prediction {
                conditional: Tensor::zeros(
                    [query.x_t.size()[0], length, codes],
                    (Kind::Float, Device::Cpu),
                ),
                unconditional: None,
            }
        };
        let mut masked = Vec::new();
        let mut observe = |step: Progress| {
            masked.push(step.tokens.eq(codes).sum(Kind::Int64).int64_value(&[]) / 2);
            ControlFlow::Continue(())
        };
        let tokens = finished(sample(&plan, start, &mut denoise, &mut noise, &mut observe));
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
        let plan = config.plan(&schedule, [1, length]).unwrap();
        assert_eq!(plan.with_strength(strength).is_ok(), possible, "{strength}");
    }
    for strength in [-0.1, 1.1, f64::NAN] {
        let plan = config.plan(&schedule, [1, length]).unwrap();
        assert!(matches!(
            plan.with_strength(strength),
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
            let plan = config.plan(&schedule, [1, length]).unwrap();
            let planned = even(steps, timesteps);
            let (mut calls, mut skipped) = (0, 0);
            for batch in [seeds(0, 1), seeds(7, 1), seeds(20, 3), seeds(30, 8)] {
                let n = batch.len() as i64;
                let mut noise = HostNoise::new(&batch);
                let start = start(&plan, n, &mut noise);

                // Every position at every step, with the same noise.
                let mut dense = start.copy();
                let mut history = Vec::new();
                for (i, step) in planned.iter().enumerate() {
                    let posterior = Posterior::new(&schedule, step.to, step.from);
                    let mut number = |draw| noise.uniform(i, draw, &[n, length]);
                    let numbers = StepNoise {
                        code: number(Draw::Code),
                        choice: number(Draw::Choice),
                        replacement: number(Draw::Replacement),
                    };
                    let t = Tensor::from_slice(&[step.network]);
                    let query = Query {
                        x_t: &dense,
                        t: &t,
                        positions: None,
                        null: false,
                        reuse: Reuse::Nothing,
                    };
                    let p = oracle.logits(&query).softmax(-1, Kind::Float);
                    dense = reverse_step(&posterior, &p, &dense, &numbers);
                    history.push(integers(&dense));
                }

                // What the sampler does.
                let asked = std::cell::RefCell::new(HashMap::new());
                let mut denoise = |query: Query| {
                    let at = query
                        .positions
                        .expect("the exact sampler names its positions");
                    let time = query.t.int64_value(&[0]);
                    let before = asked.borrow_mut().insert(time, at.copy());
                    assert!(before.is_none(), "time {time} asked twice");
                    Prediction {
                        conditional: oracle.logits(&query),
                        unconditional: None,
                    }
                };
                let mut before = integers(&start);
                let mut done = 0;
                let mut observe = |progress: Progress| {
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
                    ControlFlow::Continue(())
                };
                let tokens = sample(&plan, start.copy(), &mut denoise, &mut noise, &mut observe);
                let tokens = finished(tokens);
                assert_eq!(done, steps);
                assert_eq!(integers(&tokens), history[steps - 1]);
                let evaluations = asked.borrow().len();
                calls += evaluations;
                skipped += steps - evaluations;

                // The same activity from the noise alone.
                let posteriors: Vec<_> = planned
                    .iter()
                    .map(|s| Posterior::new(&schedule, s.to, s.from))
                    .collect();
                let masked = start.eq(codes as i64);
                let activity =
                    Activity::new(&posteriors, &masked, None, None, &mut noise, Widths::Own);
                assert_eq!(activity.evaluations(), evaluations);
                for (i, step) in planned.iter().enumerate() {
                    let asked = asked.borrow();
                    let active = activity.at(i).map(|active| integers(&active.positions));
                    assert_eq!(active, asked.get(&step.network).map(integers));
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
            let Ok(plan) = config(rule, timesteps).plan(&schedule, [1, 2]) else {
                assert!(rule != ReverseRule::Exact && course.name == "uniform");
                continue;
            };
            let batch = [5u64, 900, 5, 17, 3, 123_456_789, u64::MAX, 0];
            let together = integers(&tokens_of(&plan, &oracle, &batch));
            for (i, &seed) in batch.iter().enumerate() {
                let alone = integers(&tokens_of(&plan, &oracle, &[seed]));
                assert_eq!(
                    alone,
                    together[2 * i..2 * i + 2],
                    "{} {rule:?}",
                    course.name
                );
            }
            assert_eq!(together[..2], together[4..6]);
            let many = integers(&tokens_of(&plan, &oracle, &seeds(0, 64)));
            assert!(many.chunks(2).any(|x| x != &many[..2]), "seeds matter");
        }
    }
}
