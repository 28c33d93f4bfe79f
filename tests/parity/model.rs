//! A case of a whole model: it is opened as a user opens it, then condition, network,
//! diffusion, objective, codec and sampling runs are compared in turn.

use tch::Device;
use vqdiffusion::checkpoint::{Checkpoint, OpenOptions, WeightSet};
use vqdiffusion::pipeline::Pipeline;
use vqdiffusion::torch::device::Precision;
use vqdiffusion::transformer::Conditioning;

use crate::case::Case;
use crate::{class, codec, diffusion, network, objective, sampling, text};

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

pub fn run(case: &mut Case) {
    let Some((checkpoint, pipeline)) = case.section("loading", |case| {
        let checkpoint = open(case, WeightSet::Ema);
        let pipeline = load(&checkpoint);
        (checkpoint, pipeline)
    }) else {
        return;
    };
    match checkpoint.config.denoiser.condition {
        Conditioning::Text { .. } => {
            case.section("text", |case| text::run(case, &pipeline));
        }
        Conditioning::Class { .. } => {
            case.section("class", |case| class::run(case, &checkpoint));
        }
        Conditioning::Unconditional => {}
    }
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
