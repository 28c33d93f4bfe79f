//! Tokenizer and text tower of a text-to-image case.

use serde_json::Value;
use tch::Tensor;
use vqdiffusion::clip::ClipTokenizer;
use vqdiffusion::pipeline::{Pipeline, Subject};

use crate::case::Case;
use crate::condition::encode;

pub fn run(case: &mut Case, pipeline: &Pipeline) {
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
