//! Evaluations of a few positions on keys and values that were kept.

use tch::{Device, Kind, Tensor};
use vqdiffusion::diffusion::guidance::Prediction;
use vqdiffusion::diffusion::purity::Revealing;
use vqdiffusion::diffusion::sampler::{sample, start, Calls, Query, Reuse, SamplerError};
use vqdiffusion::diffusion::{HostNoise, RevealOrder, ReverseRule, SamplerConfig, SamplingPlan};
use vqdiffusion::torch::params::RandomWeights;
use vqdiffusion::torch::Params;
use vqdiffusion::transformer::{Condition, Conditioning, Denoiser, DenoiserConfig, KeptKeys};

use crate::diffusion::enumeration::*;
use crate::diffusion::run::small_network;
use crate::drawn::drawn;

const CODES: i64 = 7;
const LENGTH: i64 = 36;

/// A network of so many blocks and a condition for two pictures, with guidance.
fn network(layers: i64, is_prepared: bool) -> (Denoiser, Condition) {
    let config = DenoiserConfig {
        layers,
        condition: Conditioning::Text {
            positions: 5,
            width: 16,
        },
        ..small_network()
    };
    let (mut denoiser, text) = drawn(5, || {
        let params = Params::new(&RandomWeights, Device::Cpu, Kind::Float);
        let text = Tensor::randn([4, 5, 16], (Kind::Float, Device::Cpu));
        (Denoiser::new(&params, &config), text)
    });
    if is_prepared {
        denoiser.prepare();
    }
    let condition = denoiser.condition(&text);
    (denoiser, condition)
}

/// Tokens `[2, L]`, of which about half are masks.
fn state() -> Tensor {
    let token = |i: i64| match i % 3 {
        0 => CODES,
        _ => i * i % (CODES + 1),
    };
    let tokens: Vec<i64> = (0..2 * LENGTH).map(token).collect();
    Tensor::from_slice(&tokens).view([2, LENGTH])
}

/// Two rows of five positions; the last three are asked about.
fn group() -> Tensor {
    Tensor::from_slice(&[3i64, 35, 0, 17, 8, 5, 4, 30, 30, 9]).view([2, 5])
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    let scale = b.abs().max().double_value(&[]).max(1.0);
    (a - b).abs().max().double_value(&[]) / scale
}

#[test]
fn keeping_changes_no_bit() {
    let _no_grad = tch::no_grad_guard();
    let t = Tensor::from_slice(&[11i64]);
    for (layers, is_prepared) in [(1, true), (3, true), (3, false)] {
        let (denoiser, condition) = network(layers, is_prepared);
        for positions in [None, Some(group())] {
            let positions = positions.as_ref();
            let full = denoiser.forward(&state(), &t, &condition, positions);
            let (keeping, _) = denoiser.forward_keeping(&state(), &t, &condition, positions);
            assert!(full.equal(&keeping));
        }
    }
}

/// Where nothing has changed since, a local evaluation is a full one, however deep the network.
#[test]
fn unchanged_tokens_have_the_full_evaluation() {
    let _no_grad = tch::no_grad_guard();
    let t = Tensor::from_slice(&[11i64]);
    for (layers, is_prepared) in [(1, true), (4, true), (4, false)] {
        let (denoiser, condition) = network(layers, is_prepared);
        for condition in [&condition, &condition.first(2)] {
            let wanted = group().narrow(1, 2, 3);
            let full = denoiser.forward(&state(), &t, condition, Some(&wanted));
            let (_, mut kept) = denoiser.forward_keeping(&state(), &t, condition, None);
            for _ in 0..2 {
                let local =
                    denoiser.forward_local(&state(), &t, condition, &group(), 2..5, &mut kept);
                assert_eq!(local.size(), full.size());
                let off = difference(&local, &full);
                assert!(off < 1e-6, "{layers} blocks: {off}");
            }
        }
    }
}

/// With one block the keys and values of a position are its own token's, so a local
/// evaluation of new tokens is a full one. With more they are what they were: not so.
#[test]
fn with_one_block_local_evaluations_are_full_ones() {
    let _no_grad = tch::no_grad_guard();
    let t = Tensor::from_slice(&[11i64]);
    let revealed = group().narrow(1, 0, 2);
    let after = state().scatter(1, &revealed, &Tensor::full_like(&revealed, 2));
    let wanted = group().narrow(1, 2, 3);
    for layers in [1, 4] {
        let (denoiser, condition) = network(layers, true);
        let full = denoiser.forward(&after, &t, &condition, Some(&wanted));
        let (_, mut kept) = denoiser.forward_keeping(&state(), &t, &condition, Some(&revealed));
        let stale = denoiser.forward(&state(), &t, &condition, Some(&wanted));
        let local = denoiser.forward_local(&after, &t, &condition, &group(), 2..5, &mut kept);
        let off = difference(&local, &full);
        match layers {
            1 => assert!(off < 1e-6, "{off}"),
            _ => assert!(off > 1e-6, "{off}"),
        }
        // The new tokens are seen.
        assert!(
            off < 0.5 * difference(&stale, &full),
            "{layers} blocks: {off}"
        );
    }
}

fn local(steps: usize, local_steps: usize) -> SamplerConfig {
    SamplerConfig {
        local_steps,
        ..config(ReverseRule::Exact, steps)
    }
}

/// Runs `plan` for two pictures, with every evaluation told the same time; also what was asked:
/// F full, K full and kept, L local.
fn run(plan: &SamplingPlan, layers: i64) -> (Vec<i64>, String) {
    let (denoiser, condition) = network(layers, true);
    let t = Tensor::from_slice(&[9i64]);
    let mut noise = HostNoise::new(&[8, 9]);
    let start = start(plan, 2, &mut noise);
    let (mut asked, mut kept) = (String::new(), KeptKeys::default());
    let mut denoise = |query: Query| {
        let condition = match query.null {
            true => condition.first(4),
            false => condition.first(2),
        };
        let positions = query
            .positions
            .expect("the exact sampler names its positions");
        let logits = match query.reuse {
            Reuse::Nothing => {
                asked.push('F');
                denoiser.forward(query.x_t, &t, &condition, Some(positions))
            }
            Reuse::Keep => {
                asked.push('K');
                let (logits, keys) =
                    denoiser.forward_keeping(query.x_t, &t, &condition, Some(positions));
                kept = keys;
                logits
            }
            Reuse::Kept { group, first } => {
                asked.push('L');
                let wanted = first..first + positions.size()[1];
                assert!(group.narrow(1, first, positions.size()[1]).equal(positions));
                denoiser.forward_local(query.x_t, &t, &condition, group, wanted, &mut kept)
            }
        };
        Prediction {
            conditional: logits.narrow(0, 0, 2),
            unconditional: query.null.then(|| logits.narrow(0, 2, 2)),
        }
    };
    let tokens = sample(plan, start, &mut denoise, &mut noise, &mut unobserved);
    (integers(&finished(tokens)), asked)
}

#[test]
fn runs_over_one_block_draw_the_same_tokens() {
    let _no_grad = tch::no_grad_guard();
    for course in [MASKS, PAPER, STRONG] {
        let schedule = course.schedule(20, CODES as usize);
        for (guidance, span, order) in [
            (1.0, None, RevealOrder::Independent),
            (2.0, None, RevealOrder::Halton),
            (2.0, Some([0.0, 0.6]), RevealOrder::Independent),
        ] {
            let plan = |local_steps| {
                let options = SamplerConfig {
                    guidance,
                    guidance_span: span,
                    order,
                    ..local(10, local_steps)
                };
                options.plan(&schedule, [1, LENGTH]).unwrap()
            };
            let (full, asked) = run(&plan(0), 1);
            assert!(!asked.contains(['K', 'L']), "{asked}");
            for local_steps in [1, 2, 9] {
                let (tokens, asked) = run(&plan(local_steps), 1);
                assert_eq!(
                    tokens, full,
                    "{} {guidance} {span:?} {local_steps}",
                    course.name
                );
                assert!(asked.contains('L') && asked.contains('K'), "{asked}");
            }
        }
    }
}

#[test]
fn the_first_third_is_full_and_groups_follow() {
    let schedule = MASKS.schedule(20, CODES as usize);
    let shown = |options: SamplerConfig| {
        let plan = options.plan(&schedule, [1, LENGTH]).unwrap();
        let letter = |local| if local { 'L' } else { 'F' };
        let steps: String = plan.local().into_iter().map(letter).collect();
        (steps, plan.calls())
    };
    let counted = |full, local| Calls { full, local };
    let (steps, calls) = shown(local(9, 1));
    assert_eq!((steps.as_str(), calls), ("FFFFLFLFL", counted(6, 3)));
    let (steps, calls) = shown(local(9, 2));
    assert_eq!((steps.as_str(), calls), ("FFFFLLFLL", counted(5, 4)));
    let (steps, calls) = shown(local(9, 100));
    assert_eq!((steps.as_str(), calls), ("FFFFLLLLL", counted(4, 5)));
    assert_eq!(shown(local(9, 0)).1, counted(9, 0));
    assert_eq!(shown(local(1, 5)).1, counted(1, 0));
    // Both branches count, and a group ends where guidance does.
    let guided = |span| SamplerConfig {
        guidance: 2.0,
        guidance_span: span,
        ..local(9, 2)
    };
    assert_eq!(shown(guided(None)).1, counted(10, 8));
    let (steps, calls) = shown(guided(Some([0.0, 0.5])));
    assert_eq!((steps.as_str(), calls), ("FFFFLFLLF", counted(10, 4)));

    // Asked as planned, where every step reveals something.
    let plan = local(6, 2).plan(&schedule, [1, LENGTH]).unwrap();
    assert_eq!(run(&plan, 2).1, "FFKLLF");
    assert_eq!(plan.calls(), counted(4, 2));
}

#[test]
fn local_steps_are_of_the_exact_rule_alone() {
    let schedule = MASKS.schedule(20, CODES as usize);
    let revealing = Some(Revealing {
        purity: None,
        tokens_per_evaluation: 4,
    });
    for options in [
        SamplerConfig {
            rule: ReverseRule::Official,
            ..local(20, 1)
        },
        SamplerConfig {
            rule: ReverseRule::Diffusers,
            ..local(20, 1)
        },
        SamplerConfig {
            revealing,
            ..local(20, 1)
        },
    ] {
        let error = options.plan(&schedule, [1, LENGTH]).err();
        assert!(matches!(
            error,
            Some(SamplerError::Option {
                option: "local steps",
                ..
            })
        ));
    }
}
