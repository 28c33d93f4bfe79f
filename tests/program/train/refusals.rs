//! What is refused, and how configurations are read and printed.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use vqdiffusion::checkpoint::native;
use vqdiffusion::checkpoint::state_dict::read_safetensors;
use vqdiffusion::data::{Samples, TokenLoader};
use vqdiffusion::experiment::Experiment;
use vqdiffusion::ranks::Ranks;
use vqdiffusion::train::diffusion::line::Speed;
use vqdiffusion::train::diffusion::{DiffusionTask, InitialModel, RunData, WeightsConfig};
use vqdiffusion::train::engine::{Run, RunFolder, Task};
use vqdiffusion::train::{TextTraining, TrainConfig};

use crate::train::place::{model, text_model, write_model, write_tokens, Workplace};

#[test]
fn impossible_experiments_are_refused_before_any_work() {
    let place = Workplace::new(&text_model(), 10);
    let file = |text: &str| std::fs::write(place.path("bad.yaml"), text).expect("a file");
    let bad = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_vqdiffusion"))
            .args(["train", "bad.yaml"])
            .current_dir(place.folder.path())
            .output()
            .expect("the binary starts");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{message}");
        for word in words {
            assert!(message.contains(word), "{word:?} not in: {message}");
        }
    };
    file("data: {train: x}\ntrain:\n  stesp: 3\n");
    bad(&["bad.yaml", "stesp", "line 3", "did you mean `steps`"]);
    file("data: {train: x}\ntrain:\n  steps: many\n");
    bad(&["train.steps", "\"many\"", "line 3"]);
    file("train: {steps: 3}\n");
    bad(&["missing field `data`"]);
    file("data: {train: tokens.safetensors}\n");
    bad(&["'model'", "--init-from"]);

    for (overrides, words) in [
        (["train.stps=3"], ["stps", "did you mean `steps`"]),
        (["train.steps"], ["train.steps", "key=value"]),
        (["train.steps=0"], ["train.steps is 0", "at least 1"]),
        (
            ["train.accumulation=100000000000"],
            ["train.accumulation is 100000000000", "at most 1048576"],
        ),
        (
            ["train.accumulation=9223372036854775808"],
            ["train.accumulation is 9223372036854775808", "at most"],
        ),
        (
            ["train.batch_size=1048577"],
            ["train.batch_size is 1048577", "at most 1048576"],
        ),
        (
            ["train.steps=18446744073709551615"],
            ["train.steps is 18446744073709551615", "at most"],
        ),
        (
            ["train.checkpoint.every=1000000000001"],
            ["train.checkpoint.every is 1000000000001", "at most"],
        ),
        (
            ["train.validation.times=1048577"],
            ["train.validation.times is 1048577", "at most"],
        ),
        (
            ["train.preview={every: 1, columns: 1025}"],
            ["train.preview.columns is 1025", "at most 1024"],
        ),
        (
            ["train.learning_rate.warmup=1000000000001"],
            ["train.learning_rate.warmup is 1000000000001", "at most"],
        ),
        (["train.clip.norm=-1"], ["train.clip.norm is -1", "above 0"]),
        (
            ["train.objective.mask_weight=[1, -1]"],
            ["train.objective.mask_weight is -1", "at least 0"],
        ),
        (
            ["train.clip={start: 5, end: 5}"],
            ["train.clip.end is 5", "above clip.start"],
        ),
        (
            ["train.learning_rate.course={kind: cosine, total: 9, minimum: 1.0}"],
            [
                "train.learning_rate.course.minimum is 1",
                "0 to peak (0.002)",
            ],
        ),
        (
            ["train.learning_rate.course.minimum=0.1"],
            ["train.learning_rate.course.minimum is 0.1", "0 to peak"],
        ),
        (
            ["train.learning_rate.course.minimum=-1e-9"],
            ["course.minimum is -0.000000001", "0 to peak"],
        ),
        (
            ["train.learning_rate.course.window=0"],
            ["train.learning_rate.course.window is 0", "at least 1"],
        ),
        (
            ["train.optimizer.betas=[0.9, 1.0]"],
            ["train.optimizer.betas is 1", "below 1"],
        ),
        (
            ["train.dropout.residual=1"],
            ["train.dropout.residual is 1", "below 1"],
        ),
        (
            ["train.dropout.attention=-0.1"],
            ["train.dropout.attention is -0.1", "below 1"],
        ),
        (["train.dropout.hidden=0.1"], ["train.dropout", "`hidden`"]),
        (
            ["train.optimizer.momentum=0.9"],
            ["train.optimizer.momentum is 0.9", "only kind: muon"],
        ),
        (
            ["train.optimizer={kind: muon, momentum: 1.0}"],
            ["train.optimizer.momentum is 1", "below 1"],
        ),
        (
            ["train.optimizer.kind=lion"],
            ["train.optimizer.kind", "`adamw` or `muon`"],
        ),
        (
            ["train.preview={every: 1, classes: [3]}"],
            ["train.preview: the model takes a prompt", "class 3"],
        ),
        (
            ["train.preview={every: 1}"],
            ["train.preview.every is 1", "train.preview.prompts"],
        ),
        (
            ["train.learning_rate.course.threshold=.nan"],
            ["course.threshold is NaN", "at least 0"],
        ),
        (["train.precision=f16"], ["train.precision is f16", "bf16"]),
        (["data.drop_rate=2"], ["data.drop_rate is 2", "0 to 1"]),
        (
            ["data.train=absent.safetensors"],
            ["absent.safetensors", "no such file or folder"],
        ),
        (
            ["weights.init_from=absent.pth"],
            ["absent.pth", "no such file"],
        ),
    ] {
        place.refuse(&overrides, &words);
    }
    place.refuse(
        &["train.batch_size=1024", "train.accumulation=8192"],
        &[
            "batch_size 1024 times accumulation 8192",
            "8388608 samples a step",
        ],
    );
    place.refuse(
        &["train.steps=1000000000000", "train.batch_size=8192"],
        &["train.steps 1000000000000 of 16384 samples", "at most"],
    );
    // Their edges are possible.
    let edges = [
        "train.steps=1000000000000",
        "train.batch_size=1",
        "train.accumulation=9007",
        "train.checkpoint={every: 1000000000000, keep: 1048576}",
        "train.validation={every: 1000000000000, samples: 1048576, times: 1048576}",
        "train.preview={every: 1000000000000, columns: 1024, prompts: [a]}",
        "train.log_every=1000000000000",
        "train.skip_limit=1000000000000",
        "--print-config",
    ];
    let output = place.run(&edges);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    place.refuse(
        &["data.drop_rate=0", "weights.learned_null=true"],
        &["data.drop_rate is 0", "weights.learned_null"],
    );
    assert!(!place.path("run").exists());

    // Tokens of another model.
    let big = Tensor::full([2, 16], 12i64, (Kind::Int64, Device::Cpu));
    let short = Tensor::zeros([2, 9], (Kind::Int64, Device::Cpu));
    for (tokens, words) in [
        (big, ["tokens from 12 to 12", "codes 0 to 11"]),
        (short, ["9 tokens an image", "the model has 16"]),
    ] {
        Tensor::write_safetensors(&[("tokens", tokens)], place.path("other.safetensors"))
            .expect("a file");
        place.refuse(&["data.train=other.safetensors"], &words);
    }
    let class = Workplace::new(
        &model("{kind: class, classes: 3, null_class: learned}", ""),
        10,
    );
    class.refuse(&[], &["tokens.safetensors: label 3", "classes 0 to 2"]);
    class.refuse(
        &["train.preview={every: 1, classes: [0, 3]}"],
        &["train.preview: class 3", "0 to 2"],
    );
    class.refuse(
        &["train.preview={every: 1, prompts: [a bird]}"],
        &["train.preview: the model takes a class", "a prompt"],
    );
    let unconditional = Workplace::new(&model("{kind: unconditional}", ""), 10);
    unconditional.refuse(&[], &["data.drop_rate is 0.2", "no condition to drop"]);
    // A run is not continued or replaced by accident.
    place.succeed(&["train.steps=5"]);
    place.refuse(&[], &["step-00000005", "--resume auto"]);
}

/// A configuration is printed without the files that it names.
#[test]
fn a_whole_configuration_is_printed_without_weights() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/cub200_s.yaml");
    let folder = TempDir::new().expect("a temporary folder");
    let print = |config: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_vqdiffusion"))
            .args(["train", config.to_str().expect("UTF-8"), "--print-config"])
            .current_dir(folder.path())
            .output()
            .expect("the binary starts");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{message}");
        output.stdout
    };
    let printed = print(&config);
    let again = folder.path().join("again.yaml");
    std::fs::write(&again, &printed).expect("a file");
    assert_eq!(print(&again), printed);
    let read = |path: &Path| Experiment::read(path, &[]).expect("an experiment");
    assert_eq!(read(&again), read(&config));
}

/// A file whose configuration asks for 4 TiB in one matrix is refused by its shapes.
#[test]
fn weights_of_another_shape_are_named_whatever_the_size() {
    let mut config = text_model();
    let place = Workplace::new(&config, 4);
    let (state, _) = read_safetensors(&place.path("start.safetensors")).expect("a model file");
    config.denoiser.width = 1 << 20;
    native::write(&place.path("huge.safetensors"), &config, &state, None).expect("a model file");
    let words = [
        "transformer.transformer.blocks.0.attn1.query.weight",
        "shape [32, 32], expected [1048576, 1048576]",
    ];
    place.refuse(&["weights.init_from=huge.safetensors"], &words);
    for dtype in ["f32", "bf16"] {
        let sample = ["sample", "--checkpoint", "huge.safetensors", "a"];
        let output = Command::new(env!("CARGO_BIN_EXE_vqdiffusion"))
            .args(sample)
            .args(["--dtype", dtype])
            .current_dir(place.folder.path())
            .output()
            .expect("the binary starts");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{message}");
        for word in words {
            assert!(message.contains(word), "{word:?} not in: {message}");
        }
    }
}

/// A weight that the loss does not depend on is named in the first step.
#[test]
fn a_parameter_without_a_gradient_is_an_error() {
    let folder = TempDir::new().expect("a temporary folder");
    let config = text_model();
    let path = folder.path().join("start.safetensors");
    write_model(&path, &config);
    write_tokens(&folder.path().join("tokens.safetensors"), 4);
    let weights = WeightsConfig {
        init_from: Some(path),
        ..WeightsConfig::default()
    };
    let train = TrainConfig::default();
    let start = InitialModel::open(&weights, None, TextTraining::Frozen).expect("a start");
    let (mut state, frozen) = start.load(&train, Device::Cpu).expect("a start");
    let extra = Tensor::zeros([3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    state
        .parameters
        .tensors
        .insert("blocks.left_over".into(), extra);
    let samples = Samples::read(&folder.path().join("tokens.safetensors")).expect("samples");
    let loader = TokenLoader::new(samples, 0, 0.0).expect("a loader");
    let data = RunData {
        train: loader,
        validation: None,
    };
    let speed = Speed {
        flops_per_image: 1.0,
        peak: 1.0,
    };
    let task = DiffusionTask::new(&train, start.model(), frozen, data, speed, Device::Cpu);
    let place = RunFolder::open(&folder.path().join("run"), DiffusionTask::MEASURE);
    let mut run = Run::new(
        train.settings(),
        place.expect("a folder"),
        Ranks::alone(),
        state,
        task,
    )
    .expect("a run");
    let error = run.step(&AtomicBool::new(false)).expect_err("no gradient");
    assert!(error.to_string().contains("blocks.left_over"), "{error}");
}

#[test]
fn numbers_that_are_not_finite_end_the_run_with_the_batch_named() {
    let place = Workplace::new(&text_model(), 10);
    place.refuse(
        &[
            "train.learning_rate={start: 1e30, peak: 1e30, warmup: 0, course: {kind: constant}}",
            "train.skip_limit=3",
        ],
        &["3 steps in a row", "samples", "times ["],
    );
    // Its weights are those of the last good step.
    assert!(place.path("run/last/model.safetensors").exists());
    let (steps, losses) = (place.logged("run", "step"), place.logged("run", "loss"));
    assert_eq!(losses.len() + 2, steps.len(), "{losses:?}");
}

#[test]
fn the_printed_configuration_means_the_same_plan() {
    let place = Workplace::new(&text_model(), 10);
    let printed = place.run(&["--print-config", "train.steps=7"]);
    assert!(printed.status.success());
    std::fs::write(place.path("experiment.yaml"), &printed.stdout).expect("a file");
    let again = place.run(&["--print-config"]);
    assert_eq!(printed.stdout, again.stdout);
    assert!(String::from_utf8_lossy(&printed.stdout).contains("steps: 7"));
    assert!(!place.path("run").exists());
}

#[test]
fn texts_that_the_tower_cannot_take_are_refused() {
    let place = Workplace::new(&text_model(), 4);
    let context = text_model().text.expect("a text tower").tower.context;
    let write = |ids: Option<Tensor>| {
        let mut tensors = vec![("tokens", Tensor::zeros([4, 16], (Kind::Int64, Device::Cpu)))];
        tensors.extend(ids.map(|ids| ("text_ids", ids)));
        Tensor::write_safetensors(&tensors, place.path("texts.safetensors")).expect("a file");
    };
    let ids = |width: i64, id: i64| Tensor::full([4, width], id, (Kind::Int64, Device::Cpu));
    for (texts, word) in [
        (Some(ids(context, 1_000_000)), "1000000"),
        (Some(ids(context, -1)), "from -1"),
        (Some(ids(5, 0)), "[4, 5]"),
        (None, "has no 'text_ids'"),
    ] {
        write(texts);
        place.refuse(
            &["data.train=texts.safetensors", "train.folder=texts"],
            &["texts.safetensors", "text_ids", word],
        );
    }
}
