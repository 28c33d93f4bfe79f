//! Whole sampling runs under the official rule with the recorded noise.

use std::ops::ControlFlow;

use serde_json::Value;
use tch::{Kind, Tensor};
use vqdiffusion::diffusion::compat::{gumbel_argmax, official};
use vqdiffusion::diffusion::guidance::Prediction;
use vqdiffusion::diffusion::noise::Draw;
use vqdiffusion::diffusion::purity::{self, Revealing};
use vqdiffusion::diffusion::sampler::{sample, start, Progress, Query};
use vqdiffusion::diffusion::truncation::Truncation;
use vqdiffusion::diffusion::{Noise, RevealOrder, ReverseRule, SamplerConfig, Times};
use vqdiffusion::model::NullText;
use vqdiffusion::pipeline::{Pipeline, Subject};
use vqdiffusion::transformer::Condition;

use crate::case::{integers, Case};
use crate::condition::{empty_prompt, encode};
use crate::diffusion::truncation;

/// Names of the recorded runs.
pub fn runs(case: &Case) -> Vec<String> {
    case.names_below("input.sample.")
        .iter()
        .filter_map(|rest| rest.strip_suffix(".uniform"))
        .map(str::to_string)
        .collect()
}

/// Noise read from the case, one row a call.
struct RecordedNoise {
    uniform: Tensor,             // [calls, B, K + 1, L]
    exponential: Option<Tensor>, // [draws, L]
    draws: i64,
    calls: i64,
}

impl RecordedNoise {
    /// The numbers of one call: `[B, L, K + 1]`.
    fn at(&self, call: usize) -> Tensor {
        self.uniform.get(call as i64).transpose(1, 2).contiguous()
    }
}

impl Noise for RecordedNoise {
    fn uniform(&mut self, step: usize, draw: Draw, shape: &[i64]) -> Tensor {
        assert_eq!(draw, Draw::Code, "the official rule draws codes only");
        assert!(
            (step as i64) < self.uniform.size()[0],
            "call {step} is not recorded"
        );
        self.calls += 1;
        let numbers = self.at(step);
        assert_eq!(numbers.size(), shape, "shape of the noise of call {step}");
        numbers
    }

    fn exponential(&mut self, _step: usize, draw: Draw, shape: &[i64]) -> Tensor {
        assert_eq!(draw, Draw::Position, "only positions are drawn this way");
        let recorded = self.exponential.as_ref();
        let recorded = recorded.unwrap_or_else(|| panic!("no exponential noise is recorded"));
        let rows = recorded.narrow(0, self.draws, shape[0]);
        self.draws += shape[0];
        rows.view(shape)
    }
}

/// Settings of a run, from `meta`.
struct Settings {
    config: SamplerConfig,
    /// Times skipped by the official fast sampler.
    skip: i64,
    subjects: Vec<Subject>,
    null: NullText,
    counts: Option<Vec<usize>>,
}

impl Settings {
    fn read(meta: &Value, timesteps: i64) -> Self {
        let number = |key: &str| {
            meta[key]
                .as_f64()
                .unwrap_or_else(|| panic!("meta has no {key}"))
        };
        let sample_type = meta["sample_type"].as_str().unwrap_or_default();
        // Guidance is installed together with truncation.
        let parts: Vec<&str> = sample_type.split(',').collect();
        let (truncation, guidance) = match parts[0] {
            name if name.starts_with("top") => (truncation(name), number("guidance_scale")),
            _ => (Truncation::Off, 1.0),
        };
        let times = parts[1..].iter().find_map(|p| p.strip_prefix("time"));
        let times: f64 = times.map_or(1.0, |x| {
            x.parse()
                .unwrap_or_else(|_| panic!("time of {sample_type}"))
        });
        let skip = if times >= 2.0 { times as i64 - 1 } else { 0 };
        let revealing = match meta["prior_rule"].as_i64() {
            None | Some(0) => None,
            Some(rule) => Some(Revealing {
                purity: (rule == 2).then(|| number("prior_weight")),
                tokens_per_evaluation: number("prior_ps") as usize,
            }),
        };
        let list = |key: &str| meta[key].as_array().cloned();
        Settings {
            config: SamplerConfig {
                steps: official::times(skip, timesteps).len(),
                times: Times::Even,
                order: RevealOrder::Independent,
                guidance,
                guidance_span: None,
                local_steps: 0,
                truncation,
                revealing,
                rule: ReverseRule::Official,
            },
            skip,
            subjects: subjects(meta),
            null: match meta["learnable_cf"].as_bool() {
                Some(true) => NullText::Learned,
                _ => NullText::EmptyPrompt,
            },
            counts: list("n_sample").map(|c| {
                c.iter()
                    .filter_map(|n| Some(n.as_u64()? as usize))
                    .collect()
            }),
        }
    }

    fn condition(&self, pipeline: &Pipeline) -> Condition {
        let guided = self.config.uses_guidance();
        let own_null = pipeline.config().text.as_ref().map(|text| text.null);
        if !guided || own_null.is_none_or(|null| null == self.null) {
            let condition = pipeline.condition(&self.subjects, guided);
            return condition.unwrap_or_else(|e| panic!("{e}"));
        }
        assert_eq!(
            self.null,
            NullText::EmptyPrompt,
            "the model has no null text"
        );
        let text = encode(pipeline, &self.subjects);
        let null = empty_prompt(pipeline).expand_as(&text);
        pipeline
            .denoiser()
            .condition(&Tensor::cat(&[&text, &null], 0))
    }
}

/// What the pictures of a run show: captions, or labels (none if null) for `replicate`
/// pictures each.
fn subjects(meta: &Value) -> Vec<Subject> {
    let list = |key: &str| meta[key].as_array().into_iter().flatten();
    let mut subjects: Vec<Subject> = list("captions")
        .filter_map(|c| Some(Subject::Text(c.as_str()?.to_string())))
        .chain(list("labels").filter_map(|l| Some(Subject::Class(l.as_i64()?))))
        .collect();
    if meta["labels"].is_null() && subjects.is_empty() {
        subjects.push(Subject::Anything);
    }
    let replicate = meta["replicate"].as_u64().unwrap_or(1) as usize;
    std::iter::repeat_n(subjects, replicate).flatten().collect()
}

/// What the network was asked and said at one call.
struct Call {
    x: Tensor,
    prediction: Prediction,
}

pub fn run(case: &mut Case, pipeline: &Pipeline, run: &str) {
    let meta = case.meta[format!("sample.{run}")].clone();
    let denoiser = pipeline.denoiser();
    let settings = Settings::read(&meta, denoiser.config().timesteps);
    let batch = settings.subjects.len() as i64;
    let condition = settings.condition(pipeline);
    let mut plan = pipeline
        .plan(&settings.config)
        .unwrap_or_else(|e| panic!("{e}"))
        .with_steps(official::times(settings.skip, denoiser.config().timesteps));
    if let Some(counts) = &settings.counts {
        plan = plan.with_reveal_counts(counts);
    }

    let mut noise = RecordedNoise {
        uniform: case.input(&format!("input.sample.{run}.uniform")),
        exponential: case.get(&format!("input.sample.{run}.exponential")),
        draws: 0,
        calls: 0,
    };
    let mut calls = Vec::new();
    let mut denoise = |query: Query| {
        let logits = denoiser.forward(query.x_t, query.t, &condition, query.positions);
        let prediction = || Prediction {
            conditional: logits.narrow(0, 0, batch),
            unconditional: query.null.then(|| logits.narrow(0, batch, batch)),
        };
        calls.push(Call {
            x: query.x_t.copy(),
            prediction: prediction(),
        });
        prediction()
    };
    let start = start(&plan, batch, &mut noise);
    let mut observe = |_: Progress| ControlFlow::Continue(());
    let tokens = sample(&plan, start, &mut denoise, &mut noise, &mut observe)
        .unwrap_or_else(|e| panic!("{e}"));

    let expected_calls = meta["calls"].as_i64().unwrap_or(noise.uniform.size()[0]);
    if (calls.len() as i64, noise.calls) != (expected_calls, expected_calls) {
        let (asked, drawn) = (calls.len(), noise.calls);
        case.fail(format!(
            "sample.{run}: {asked} network evaluations and {drawn} draws, expected {expected_calls}"
        ));
    }
    case.check(&format!("expected.sample.{run}.final_tokens"), &tokens);
    drawn_tokens(case, run, &settings, &calls, &noise, &tokens);
    let name = format!("expected.sample.{run}.image");
    if case.has(&name) {
        let image = pipeline.decode(&tokens);
        // What float rounding changes in a picture is recorded for the codec's own; for
        // those of some runs only that a repetition gave the same.
        let atol = case.atol(&name).max(case.atol("expected.codec.decoded"));
        case.check_within(&name, &image, atol);
    }
}

/// The state `[B, L]` after each call.
fn states(calls: &[Call], last: &Tensor) -> Vec<Tensor> {
    let later = calls.iter().skip(1).map(|call| call.x.shallow_clone());
    later.chain([last.shallow_clone()]).collect()
}

/// Tokens drawn at each call. At ordinary calls they are the new state; at revealing
/// ones they are proposals for all positions, of which the chosen enter the state.
fn drawn_tokens(
    case: &mut Case,
    run: &str,
    settings: &Settings,
    calls: &[Call],
    noise: &RecordedNoise,
    last: &Tensor,
) {
    let states = states(calls, last);
    let Some(revealing) = settings.config.revealing else {
        let tokens = Tensor::stack(&states, 0);
        return case.check(&format!("expected.sample.{run}.tokens"), &tokens);
    };
    let batch = last.size()[0];
    // Each revealing call drew one row of exponential numbers for every picture.
    let revealing_calls = (noise.draws / batch) as usize;
    let (mut tokens, mut selected) = (Vec::new(), Vec::new());
    for (i, (call, state)) in calls.iter().zip(&states).enumerate() {
        if i >= revealing_calls {
            tokens.push(state.shallow_clone());
            continue;
        }
        let proposals = propose(settings, revealing, call, &noise.at(i));
        let changed = state.ne_tensor(&call.x); // [B, L]
                                                // Positions that changed must show what the sampler really drew there.
        tokens.push(state.where_self(&changed, &proposals));
        for row in 0..batch {
            selected.push(integers(&changed.get(row).nonzero()));
        }
    }
    let tokens = Tensor::stack(&tokens, 0);
    case.check(&format!("expected.sample.{run}.tokens"), &tokens);

    let name = format!("expected.sample.{run}.selected");
    if let Some(expected) = case.get(&name) {
        case.mark(&name);
        let counts: Vec<usize> = case.meta[format!("sample.{run}")]["multinomial_n"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|n| Some(n.as_u64()? as usize))
            .collect();
        if counts != selected.iter().map(Vec::len).collect::<Vec<_>>() {
            case.fail(format!(
                "{name}: another number of positions than {counts:?}"
            ));
        }
        // As sets: the original's order is that of a draw, ours that of the position.
        let width = expected.size()[1] as usize;
        for row in &mut selected {
            row.sort_unstable_by(|a, b| b.cmp(a));
            row.resize(width, -1);
        }
        let ours = Tensor::from_slice(&selected.concat()).view([selected.len() as i64, -1]);
        let (sorted, _) = expected.sort(-1, true);
        case.also(&name, "", &ours, &sorted);
    }
}

/// The codes proposed at every position, made again from what the network said.
fn propose(settings: &Settings, revealing: Revealing, call: &Call, uniform: &Tensor) -> Tensor {
    let log_p = official::guidance(&call.prediction, settings.config.guidance);
    let log_p = official::truncation(&log_p, settings.config.truncation);
    let log_p = match revealing.purity {
        Some(weight) if weight > 0.0 => {
            let scores = purity::scores(&log_p, revealing.purity);
            purity::sharpen(&log_p, &scores, weight)
        }
        _ => log_p,
    };
    gumbel_argmax(&log_p, &uniform.to_kind(Kind::Float))
}
