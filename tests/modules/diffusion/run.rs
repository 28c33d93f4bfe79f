//! What a run asks the network and tells its observer.

use std::cell::Cell;
use std::ops::ControlFlow;

use tch::{Device, Kind, Tensor};
use vqdiffusion::diffusion::guidance::Prediction;
use vqdiffusion::diffusion::purity::Revealing;
use vqdiffusion::diffusion::sampler::activity::Widths;
use vqdiffusion::diffusion::sampler::exact;
use vqdiffusion::diffusion::sampler::fixed::{self, FixedSteps};
use vqdiffusion::diffusion::sampler::{sample, start, Progress, Query, Start, Stopped};
use vqdiffusion::diffusion::truncation::Truncation;
use vqdiffusion::diffusion::{HostNoise, RevealOrder, ReverseRule, SamplerConfig, Schedule, Times};
use vqdiffusion::torch::cuda::prefer_flash_attention;
use vqdiffusion::torch::host::values;
use vqdiffusion::torch::params::RandomWeights;
use vqdiffusion::torch::Params;
use vqdiffusion::transformer::config::{
    Activation, AdaptiveNorm, FeedForwardKind, IndexEmbedding, PositionWeights,
};
use vqdiffusion::transformer::{Condition, Conditioning, Denoiser, DenoiserConfig, NullClass};

use crate::diffusion::enumeration::*;
use crate::diffusion::paper;
use crate::drawn::drawn;

/// A network of its own for every position: logits that depend on all tokens and the time.
fn network(codes: i64) -> impl Fn(&Query) -> Tensor {
    move |query: &Query| {
        let length = query.x_t.size()[1];
        let sum = query.x_t.sum_dim_intlist(1, true, Kind::Double); // [B, 1]
        let place = Tensor::arange(length * codes, (Kind::Double, Device::Cpu));
        let phase = (sum * 0.7 + query.t.double_value(&[0]) * 0.3).unsqueeze(-1); // [B, 1, 1]
        let logits = (place.view([1, length, codes]) * 1.3 + phase).sin() * 3.0;
        let logits = logits.to_kind(Kind::Float);
        match query.positions {
            None => logits,
            Some(at) => {
                let at = at.unsqueeze(-1).expand([-1, -1, codes], false);
                logits.gather(1, &at, false)
            }
        }
    }
}

#[test]
fn few_widths_hold_what_is_asked() {
    for length in [1usize, 7, 64, 256, 1000, 1024, 4096] {
        let mut sizes = Vec::new();
        for active in 1..=length {
            assert_eq!(Widths::Own.of(active, length), active);
            let width = Widths::Few.of(active, length);
            assert!(
                (active..=length).contains(&width),
                "{active} of {length}: {width}"
            );
            assert!(
                width <= 16.max(active + active / 2),
                "{active} of {length}: {width}"
            );
            sizes.push(width);
        }
        assert!(sizes.windows(2).all(|pair| pair[0] <= pair[1]));
        sizes.dedup();
        assert!(sizes.len() <= 18, "{length}: {sizes:?}");
        assert!(length < 1000 || sizes[..4] == [16, 24, 32, 48]);
    }
}

/// Positions repeated to fill a width give the same tokens at every step.
#[test]
fn padded_runs_draw_the_same_tokens() {
    let (codes, length) = (5i64, 40i64);
    for course in COURSES {
        let schedule = course.schedule(20, codes as usize);
        for (steps, order) in [
            (20usize, RevealOrder::Independent),
            (6, RevealOrder::Independent),
            (6, RevealOrder::Halton),
            (1, RevealOrder::Independent),
        ] {
            if order == RevealOrder::Halton && course.name == UNIFORM.name {
                continue;
            }
            let options = SamplerConfig {
                order,
                truncation: Truncation::TopP(0.9),
                ..config(ReverseRule::Exact, steps)
            };
            let plan = options.plan(&schedule, [1, length]).unwrap();
            for seeds in [vec![1u64], vec![3, 4, 5]] {
                let run = |widths| {
                    let network = network(codes);
                    let mut noise = HostNoise::new(&seeds);
                    let tokens = start(&plan, seeds.len() as i64, &mut noise);
                    // A row that keeps everything has no position of its own to repeat.
                    let kept = tokens.zeros_like().to_kind(Kind::Bool);
                    let kept = match seeds.len() {
                        1 => None,
                        _ => Some(kept.index_fill(0, &Tensor::from_slice(&[1i64]), 1)),
                    };
                    let start = Start { tokens, kept };
                    let (mut asked, mut states) = (Vec::new(), Vec::new());
                    let mut denoise = |query: Query| {
                        asked.extend(query.positions.map(|at| at.size()[1] as usize));
                        Prediction {
                            conditional: network(&query),
                            unconditional: None,
                        }
                    };
                    let mut observe = |progress: Progress| {
                        states.push((
                            integers(progress.tokens),
                            integers(&progress.changed().to_kind(Kind::Int64)),
                        ));
                        ControlFlow::Continue(())
                    };
                    let tokens =
                        exact::sample(&plan, widths, start, &mut denoise, &mut noise, &mut observe);
                    (integers(&finished(tokens)), states, asked)
                };
                let (own, few) = (run(Widths::Own), run(Widths::Few));
                assert_eq!((own.0, own.1), (few.0, few.1), "{} {steps}", course.name);
                assert_eq!(own.2.len(), few.2.len());
                for (own, few) in own.2.iter().zip(&few.2) {
                    assert_eq!(*few, Widths::Few.of(*own, length as usize));
                }
            }
        }
    }
}

pub fn small_network() -> DenoiserConfig {
    DenoiserConfig {
        layers: 2,
        width: 32,
        heads: 2,
        codes: 7,
        grid: [6, 6],
        position_table: [6, 6],
        position_weights: PositionWeights::Embedding,
        timesteps: 20,
        timestep_embedding: IndexEmbedding::Table,
        timestep_norm: AdaptiveNorm::Layer,
        feed_forward: FeedForwardKind::Fc,
        activation: Activation::Gelu2,
        expansion: 4,
        condition: Conditioning::Text {
            positions: 77,
            width: 512,
        },
    }
}

/// The same over the real network, whose last block is asked at repeated positions.
#[test]
fn padding_does_not_change_what_the_network_says() {
    let config = small_network();
    let _no_grad = tch::no_grad_guard();
    let (mut denoiser, text) = drawn(5, || {
        let params = Params::new(&RandomWeights, Device::Cpu, Kind::Float);
        let text = [2, 5, 512];
        let text = Tensor::randn(text, (Kind::Float, Device::Cpu));
        (Denoiser::new(&params, &config), text)
    });
    denoiser.prepare();
    let condition = denoiser.condition(&text);
    let schedule = Schedule::new(&paper(), 20, 7);
    let plan = crate::diffusion::enumeration::config(ReverseRule::Exact, 10)
        .plan(&schedule, config.grid)
        .unwrap();
    let run = |widths| {
        let mut noise = HostNoise::new(&[8, 9]);
        let start = start(&plan, 2, &mut noise).into();
        let mut denoise = |query: Query| Prediction {
            conditional: denoiser.forward(query.x_t, query.t, &condition, query.positions),
            unconditional: None,
        };
        let tokens = exact::sample(
            &plan,
            widths,
            start,
            &mut denoise,
            &mut noise,
            &mut unobserved,
        );
        integers(&finished(tokens))
    };
    assert_eq!(run(Widths::Own), run(Widths::Few));
}

/// Of every value.
fn bits(x: &Tensor) -> Vec<u32> {
    values::<f32>(x).into_iter().map(f32::to_bits).collect()
}

/// Steps at fixed places draw the same tokens as those with tensors of their own, through
/// runs of one plan after each other that share them, whatever condition and noise each has.
#[test]
fn steps_at_fixed_places_draw_the_same_tokens() {
    let _no_grad = tch::no_grad_guard();
    let conditions = [
        Conditioning::Text {
            positions: 5,
            width: 16,
        },
        Conditioning::Class {
            classes: 4,
            null: NullClass::Learned,
            embedding: IndexEmbedding::Table,
            norm: AdaptiveNorm::Layer,
        },
        Conditioning::Unconditional,
    ];
    for (condition, guidance) in conditions.into_iter().zip([3.0, 2.0, 1.0]) {
        let config = DenoiserConfig {
            condition,
            ..small_network()
        };
        let rows = if guidance == 1.0 { 2 } else { 4 };
        let (mut denoiser, subjects) = drawn(6, || {
            let params = Params::new(&RandomWeights, Device::Cpu, Kind::Float);
            let subjects = [0, 1, 2].map(|i| match condition {
                Conditioning::Text { positions, width } => {
                    Tensor::randn([rows, positions, width], (Kind::Float, Device::Cpu))
                }
                _ => Tensor::from_slice(&[i, i + 1, 4, 4]).narrow(0, 0, rows),
            });
            (Denoiser::new(&params, &config), subjects)
        });
        denoiser.prepare();
        for course in [RELEASED, UNIFORM] {
            let plan = SamplerConfig {
                guidance,
                guidance_span: Some([0.0, 0.6]),
                times: Times::Cosine,
                order: match course.name {
                    "uniform" => RevealOrder::Independent,
                    _ => RevealOrder::Halton,
                },
                truncation: Truncation::TopP(0.9),
                ..crate::diffusion::enumeration::config(ReverseRule::Exact, 12)
            };
            let plan = plan.plan(&course.schedule(20, 7), config.grid).unwrap();
            let mut steps = FixedSteps::new(None);
            let mut at_places = denoiser.condition(&subjects[0]).copy();
            for (i, y) in subjects.iter().enumerate() {
                let condition = denoiser.condition(y);
                let seeds = [2 * i as u64, 2 * i as u64 + 1];
                let begin = || {
                    let mut noise = HostNoise::new(&seeds);
                    let tokens = start(&plan, 2, &mut noise);
                    // Some tokens of the second picture are kept.
                    let kept = Tensor::from_slice(&[false, true]).unsqueeze(1);
                    let kept = kept.logical_and(&tokens.lt(4));
                    let kept = Some(kept);
                    (noise, Start { tokens, kept })
                };
                let ask = |query: Query, condition: &Condition| {
                    let condition = match query.null {
                        true => condition.first(rows),
                        false => condition.first(2),
                    };
                    let logits = denoiser.forward(query.x_t, query.t, &condition, query.positions);
                    Prediction {
                        conditional: logits.narrow(0, 0, 2),
                        unconditional: query.null.then(|| logits.narrow(0, 2, 2)),
                    }
                };
                let mut plain = Vec::new();
                let (mut noise, from) = begin();
                let end = exact::sample(
                    &plan,
                    Widths::Few,
                    from,
                    &mut |query| ask(query, &condition),
                    &mut noise,
                    &mut |progress| {
                        plain.push((integers(progress.tokens), bits(&progress.entropy())));
                        ControlFlow::Continue(())
                    },
                );
                let mut fixed = Vec::new();
                at_places.fill(&condition);
                let (mut noise, from) = begin();
                let at_fixed = fixed::sample(
                    &plan,
                    &mut steps,
                    from,
                    &mut |query| ask(query, &at_places),
                    &mut noise,
                    &mut |progress| {
                        // The tokens without a copy: a later step may not change them.
                        fixed.push((progress.tokens.shallow_clone(), bits(&progress.entropy())));
                        ControlFlow::Continue(())
                    },
                );
                assert_eq!(integers(&finished(at_fixed)), integers(&finished(end)));
                let fixed: Vec<_> = fixed
                    .iter()
                    .map(|(x, e)| (integers(x), e.clone()))
                    .collect();
                assert!(fixed == plain, "{}", course.name);
            }
            // One for each number of positions, with the null condition and without.
            assert!((1..=8).contains(&steps.shapes()), "{}", steps.shapes());
        }
    }
}

fn all_configs(steps: usize) -> Vec<SamplerConfig> {
    let revealing = Some(Revealing {
        purity: Some(0.5),
        tokens_per_evaluation: 3,
    });
    let rules = [
        ReverseRule::Exact,
        ReverseRule::Official,
        ReverseRule::Diffusers,
    ];
    rules
        .into_iter()
        .flat_map(|rule| {
            [None, revealing].map(|revealing| SamplerConfig {
                revealing,
                truncation: Truncation::TopK(4),
                ..config(rule, steps)
            })
        })
        .collect()
}

#[test]
fn an_observer_stops_a_run_after_any_step() {
    let (codes, length, steps) = (5i64, 24i64, 8usize);
    let schedule = PAPER.schedule(steps, codes as usize);
    for config in all_configs(steps) {
        let plan = config.plan(&schedule, [1, length]).unwrap();
        for last in 1..=steps {
            let network = network(codes);
            let mut noise = HostNoise::new(&[4]);
            let start = start(&plan, 1, &mut noise);
            let (seen, asked_later) = (Cell::new(0), Cell::new(false));
            let mut denoise = |query: Query| {
                asked_later.set(asked_later.get() || seen.get() == last);
                Prediction {
                    conditional: network(&query),
                    unconditional: None,
                }
            };
            let mut observe = |progress: Progress| {
                seen.set(seen.get() + 1);
                assert_eq!(progress.done, seen.get());
                match progress.done == last {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            };
            let end = sample(&plan, start, &mut denoise, &mut noise, &mut observe);
            assert_eq!(end.err(), Some(Stopped), "{config:?}");
            assert_eq!((seen.get(), asked_later.get()), (last, false), "{config:?}");
        }
    }
}

#[test]
fn an_observer_is_told_what_changed_and_the_entropy() {
    let (codes, length, steps) = (5i64, 24i64, 8usize);
    let schedule = PAPER.schedule(steps, codes as usize);
    for config in all_configs(steps) {
        let plan = config.plan(&schedule, [1, length]).unwrap();
        let network = network(codes);
        let mut noise = HostNoise::new(&[4, 11]);
        let start = start(&plan, 2, &mut noise);
        let mut before = integers(&start);
        // Entropy by the definition of the first question of each step.
        let expected = std::cell::RefCell::new(None::<Vec<f64>>);
        let mut denoise = |query: Query| {
            let logits = network(&query);
            expected.borrow_mut().get_or_insert_with(|| {
                let mut entropy = vec![f64::NAN; 2 * length as usize];
                let size = logits.size();
                let p = floats(&logits.softmax(-1, Kind::Double));
                for (i, row) in p.chunks(codes as usize).enumerate() {
                    let image = i / size[1] as usize;
                    let position = match query.positions {
                        Some(at) => integers(at)[i] as usize,
                        None => i % size[1] as usize,
                    };
                    let p = normalised(truncated(row, Truncation::TopK(4)));
                    let p = p.into_iter().filter(|&p| p > 0.0);
                    entropy[image * length as usize + position] =
                        -p.map(|p| p * p.ln()).sum::<f64>();
                }
                entropy
            });
            Prediction {
                conditional: logits,
                unconditional: None,
            }
        };
        let mut asked_nothing = 0;
        let mut observe = |progress: Progress| {
            let after = integers(progress.tokens);
            let changed: Vec<i64> = before
                .iter()
                .zip(&after)
                .map(|(x, y)| i64::from(x != y))
                .collect();
            assert_eq!(integers(&progress.changed().to_kind(Kind::Int64)), changed);
            assert_eq!(progress.step, plan.steps()[progress.done - 1]);
            let entropy = progress.entropy();
            assert_eq!(
                (entropy.kind(), entropy.size()),
                (Kind::Float, vec![2, length])
            );
            match expected.borrow_mut().take() {
                None => {
                    asked_nothing += 1;
                    assert!(floats(&entropy).iter().all(|e| e.is_nan()));
                }
                Some(expected) => {
                    for (found, expected) in floats(&entropy).iter().zip(expected) {
                        let same = found.is_nan() && expected.is_nan();
                        assert!(
                            same || (found - expected).abs() < 2e-5,
                            "{found} {expected}"
                        );
                    }
                }
            }
            before = after;
            ControlFlow::Continue(())
        };
        let _ = finished(sample(&plan, start, &mut denoise, &mut noise, &mut observe));
        assert!(asked_nothing < steps, "{config:?}");
    }
}

#[test]
fn libtorch_takes_the_order_of_attention_kernels() {
    assert!(prefer_flash_attention());
}
