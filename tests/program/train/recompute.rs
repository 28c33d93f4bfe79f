//! Activation checkpointing gives the same gradients from less memory.

use tch::{Device, Kind, Tensor};
use vqdiffusion::data::{Samples, TokenLoader};
use vqdiffusion::diffusion::forward::q_sample;
use vqdiffusion::diffusion::Objective;
use vqdiffusion::model::ModelConfig;
use vqdiffusion::random::{training_uniform, TrainingDraw};
use vqdiffusion::torch::device::Precision;
use vqdiffusion::torch::Params;
use vqdiffusion::train::diffusion::plan::DiffusionPlan;
use vqdiffusion::train::diffusion::step::{accumulate, Shown};
use vqdiffusion::train::diffusion::{InitialModel, WeightsConfig};
use vqdiffusion::train::engine::Share;
use vqdiffusion::train::{Parameters, TextTraining, TrainConfig, TrainingModel};
use vqdiffusion::transformer::{Dropout, DropoutRates};

use crate::train::place::{model, text_model, Workplace};

/// Loss and parameters with their gradients after two batches of three samples.
fn gradients(
    place: &Workplace,
    text: TextTraining,
    precision: Precision,
    dropout: DropoutRates,
    recompute: bool,
) -> (f64, Parameters) {
    let weights = WeightsConfig {
        init_from: Some(place.path("start.safetensors")),
        ..WeightsConfig::default()
    };
    let config = TrainConfig {
        text,
        ..TrainConfig::default()
    };
    let start = InitialModel::open(&weights, None, text).expect("a start");
    let (state, frozen) = start.load(&config, Device::Cpu).expect("a start");
    let params = Params::new(&state.parameters, Device::Cpu, precision.kind());
    let model = TrainingModel::new(&params, &frozen.parts, start.model());
    let schedule = start.model().schedule();
    let objective = Objective::new(&config.objective, &schedule, Device::Cpu);
    let samples = Samples::read(&place.path("tokens.safetensors")).expect("samples");
    let loader = TokenLoader::new(samples, 3, 0.4).expect("a loader");
    let mut loss = 0.0;
    for first in [0, 3] {
        let batch = loader.batch(first, 3).expect("a batch");
        let times = [0, 4, 9];
        let u = training_uniform(3, &batch.samples, TrainingDraw::Corruption, 16);
        let shown = Shown {
            x_t: q_sample(&schedule, &batch.tokens, &times, &u),
            x_0: batch.tokens.shallow_clone(),
            t: Tensor::from_slice(&times),
            p_t: Tensor::full([3], 0.1, (Kind::Float, Device::Cpu)),
            y: model.condition(&batch).expect("a condition"),
            dropout: Some(Dropout::new(dropout, 3, &batch.samples, 2)),
        };
        let outcome = accumulate(&model, &objective, &shown, 2, recompute);
        loss += outcome.loss.double_value(&[]);
    }
    (loss, state.parameters)
}

#[test]
fn recomputed_blocks_give_the_same_gradients() {
    let class = model("{kind: class, classes: 4, null_class: learned}", "");
    let nothing = model("{kind: unconditional}", "");
    for (config, text) in [
        (text_model(), TextTraining::Frozen),
        (text_model(), TextTraining::Trained),
        (class, TextTraining::Frozen),
        (nothing, TextTraining::Frozen),
    ] {
        let place = Workplace::new(&config, 10);
        let nothing = DropoutRates::default();
        let some = DropoutRates {
            attention: 0.3,
            residual: 0.2,
        };
        for (precision, dropout, tolerance) in [
            (Precision::F32, nothing, 1e-6),
            (Precision::F32, some, 1e-6),
            (Precision::Bf16, some, 1e-2),
        ] {
            let (loss, kept) = gradients(&place, text, precision, dropout, false);
            let (same_loss, recomputed) = gradients(&place, text, precision, dropout, true);
            assert_eq!(loss, same_loss);
            assert!(kept.tensors.keys().eq(recomputed.tensors.keys()));
            for (name, parameter) in &kept.tensors {
                let (a, b) = (parameter.grad(), recomputed.tensors[name].grad());
                let norm = |x: &Tensor| x.norm().double_value(&[]);
                let off = norm(&(&a - &b));
                assert!(
                    off <= tolerance * norm(&a),
                    "{name} ({precision}, {text:?}): off by {off} of {}",
                    norm(&a)
                );
            }
        }
    }
}

#[test]
fn a_run_that_recomputes_follows_one_that_does_not() {
    let place = Workplace::new(&text_model(), 10);
    let steps = ["train.steps=12", "train.validation.every=0"];
    place.succeed(&[&steps[..], &["train.folder=kept"]].concat());
    let recompute = [
        "train.activation_checkpointing=true",
        "train.folder=sparing",
    ];
    place.succeed(&[&steps[..], &recompute].concat());
    let (kept, sparing) = (
        place.logged("kept", "loss"),
        place.logged("sparing", "loss"),
    );
    assert_eq!(kept.len(), 12);
    for (a, b) in kept.iter().zip(&sparing) {
        assert!((a - b).abs() < 1e-5 * a, "{kept:?}, {sparing:?}");
    }
}

/// Of the large model, whatever the device.
#[test]
fn a_run_without_room_is_refused_with_what_would_help() {
    let model = ModelConfig {
        denoiser: crate::released::large(),
        ..text_model()
    };
    let mut config = TrainConfig::default();
    let plan = |config: &TrainConfig| {
        let plan = DiffusionPlan {
            config,
            model: &model,
            device: Device::Cuda(1),
            trained: 1_359_274_624,
            frozen: 0,
            samples: Some(1),
            data: String::new(),
            processes: 1,
            share: Share::of(&config.settings(), 1).expect("a share"),
        };
        let refusal = plan.check_against(16e9).expect_err("too little memory");
        let refusal = refusal.to_string();
        (plan.batch_bytes(), refusal)
    };
    let (kept, refusal) = plan(&config);
    for word in [
        "needs about",
        "25.3 for weights",
        "14.9 GiB are available on cuda:1",
        "a smaller train.batch_size",
        "train.activation_checkpointing: true",
        "train.precision: bf16",
    ] {
        assert!(refusal.contains(word), "{word:?} not in: {refusal}");
    }
    config.activation_checkpointing = true;
    config.precision = Precision::Bf16;
    config.batch_size = 1;
    let (sparing, refusal) = plan(&config);
    assert!(sparing < kept / 40.0, "{sparing}, {kept}");
    assert!(refusal.ends_with("on cuda:1"), "{refusal}");
}
