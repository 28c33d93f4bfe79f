//! Uneven times, partial runs of them, and guidance for a part of a run.

use std::ops::ControlFlow;

use tch::{Device, Kind, Tensor};
use vqdiffusion::diffusion::guidance::Prediction;
use vqdiffusion::diffusion::purity::Revealing;
use vqdiffusion::diffusion::sampler::{sample, start, start_from, Progress, Query, SamplerError};
use vqdiffusion::diffusion::{
    HostNoise, RevealOrder, ReverseRule, SamplerConfig, Schedule, Times, Transition,
};

use crate::diffusion::enumeration::*;

fn cosine(steps: usize) -> SamplerConfig {
    SamplerConfig {
        times: Times::Cosine,
        ..config(ReverseRule::Exact, steps)
    }
}

/// Schedules of every kind, also with courses that stand still.
fn schedules(timesteps: usize) -> Vec<Schedule> {
    let flat = [
        Transition::MaskOnly { gamma: [0.5, 0.5] },
        Transition::MaskOnly { gamma: [0.0, 1.0] },
        Transition::Uniform { alpha: [0.3, 0.3] },
        Transition::MaskAndReplace {
            alpha: [0.6, 0.1],
            gamma: [0.2, 0.2],
        },
    ];
    let courses = COURSES.map(|course| course.transition());
    courses
        .iter()
        .chain(&flat)
        .map(|transition| Schedule::new(transition, timesteps, 5))
        .collect()
}

#[test]
fn cosine_times_fall_strictly_for_any_steps_and_schedule() {
    for timesteps in [1usize, 2, 3, 7, 10, 100, 1000] {
        for schedule in schedules(timesteps) {
            for n in (1..=timesteps).filter(|n| timesteps < 100 || n % 7 == 1 || *n == timesteps) {
                let plan = cosine(n).plan(&schedule, [1, 4]).unwrap();
                let times = plan.visited();
                assert_eq!(times.len(), n);
                assert_eq!(times[0], timesteps as i64 - 1);
                assert!(times.windows(2).all(|pair| pair[0] > pair[1]), "{times:?}");
                assert!(times[n - 1] >= 0);
                for (i, step) in plan.steps().iter().enumerate() {
                    let next = times.get(i + 1).copied().unwrap_or(-1);
                    assert_eq!(
                        (step.network, step.from, step.to),
                        (times[i], times[i], next)
                    );
                }
            }
        }
    }
}

#[test]
fn cosine_times_are_nearest_the_cosine() {
    for (course, steps) in [
        (RELEASED, 8),
        (PAPER, 8),
        (MASKS, 5),
        (UNIFORM, 8),
        (STRONG, 4),
    ] {
        let schedule = course.schedule(1000, 5);
        let plan = cosine(steps).plan(&schedule, [1, 4]).unwrap();
        for (i, t) in plan.visited().into_iter().enumerate().skip(1) {
            let wanted = (std::f64::consts::PI * i as f64 / (2 * steps) as f64).cos();
            let distance = |t: i64| (1.0 - schedule.at(t).keep - wanted).abs();
            let least = (0..1000).map(distance).fold(f64::INFINITY, f64::min);
            assert!(distance(t) <= least + 1e-12, "{} step {i}", course.name);
        }
    }
    // The released schedule is linear in t: 99 cos(πi/16), rounded.
    let schedule = RELEASED.schedule(100, 5);
    let plan = cosine(8).plan(&schedule, [1, 4]).unwrap();
    assert_eq!(plan.visited(), [99, 97, 91, 82, 70, 55, 38, 19]);
    // As many steps as times: all of them.
    let plan = cosine(100).plan(&schedule, [1, 4]).unwrap();
    assert_eq!(plan.visited(), (0..100).rev().collect::<Vec<_>>());
}

/// The law of an uneven run is the product of exact posteriors.
#[test]
fn cosine_runs_have_the_enumerated_law() {
    let (timesteps, codes) = (12usize, 3usize);
    let mut first = 3_000_000;
    for course in [RELEASED, PAPER, MASKS, UNIFORM, STRONG] {
        let chain = course.chain(timesteps, codes);
        let schedule = course.schedule(timesteps, codes);
        let oracle = Oracle::new(&chain, 2, &PAIRS);
        let p = |t: i64, x: usize, position: usize| oracle.p(t, x, position);
        for steps in [1, 2, 4] {
            let plan = cosine(steps).plan(&schedule, [1, 2]).unwrap();
            let even = config(ReverseRule::Exact, steps)
                .plan(&schedule, [1, 2])
                .unwrap();
            assert!(steps < 4 || plan.visited() != even.visited());
            let prior = chain.prior();
            let visited: Vec<_> = plan
                .steps()
                .iter()
                .map(|step| (step.network, step.from, step.to))
                .collect();
            let law = sampler_law(&chain, &visited, &[prior.clone(), prior], &[false; 2], &p);
            let tokens = tokens_of(&plan, &oracle, &seeds(first, 20_000));
            first += 20_000;
            let what = format!("{} {steps} cosine steps", course.name);
            assert_fits(&what, &pair_index(&tokens), &law, 8);
        }
    }
}

/// At which step each position leaves the mask, `[seed][position]`, and the tokens that a run
/// over `grid` ends in; what the network says depends on the tokens and the positions.
pub fn followed(
    options: &SamplerConfig,
    course: Course,
    grid: [i64; 2],
    seeds: &[u64],
) -> (Vec<i64>, Vec<i64>) {
    let (codes, length) = (4i64, grid[0] * grid[1]);
    let plan = options.plan(&course.schedule(20, 4), grid).unwrap();
    let mut noise = HostNoise::new(seeds);
    let x = start(&plan, seeds.len() as i64, &mut noise);
    let mut denoise = |query: Query| {
        let weights = Tensor::arange(length, (Kind::Float, Device::Cpu)).sin();
        let seen = (query.x_t.to_kind(Kind::Float) * weights).sum_dim_intlist(1, true, Kind::Float);
        let at = query.positions.unwrap().to_kind(Kind::Float);
        let codes = Tensor::arange(codes, (Kind::Float, Device::Cpu)) + 1.0;
        // Sharp, and the null condition's the other way round.
        let logits = ((at + seen).unsqueeze(-1) * codes).sin() * 3.0;
        Prediction {
            unconditional: query.null.then(|| -&logits),
            conditional: logits,
        }
    };
    let mut revealed = vec![-1; seeds.len() * length as usize];
    let mut observe = |progress: Progress| {
        for (step, token) in revealed.iter_mut().zip(integers(progress.tokens)) {
            if *step < 0 && token < codes {
                *step = progress.done as i64 - 1;
            }
        }
        ControlFlow::Continue(())
    };
    let end = finished(sample(&plan, x, &mut denoise, &mut noise, &mut observe));
    (revealed, integers(&end))
}

/// Every position is revealed at step i with probability (c̄ before − c̄ after) / c̄_T,
/// wherever it is and in whatever order.
#[test]
fn every_position_has_the_same_law_of_its_reveal_step() {
    let course = MASKS; // all masks at the start
    let schedule = course.schedule(20, 4);
    let even = |steps| config(ReverseRule::Exact, steps);
    let spread = |options: SamplerConfig| SamplerConfig {
        order: RevealOrder::Halton,
        ..options
    };
    for (options, grid) in [
        (cosine(5), [1, 4]),
        (cosine(9), [1, 4]),
        (even(5), [1, 4]),
        (spread(cosine(5)), [2, 2]),
        (spread(even(6)), [2, 3]),
    ] {
        let plan = options.plan(&schedule, grid).unwrap();
        let total = schedule.at(19).mask;
        let law: Vec<f64> = plan
            .steps()
            .iter()
            .map(|step| (schedule.at(step.from).mask - schedule.at(step.to).mask) / total)
            .collect();
        let length = (grid[0] * grid[1]) as usize;
        let (steps, _) = followed(&options, course, grid, &seeds(50, 20_000));
        for position in 0..length {
            let at: Vec<i64> = steps
                .iter()
                .skip(position)
                .step_by(length)
                .copied()
                .collect();
            let what = format!("position {position} of {options:?}");
            assert_fits(&what, &at, &law, law.len() - 1);
        }
    }
}

#[test]
fn guidance_for_a_part_of_a_run_leaves_the_reveal_steps_alone() {
    for course in [MASKS, PAPER, STRONG] {
        let with = |guidance: f64, guidance_span| {
            let options = SamplerConfig {
                guidance,
                guidance_span,
                ..cosine(9)
            };
            followed(&options, course, [1, 4], &seeds(9, 500)).0
        };
        let plain = with(1.0, None);
        for span in [None, Some([0.0, 0.5]), Some([0.2, 0.9]), Some([1.0, 1.0])] {
            assert_eq!(with(4.0, span), plain, "{} {span:?}", course.name);
        }
    }
}

#[test]
fn the_null_condition_is_asked_within_the_span_alone() {
    let (timesteps, codes, length) = (50usize, 3usize, 64i64);
    let schedule = MASKS.schedule(timesteps, codes);
    let revealing = Revealing {
        purity: None,
        tokens_per_evaluation: 1000,
    };
    for (guidance, span, revealing) in [
        (3.0, None, None),
        (3.0, Some([0.0, 1.0]), None),
        (3.0, Some([0.0, 0.4]), None),
        (3.0, Some([0.3, 0.8]), None),
        (3.0, Some([0.3, 0.8]), Some(revealing)),
        (3.0, Some([0.5, 0.5]), None),
        (1.0, None, None),
        (1.0, Some([0.0, 1.0]), None),
    ] {
        let options = SamplerConfig {
            guidance,
            guidance_span: span,
            revealing,
            ..config(ReverseRule::Exact, 25)
        };
        let plan = options.plan(&schedule, [1, length]).unwrap();
        let [from, to] = span.unwrap_or([0.0, 1.0]);
        let inside = |t: i64| {
            let visible = schedule.at(t).keep;
            guidance != 1.0 && from <= visible && visible <= to
        };
        assert_eq!(plan.uses_guidance(), plan.visited().into_iter().any(inside));
        let (mut asked, mut null) = (Vec::new(), Vec::new());
        let mut denoise = |query: Query| {
            let time = query.t.int64_value(&[0]);
            asked.push(time);
            null.extend(query.null.then_some(time));
            let active = query.positions.map_or(length, |at| at.size()[1]);
            let logits = Tensor::zeros([1, active, codes as i64], (Kind::Float, Device::Cpu));
            Prediction {
                unconditional: query.null.then(|| logits.shallow_clone()),
                conditional: logits,
            }
        };
        let mut noise = HostNoise::new(&[2]);
        let x = start(&plan, 1, &mut noise);
        let _ = finished(sample(&plan, x, &mut denoise, &mut noise, &mut unobserved));
        let expected: Vec<i64> = asked.iter().copied().filter(|&t| inside(t)).collect();
        assert_eq!(null, expected, "{guidance} {span:?}");
        assert!(asked.len() >= 20);
    }
}

/// A span of the whole run is no span, to the bit.
#[test]
fn a_span_of_everything_changes_nothing() {
    let course = STRONG;
    let chain = course.chain(12, 3);
    let (given, null) = (
        Oracle::new(&chain, 2, &PAIRS),
        Oracle::new(&chain, 2, &OTHER_PAIRS),
    );
    let run = |guidance, guidance_span| {
        let options = SamplerConfig {
            guidance,
            guidance_span,
            ..config(ReverseRule::Exact, 6)
        };
        let plan = options.plan(&course.schedule(12, 3), [1, 2]).unwrap();
        let seeds = seeds(1, 300);
        let mut noise = HostNoise::new(&seeds);
        let x = start(&plan, 300, &mut noise);
        let mut denoise = |query: Query| Prediction {
            conditional: given.logits(&query),
            unconditional: query.null.then(|| null.logits(&query)),
        };
        integers(&finished(sample(
            &plan,
            x,
            &mut denoise,
            &mut noise,
            &mut unobserved,
        )))
    };
    assert_eq!(run(3.0, Some([0.0, 1.0])), run(3.0, None));
    // Nowhere guided is w = 1.
    assert_eq!(run(3.0, Some([1.0, 1.0])), run(1.0, None));
    assert_ne!(run(3.0, Some([0.0, 0.5])), run(3.0, None));
    assert_ne!(run(3.0, Some([0.0, 0.5])), run(1.0, None));
}

#[test]
fn partial_runs_of_uneven_times_begin_at_the_share_of_noise() {
    let schedule = RELEASED.schedule(100, 5);
    // [99, 97, 91, 82, 70, 55, 38, 19]: shares of about t/99.
    for (strength, begins) in [
        (1.0, Some(99)),
        (0.96, Some(97)),
        (0.5, Some(55)),
        (0.4, Some(38)),
        (0.25, Some(19)),
        (0.01, Some(19)),
        (0.0, None),
    ] {
        let plan = cosine(8).plan(&schedule, [1, 4]).unwrap();
        let plan = plan.with_strength(strength).unwrap();
        assert_eq!(
            plan.visited().first().copied(),
            begins,
            "strength {strength}"
        );
        // A start from a picture holds about that share of noise.
        let x_0 = Tensor::zeros([1, 4], (Kind::Int64, Device::Cpu));
        let start = start_from(&plan, &x_0, None, &mut HostNoise::new(&[1]));
        assert!(begins.is_some() || integers(&start.tokens) == [0; 4]);
    }
    // Even plans by their number of steps, as ever.
    for (strength, run) in [
        (1.0, 8),
        (0.5, 4),
        (0.44, 4),
        (0.43, 3),
        (0.01, 1),
        (0.0, 0),
    ] {
        let plan = config(ReverseRule::Exact, 8)
            .plan(&schedule, [1, 4])
            .unwrap();
        let plan = plan.with_strength(strength).unwrap();
        assert_eq!(plan.steps().len(), run, "strength {strength}");
    }
}

#[test]
fn recorded_times_make_the_same_plan() {
    let schedule = PAPER.schedule(100, 5);
    for options in [cosine(12), config(ReverseRule::Exact, 25)] {
        for strength in [1.0, 0.6] {
            let plan = || {
                let plan = options.plan(&schedule, [1, 4]).unwrap();
                plan.with_strength(strength).unwrap()
            };
            let again = plan().with_visited(&plan().visited()).unwrap();
            assert_eq!(again.steps(), plan().steps());
        }
    }
    let plan = || cosine(3).plan(&schedule, [1, 4]).unwrap();
    let visited = plan().with_visited(&[90, 3, 0]).unwrap();
    assert_eq!(visited.visited(), [90, 3, 0]);
    for times in [&[5, 5][..], &[3, 4], &[100, 1], &[4, -1]] {
        let error = plan().with_visited(times).err();
        assert!(matches!(
            error,
            Some(SamplerError::Option { option: "plan", .. })
        ));
    }
}

#[test]
fn impossible_times_and_spans_are_refused_by_name() {
    let schedule = RELEASED.schedule(10, 5);
    let option = |options: SamplerConfig| match options.plan(&schedule, [1, 4]) {
        Err(SamplerError::Option { option, .. }) => Some(option),
        _ => None,
    };
    let spanned = |rule, span| SamplerConfig {
        guidance: 3.0,
        guidance_span: Some(span),
        ..config(rule, 10)
    };
    for span in [
        [-0.1, 0.5],
        [0.6, 0.5],
        [0.0, 1.1],
        [f64::NAN, 1.0],
        [0.0, f64::NAN],
    ] {
        assert_eq!(
            option(spanned(ReverseRule::Exact, span)),
            Some("guidance span")
        );
    }
    assert_eq!(option(spanned(ReverseRule::Exact, [0.5, 0.5])), None);
    for rule in [ReverseRule::Official, ReverseRule::Diffusers] {
        assert_eq!(option(spanned(rule, [0.0, 0.5])), Some("guidance span"));
        let uneven = SamplerConfig {
            times: Times::Cosine,
            ..config(rule, 10)
        };
        assert_eq!(option(uneven), Some("times"));
        let plan = config(rule, 10).plan(&schedule, [1, 4]).unwrap();
        assert!(plan.with_visited(&[9, 3]).is_err());
    }
}
