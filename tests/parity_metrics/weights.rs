//! The state dict of a network whose weights a case gives by formula.

use rayon::prelude::*;
use serde_json::Value;
use tch::Tensor;
use vqdiffusion::checkpoint::{Entry, StateDict};

use crate::generator::Numbers;

/// Offset and factor of the numbers s of a parameter.
fn law(kind: &str, fan_in: f64) -> (f64, f64) {
    match kind {
        "matrix" => (0.0, (3.0 / fan_in).sqrt()),
        "patch" => (0.0, 0.25 * (3.0 / fan_in).sqrt()),
        "conv" => (0.0, 3f64.sqrt() * (2.0 / fan_in).sqrt()),
        "table" => (0.0, 0.2),
        "gain" => (1.0, 0.1),
        "halfgain" => (0.5, 0.1),
        "layerscale" => (0.5, 0.2),
        "bias" | "mean" => (0.0, 0.1),
        "var" => (1.0, 0.2),
        "logit" => (3.0, 1.0),
        other => panic!("a parameter of unknown kind {other}"),
    }
}

/// The tensors of `parameters`, a list of `{name, shape, kind}`; `prefix` stands before
/// their names in the formula.
pub fn state(prefix: &str, parameters: &Value) -> StateDict {
    let mut state = StateDict::default();
    for item in parameters.as_array().expect("a list of parameters") {
        let name = item["name"].as_str().expect("a name");
        let dimensions = item["shape"].as_array().expect("a shape");
        let shape: Vec<i64> = dimensions.iter().filter_map(Value::as_i64).collect();
        let fan_in = shape.iter().skip(1).product::<i64>() as f64;
        let (offset, factor) = law(item["kind"].as_str().expect("a kind"), fan_in);
        let numbers = Numbers::new(prefix, name);
        let mut values = vec![0f32; shape.iter().product::<i64>() as usize];
        const RUN: usize = 1 << 16;
        let runs = values.par_chunks_mut(RUN).enumerate();
        runs.for_each(|(run, values)| {
            for (i, value) in values.iter_mut().enumerate() {
                *value = (offset + factor * numbers.at(run * RUN + i)) as f32;
            }
        });
        let entry = Entry::in_memory(name, &Tensor::from_slice(&values).view(shape.as_slice()));
        state.insert(name, entry.expect("f32"));
    }
    state
}
