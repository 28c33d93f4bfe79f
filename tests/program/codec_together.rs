//! Codec training over several processes, here threads of one.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use tch::Tensor;
use tempfile::TempDir;
use vqdiffusion::experiment::codec::CodecExperiment;
use vqdiffusion::ranks::Ranks;
use vqdiffusion::torch::host::values;
use vqdiffusion::train::codec::session;
use vqdiffusion::train::codec::CodecTask;
use vqdiffusion::train::engine::{Resume, Run, Task};

use crate::codec_training::prepared;
use crate::running::succeed;
use crate::train::together::{flat, gradients, off, together};

/// Twenty-four pictures a step; the codebook starts after four steps, its dead entries move
/// every third one, and rare codes have a price.
const SETTINGS: [&str; 9] = [
    "train.batch_size=4",
    "train.accumulation=6",
    "train.steps=20",
    "train.codebook.start=4",
    "train.codebook.revive_every=3",
    "train.codebook.revive_below=0.5",
    "train.codebook.entropy=2.5",
    "train.clip_norm=1e9",
    "train.reconstruction=l2",
];

fn opened(folder: &Path, ranks: Ranks) -> Run<CodecTask> {
    let path = |name: &str| folder.join(name).display().to_string();
    let mut settings: Vec<String> = SETTINGS.map(String::from).into();
    settings.push(format!("data.train={}", path("pictures")));
    settings.push(format!("data.validation={}", path("pictures")));
    settings.push(format!(
        "train.folder={}",
        path(&format!("of{}", ranks.count()))
    ));
    let config = folder.join("codec.yaml");
    let CodecExperiment { codec, data, train } =
        CodecExperiment::read(&config, &settings).expect("an experiment");
    let device = tch::Device::Cpu;
    let training = session::open(&codec, &data, &train, None, &Resume::No, device, ranks);
    training.expect("a run").run
}

/// What a process knows after a step.
struct After {
    gradients: Tensor,
    reconstruction: f64,
    commitment: f64,
    norm: f64,
    usage: Vec<u64>,
    revived: i64,
    /// Weights, then entries, counts and sums.
    weights: Tensor,
    codebook: Tensor,
}

/// The first `steps` steps of each of `count` processes, with the weights that the run in
/// `one` began with, and the validation after them.
fn trained(folder: &Path, start: &[f32], count: usize, steps: usize) -> Vec<(Vec<After>, f64)> {
    let go = AtomicBool::new(false);
    together(count, |ranks| {
        let mut run = opened(folder, ranks);
        let start = Tensor::from_slice(start);
        let mut at = 0;
        for tensor in run.state.parameters.tensors.values() {
            let count = tensor.numel() as i64;
            let drawn = start.narrow(0, at, count).view_as(tensor);
            tch::no_grad(|| tensor.shallow_clone().copy_(&drawn));
            at += count;
        }
        let mut after = Vec::new();
        for _ in 0..steps {
            let step = run.step(&go).expect("a step").expect("a step");
            let book = &run.task.weights.codebook;
            let book = [&book.embedding, &book.cluster_size, &book.embedding_avg];
            after.push(After {
                gradients: gradients(&run.state.parameters),
                reconstruction: step.report.reconstruction,
                commitment: step.report.commitment,
                norm: step.norm,
                usage: step.report.usage,
                revived: step.report.revived,
                weights: flat(run.state.parameters.tensors.values()),
                codebook: flat(book.into_iter()),
            });
        }
        let validation = run.task.validate(&run.state, run.ranks(), &go);
        (after, validation.expect("pictures").expect("a ratio"))
    })
}

fn start(folder: &TempDir) -> Vec<f32> {
    let run = opened(folder.path(), Ranks::alone());
    values(&flat(run.state.parameters.tensors.values()))
}

/// Before there is a codebook the gradients are those of one process; from its start on, which
/// all have alike, the codes of a step count the positions of all pictures, and weights and
/// codebook are alike to the bit.
#[test]
fn processes_train_one_codec() {
    let folder = prepared();
    let start = start(&folder);
    let one = trained(folder.path(), &start, 1, 20).remove(0);
    assert!(one.0.iter().any(|after| after.revived > 0));
    for count in [2, 3, 4] {
        let all = trained(folder.path(), &start, count, 20);
        let off_by = off(&one.0[0].gradients, &all[0].0[0].gradients);
        assert!(off_by <= 1e-6, "{count} processes: {off_by}");
        for (own, psnr) in &all {
            assert_eq!(*psnr, all[0].1);
            assert!((psnr - one.1).abs() < 1.0, "{psnr} and {}", one.1);
            for (n, (own, first)) in own.iter().zip(&all[0].0).enumerate() {
                let step = format!("{count} processes, step {n}");
                assert_eq!(own.weights, first.weights, "{step}");
                // Before, threads draw it from one generator.
                if n >= 4 {
                    assert_eq!(own.codebook, first.codebook, "{step}");
                }
                assert_eq!(own.usage, first.usage, "{step}");
                assert_eq!(own.revived, first.revived, "{step}");
                assert_eq!(own.reconstruction, first.reconstruction, "{step}");
                assert_eq!(own.commitment, first.commitment, "{step}");
                assert_eq!(own.norm, first.norm, "{step}");
                let codes: u64 = own.usage.iter().sum();
                let positions = if n < 4 { 0 } else { 24 * 8 * 8 };
                assert_eq!(codes, positions, "{step}");
            }
        }
        // The start by k-means of latents that differ by rounding.
        let (codes, of_one) = (&all[0].0[4].usage, &one.0[4].usage);
        let moved = codes
            .iter()
            .zip(of_one)
            .map(|(a, b)| a.abs_diff(*b))
            .sum::<u64>();
        assert!(moved <= 24, "{count} processes: {moved} of 1536 codes");
        let revived = |after: &[After]| after.iter().map(|a| a.revived).sum::<i64>();
        assert!(revived(&all[0].0) > 0);
    }
}

/// As the program does it.
#[test]
fn train_codec_divides_its_steps() {
    let folder = prepared();
    let words = [
        "train-codec",
        "codec.yaml",
        "--device=cpu",
        "--threads=1",
        "train.steps=12",
        "train.batch_size=6",
        "train.codebook.start=4",
        "train.save_every=12",
        "--nproc-per-node=3",
    ];
    let out = succeed(folder.path(), &words);
    assert_eq!(
        out.matches("wrote run/codec.safetensors").count(),
        1,
        "{out}"
    );
    assert!(folder
        .path()
        .join("run/step-00000012/codec.safetensors")
        .exists());
}
