//! Several processes, here threads of one: their gradients, statistics and weights against
//! those of one.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use vqdiffusion::data::{Samples, TokenLoader};
use vqdiffusion::ranks::Ranks;
use vqdiffusion::torch::c10d::Store;
use vqdiffusion::torch::device::Precision;
use vqdiffusion::train::diffusion::config::TrainConfig;
use vqdiffusion::train::diffusion::line::{Speed, StepReport};
use vqdiffusion::train::diffusion::model::TextTraining;
use vqdiffusion::train::diffusion::start::{InitialModel, WeightsConfig};
use vqdiffusion::train::diffusion::task::{DiffusionTask, RunData};
use vqdiffusion::train::engine::optimizer::OptimizerKind;
use vqdiffusion::train::engine::{
    GradientFormat, Parameters, Run, RunFolder, Settings, Share, Task,
};
use vqdiffusion::transformer::DropoutRates;

use crate::train::place::{text_model, write_model, write_tokens};

/// What `work` gives in each of `count` processes, by rank.
pub fn together<R: Send>(count: usize, work: impl Fn(Ranks) -> R + Sync) -> Vec<R> {
    const PATIENCE: Duration = Duration::from_secs(60);
    let (_store, port) = Store::host(0, PATIENCE).expect("a store");
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|rank| {
                scope.spawn(move || {
                    tch::set_num_threads(1);
                    if count == 1 {
                        return work(Ranks::alone());
                    }
                    let store = Store::at("127.0.0.1", port, false, PATIENCE).expect("the store");
                    work(Ranks::meet(store, rank, count).expect("the others"))
                })
            })
            .collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        ended.map(|result| result.expect("no panic")).collect()
    })
}

/// Copies of all tensors, one behind the other.
pub fn flat<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Tensor {
    let parts: Vec<Tensor> = tensors.map(|t| t.detach().flatten(0, -1)).collect();
    Tensor::cat(&parts, 0)
}

pub fn gradients(parameters: &Parameters) -> Tensor {
    flat(parameters.gradients().iter())
}

/// ‖a − b‖ / ‖a‖.
pub fn off(a: &Tensor, b: &Tensor) -> f64 {
    let norm = |x: &Tensor| x.to_kind(Kind::Double).norm().double_value(&[]);
    norm(&(a.to_kind(Kind::Double) - b)) / norm(a)
}

/// Twenty-four samples a step, which 1, 2, 3 and 4 processes can divide: the batches of each
/// and their number shrink.
fn config() -> TrainConfig {
    let mut config = TrainConfig {
        batch_size: 6,
        accumulation: 4,
        steps: 20,
        ..TrainConfig::default()
    };
    config.clip.norm = 1e9;
    config.learning_rate.start = 1e-3;
    config.learning_rate.peak = 1e-3;
    config
}

/// A folder with a text model and its data.
fn prepared() -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    write_model(&folder.path().join("start.safetensors"), &text_model());
    write_tokens(&folder.path().join("tokens.safetensors"), 10);
    folder
}

fn run(folder: &Path, config: &TrainConfig, ranks: Ranks) -> Run<DiffusionTask> {
    let weights = WeightsConfig {
        init_from: Some(folder.join("start.safetensors")),
        ..WeightsConfig::default()
    };
    let start = InitialModel::open(&weights, None, config.text).expect("a start");
    let (state, frozen) = start.load(config, Device::Cpu).expect("a start");
    let samples = Samples::read(&folder.join("tokens.safetensors")).expect("samples");
    let train = TokenLoader::new(samples, 0, 0.2).expect("a loader");
    let data = RunData {
        validation: Some(train.fixed(10).expect("samples")),
        train,
    };
    let speed = Speed {
        flops_per_image: 1.0,
        peak: 1.0,
    };
    let task = DiffusionTask::new(config, start.model(), frozen, data, speed, Device::Cpu);
    let folder = RunFolder::of_another(&folder.join("run"), DiffusionTask::MEASURE);
    Run::new(config.settings(), folder, ranks, state, task).expect("a run")
}

/// What one process knows after some steps.
struct After {
    reports: Vec<StepReport>,
    norms: Vec<f64>,
    /// Of the last step.
    gradients: Tensor,
    weights: Tensor,
    average: Tensor,
    validation: f64,
}

fn after(folder: &Path, config: &TrainConfig, count: usize, steps: usize) -> Vec<After> {
    let go = AtomicBool::new(false);
    together(count, |ranks| {
        let mut run = run(folder, config, ranks);
        let mut reports = Vec::new();
        let mut norms = Vec::new();
        for _ in 0..steps {
            let step = run.step(&go).expect("a step").expect("a step");
            norms.push(step.norm);
            reports.push(step.report);
        }
        let validation = run.task.validate(&run.state, run.ranks(), &go);
        let ema = run.state.ema.as_ref().expect("an average");
        After {
            reports,
            norms,
            gradients: gradients(&run.state.parameters),
            weights: flat(run.state.parameters.tensors.values()),
            average: flat(ema.tensors.values()),
            validation: validation.expect("samples").expect("a bound"),
        }
    })
}

/// The gradient of N processes is that of one on all their samples, accumulated or not.
#[test]
fn gradients_are_those_of_the_joined_batch() {
    let folder = prepared();
    let plain = config();
    let sparing = TrainConfig {
        activation_checkpointing: true,
        text: TextTraining::Trained,
        ..config()
    };
    let dropping = TrainConfig {
        dropout: DropoutRates {
            attention: 0.2,
            residual: 0.3,
        },
        ..config()
    };
    for config in [plain, sparing, dropping] {
        let one = &after(folder.path(), &config, 1, 1)[0];
        for count in [2, 3, 4] {
            for each in after(folder.path(), &config, count, 1) {
                let off = off(&one.gradients, &each.gradients);
                assert!(off <= 1e-6, "{count} processes: {off}");
            }
        }
    }
}

/// Whatever the number of processes, a step has the same samples at the same times, and all
/// processes know the same of it and have the same weights, to the bit.
#[test]
fn twenty_steps_leave_all_processes_alike() {
    let folder = prepared();
    let mut config = config();
    for kind in [OptimizerKind::Adamw, OptimizerKind::Muon] {
        config.optimizer.kind = kind;
        steps_leave_all_alike(folder.path(), &config);
    }
}

fn steps_leave_all_alike(folder: &Path, config: &TrainConfig) {
    let one = &after(folder, config, 1, 20)[0];
    for count in [2, 3, 4] {
        let all = after(folder, config, count, 20);
        for each in &all {
            assert_eq!(each.weights, all[0].weights, "{count} processes");
            assert_eq!(each.average, all[0].average, "{count} processes");
            assert_eq!(each.norms, all[0].norms);
            assert_eq!(each.validation, all[0].validation);
            for (n, (own, first)) in each.reports.iter().zip(&one.reports).enumerate() {
                let step = format!("{count} processes, step {n}");
                assert_eq!(own.times, first.times, "{step}");
                assert_eq!(own.usage, first.usage, "{step}");
                assert_eq!(own.loss, all[0].reports[n].loss, "{step}");
                assert_eq!(own.main, all[0].reports[n].main, "{step}");
                assert_eq!(own.accuracy, all[0].reports[n].accuracy, "{step}");
                assert!((own.loss - first.loss).abs() < 1e-4 * first.loss, "{step}");
                let accuracy = (own.accuracy - first.accuracy).abs();
                assert!(accuracy < 1e-2, "{step}: {accuracy}");
            }
        }
        let off = off(&one.weights, &all[0].weights);
        assert!(off < 1e-4, "{count} processes: {off}");
        let bound = (all[0].validation - one.validation).abs();
        assert!(bound < 1e-4 * one.validation, "{count} processes: {bound}");
    }
}

/// Gradients that are sent in bf16 are those in f32 to eight bits, alike everywhere; and so are
/// those of a model that computes in bf16.
#[test]
fn gradients_sent_in_bf16_are_rounded() {
    let folder = prepared();
    let exact = &after(folder.path(), &config(), 3, 1)[0];
    let rounded = TrainConfig {
        gradients: GradientFormat::Bf16,
        ..config()
    };
    let all = after(folder.path(), &rounded, 3, 1);
    let off_by = off(&exact.gradients, &all[0].gradients);
    assert!((1e-4..1e-2).contains(&off_by), "{off_by}");
    assert!(all.iter().all(|each| each.weights == all[0].weights));
    let computed = TrainConfig {
        precision: Precision::Bf16,
        ..config()
    };
    let one = &after(folder.path(), &computed, 1, 1)[0];
    let all = after(folder.path(), &computed, 3, 1);
    let off_by = off(&one.gradients, &all[0].gradients);
    assert!(off_by < 2e-2, "{off_by}");
    assert!(all.iter().all(|each| each.weights == all[0].weights));
}

/// A step that does not divide names the nearest numbers that do.
#[test]
fn steps_that_do_not_divide_name_those_that_do() {
    let refused = |batch_size, accumulation, count: usize| {
        let settings = Settings {
            batch_size,
            accumulation,
            ..config().settings()
        };
        Share::of(&settings, count).map_err(|error| error.to_string())
    };
    let share = |batch_size, accumulation, count| {
        let share = refused(batch_size, accumulation, count).expect("a share");
        (share.batch_size, share.accumulation)
    };
    assert_eq!(share(4, 8, 4), (4, 2));
    assert_eq!(share(4, 6, 4), (2, 3));
    assert_eq!(share(6, 1, 3), (2, 1));
    assert_eq!(share(4, 8, 1), (4, 8));
    for (batch, accumulation, count, words) in [
        (4, 8, 3, ["30 or 33 samples", "2 or 4 processes"]),
        (1, 2, 3, ["parts: 3 samples", "2 processes"]),
    ] {
        let error = refused(batch, accumulation, count).expect_err("no share");
        for word in words {
            assert!(error.contains(word), "{word:?} not in: {error}");
        }
    }
}
