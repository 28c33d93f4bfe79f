//! A text-to-image case: the model is opened as a user opens it, then tokenizer,
//! text tower, network, diffusion, codec and sampling runs are compared in turn.

use serde_json::Value;
use tch::{Device, Tensor};
use vqdiffusion::checkpoint::{Checkpoint, OpenOptions, WeightSet};
use vqdiffusion::clip::ClipTokenizer;
use vqdiffusion::pipeline::{Pipeline, Subject};
use vqdiffusion::torch::device::Precision;

use crate::case::Case;
use crate::{codec, diffusion, network, objective, sampling};

/// The case's checkpoint with one of its two weight sets.
pub fn open(case: &Case, weights: WeightSet) -> Checkpoint {
    let options = OpenOptions {
        config: Some(case.path.join("config.yaml")),
        weights,
        ..OpenOptions::default()
    };
    Checkpoint::open(&case.path.join("last.pth"), &options).unwrap_or_else(|e| panic!("{e}"))
}

pub fn load(checkpoint: &Checkpoint) -> Pipeline {
    Pipeline::load(checkpoint, Device::Cpu, Precision::F32).unwrap_or_else(|e| panic!("{e}"))
}

/// The condition y of `subjects`.
pub fn encode(pipeline: &Pipeline, subjects: &[Subject]) -> Tensor {
    let y = pipeline.conditioner().encode(subjects);
    y.unwrap_or_else(|e| panic!("{e}"))
}

/// Features of the empty string `[1, S, C]`.
pub fn empty_prompt(pipeline: &Pipeline) -> Tensor {
    encode(pipeline, &[Subject::Text(String::new())])
}

pub fn run(case: &mut Case) {
    let Some((checkpoint, pipeline)) = case.section("loading", |case| {
        let checkpoint = open(case, WeightSet::Ema);
        let pipeline = load(&checkpoint);
        (checkpoint, pipeline)
    }) else {
        return;
    };
    case.section("text", |case| text(case, &pipeline));
    case.section("network", |case| {
        network::run(case, &checkpoint, &pipeline);
    });
    case.section("diffusion", |case| diffusion::run(case, &pipeline));
    case.section("objective", |case| objective::run(case, &checkpoint));
    case.section("guidance", |case| diffusion::guidance(case, &pipeline));
    case.section("codec", |case| codec::run(case, &checkpoint, &pipeline));
    for name in sampling::runs(case) {
        case.section(&format!("sampling {name}"), |case| {
            sampling::run(case, &pipeline, &name);
        });
    }
}

fn text(case: &mut Case, pipeline: &Pipeline) {
    let file = case.meta["captions"].as_str().unwrap_or("captions.json");
    let file = case.path.join(file);
    let json = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let captions: Value =
        serde_json::from_str(&json).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let captions: Vec<&str> = captions
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| c["text"].as_str())
        .collect();

    let config = pipeline.config().text.as_ref();
    let config = &config.unwrap_or_else(|| panic!("no text tower")).tower;
    let tokenizer = ClipTokenizer::new(config.vocabulary as usize)
        .and_then(|t| t.with_context_length(config.context as usize))
        .unwrap_or_else(|e| panic!("{e}"));
    let tokenize = |caption: &str| tokenizer.encode(caption).unwrap_or_else(|e| panic!("{e}"));
    let table =
        |rows: &[Vec<i64>]| Tensor::from_slice(&rows.concat()).view([rows.len() as i64, -1]);
    let encodings: Vec<_> = captions.iter().map(|c| tokenize(c)).collect();
    let ids: Vec<Vec<i64>> = encodings.iter().map(|e| e.ids.clone()).collect();
    let masks: Vec<Vec<i64>> = encodings
        .iter()
        .map(|e| e.mask.iter().map(|&m| i64::from(m)).collect())
        .collect();
    case.check("expected.text.tokens", &table(&ids));
    case.check("expected.text.mask", &table(&masks));
    if let Some(null) = case.get("input.null_token") {
        let ours = table(&[tokenize("").ids]);
        case.also("input.null_token", "empty string", &ours, &null);
    }

    let subjects: Vec<Subject> = captions
        .iter()
        .map(|c| Subject::Text(c.to_string()))
        .collect();
    let features = encode(pipeline, &subjects);
    case.check("expected.text.embed_fp32_tower", &features);
    // Ours computes in f32 whatever the weights are stored in.
    case.check("expected.text.embed_fp16_tower", &features);
    // One caption at a time, as for single pictures.
    let name = "expected.text.embed_fp32_tower";
    if let Some(expected) = case.get(name) {
        for (i, subject) in subjects.iter().enumerate() {
            let alone = encode(pipeline, std::slice::from_ref(subject));
            let row = expected.narrow(0, i as i64, 1);
            case.also(name, &format!("caption {i} alone"), &alone, &row);
        }
    }
}
