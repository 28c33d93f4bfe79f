//! The condition of a recorded case, whatever it is conditioned on.

use tch::{Kind, Tensor};
use vqdiffusion::pipeline::{Pipeline, Subject};
use vqdiffusion::transformer::Conditioning;

use crate::case::Case;

/// The condition y of `subjects`.
pub fn encode(pipeline: &Pipeline, subjects: &[Subject]) -> Tensor {
    let y = pipeline.conditioner().encode(subjects);
    y.unwrap_or_else(|e| panic!("{e}"))
}

/// Features of the empty string `[1, S, C]`.
pub fn empty_prompt(pipeline: &Pipeline) -> Tensor {
    encode(pipeline, &[Subject::Text(String::new())])
}

/// The y that the network's tensors were recorded under, a row a sample: text features,
/// classes, or of an unconditional case as many rows as samples.
pub fn recorded(case: &Case) -> Tensor {
    let given = case.get("input.cond_emb").or(case.get("input.label"));
    let rows = case.input("input.x_t").size()[0];
    given.unwrap_or_else(|| Tensor::zeros([rows], (Kind::Int64, tch::Device::Cpu)))
}

/// One row of y for "no condition", where something stands for it.
pub fn null(pipeline: &Pipeline) -> Option<Tensor> {
    match pipeline.config().denoiser.condition {
        Conditioning::Text { .. } => Some(empty_prompt(pipeline)),
        other => other.null_class().map(|class| Tensor::from_slice(&[class])),
    }
}

/// `y` with a null row behind it for every row.
pub fn with_null(y: &Tensor, null: &Tensor) -> Tensor {
    Tensor::cat(&[y, &null.expand_as(y)], 0)
}
