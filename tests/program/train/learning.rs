//! That training learns, and fine-tuning starts where the imported model is.

use std::path::Path;

use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use vqdiffusion::checkpoint::{Checkpoint, OpenOptions};
use vqdiffusion::clip::ClipTokenizer;
use vqdiffusion::data::{Samples, TokenLoader};
use vqdiffusion::diffusion::compat::{log_prediction, LogSchedule};
use vqdiffusion::diffusion::forward::q_sample;
use vqdiffusion::diffusion::truncation::Truncation;
use vqdiffusion::diffusion::Times;
use vqdiffusion::pipeline::{Pipeline, Subject};
use vqdiffusion::random::{training_uniform, TrainingDraw};
use vqdiffusion::torch::device::Precision;

use crate::train::place::{image, model, text_model, Workplace, CAPTIONS};

/// Four images are learned by heart: each caption gives its image.
#[test]
fn a_tiny_set_is_memorised() {
    let place = Workplace::new(&text_model(), 4);
    place.succeed(&[
        "train.steps=500",
        "train.batch_size=8",
        "train.accumulation=1",
        "train.learning_rate={start: 1e-3, peak: 5e-3, warmup: 20, course: {kind: cosine, total: 500, minimum: 1e-4}}",
        "train.ema.decay=0.95",
        "train.text=trained",
        "train.checkpoint.every=500",
        "train.validation.every=250",
        "train.log_every=50",
        "data.drop_rate=0.1",
    ]);
    let bounds = place.logged("run", "validation_nats_per_token");
    assert!(bounds.windows(2).all(|w| w[1] < w[0]), "{bounds:?}");
    let options = OpenOptions::default();
    let checkpoint = Checkpoint::open(&place.path("run/best/model.safetensors"), &options)
        .expect("a model file");
    let pipeline = Pipeline::load(&checkpoint, Device::Cpu, Precision::F32).expect("a model");
    let options = pipeline
        .usual()
        .steps(10)
        .times(Times::Even)
        .guidance(1.0)
        .truncation(Truncation::TopP(0.9));
    let prompts: Vec<&str> = CAPTIONS.into_iter().cycle().take(12).collect();
    let made = pipeline.pictures(&prompts, &options).expect("pictures");
    assert_eq!(made.len(), 12);
    for (row, made) in made.iter().enumerate() {
        let drawn = &made.tokens;
        let right = image(row % 4)
            .iter()
            .zip(drawn)
            .filter(|(a, b)| a == b)
            .count();
        assert!(right >= 15, "sample {row}: {right} of 16 tokens, {drawn:?}");
    }
}

/// The first loss of fine-tuning is that of the imported model, evaluated through its
/// inference path and the original's posterior.
#[test]
fn fine_tuning_starts_at_the_imported_models_loss() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text_tiny");
    let folder = TempDir::new().expect("a temporary folder");
    let options = OpenOptions {
        config: Some(case.join("config.yaml")),
        ..OpenOptions::default()
    };
    let checkpoint = Checkpoint::open(&case.join("last.pth"), &options).expect("the case");
    let (codes, length) = (
        checkpoint.config.denoiser.codes,
        checkpoint.config.denoiser.tokens(),
    );
    let (count, seed) = (6i64, 11u64);
    let tokens = Tensor::arange(count * length, (Kind::Int64, Device::Cpu)) * 7;
    let tokens = tokens.remainder(codes).view([count, length]);
    let tokenizer = ClipTokenizer::new(49408).expect("a tokenizer");
    let ids = tokenizer.encode("a bird").expect("ids").ids;
    let ids = Tensor::from_slice(&ids).repeat([count, 1]);
    let file = folder.path().join("tokens.safetensors");
    let tensors = [
        ("tokens", tokens.shallow_clone()),
        ("text_ids", ids.shallow_clone()),
    ];
    Tensor::write_safetensors(&tensors, &file).expect("a tokens file");
    std::fs::write(
        folder.path().join("experiment.yaml"),
        format!(
            "weights: {{init_from: {0}/last.pth, config: {0}/config.yaml}}
data: {{train: tokens.safetensors}}
train: {{folder: run, seed: {seed}, steps: 1, batch_size: 2, accumulation: 3, log_every: 1,
  validation: {{every: 0}}}}\n",
            case.display()
        ),
    )
    .expect("a file");
    let place = Workplace { folder };
    place.succeed(&[]);
    let logged = place.logged("run", "loss")[0];

    let _no_grad = tch::no_grad_guard();
    let pipeline = Pipeline::load(&checkpoint, Device::Cpu, Precision::F32).expect("a model");
    let samples = Samples::read(&file).expect("samples");
    let loader = TokenLoader::new(samples, seed, 0.0).expect("a loader");
    let batch = loader.batch(0, count as usize).expect("a batch");
    let u = training_uniform(seed, &batch.samples, TrainingDraw::Time, 1);
    let t: Vec<i64> = Vec::try_from((u.view([-1]) * 100.0).to_kind(Kind::Int64)).expect("times");
    let noise = training_uniform(seed, &batch.samples, TrainingDraw::Corruption, length);
    let schedule = checkpoint.config.schedule();
    let x_t = q_sample(&schedule, &batch.tokens, &t, &noise);
    let prompts = vec![Subject::Text("a bird".into()); count as usize];
    let condition = pipeline.condition(&prompts, false).expect("a condition");
    let t = Tensor::from_slice(&t);
    let logits = pipeline.denoiser().forward(&x_t, &t, &condition, None);
    let log_p = log_prediction(&logits);
    let logs = LogSchedule::new(&schedule, Device::Cpu);
    let truth = logs.q_posterior(&logs.log_one_hot(&batch.tokens), &x_t, &t);
    let model = logs.q_posterior(&log_p, &x_t, &t);
    let at_x_0 = |x: &Tensor| {
        x.gather(-1, &batch.tokens.unsqueeze(-1), false)
            .squeeze_dim(-1)
    };
    let sum = |x: Tensor| {
        x.flatten(1, -1)
            .sum_dim_intlist([1].as_slice(), false, Kind::Double)
    };
    let kl = sum(truth.exp() * (&truth - &model));
    let (nll, surprise) = (sum(-at_x_0(&model)), sum(-at_x_0(&log_p)));
    let first = t.eq(0);
    let lambda = (2.0 - t.to_kind(Kind::Double) / 100.0) * 5e-4;
    let main = nll.where_self(&first, &kl);
    let auxiliary = nll.where_self(&first, &surprise);
    let total: Tensor = (main + auxiliary * lambda) * 100.0;
    let expected = total.mean(Kind::Double).double_value(&[]) / length as f64;
    assert!(
        (logged - expected).abs() < 1e-4 * expected,
        "logged {logged}, expected {expected}"
    );
}

/// Records with `tag` in the TensorBoard file of a run, whose lengths must add up.
fn events(run: &Path, tag: &str) -> usize {
    let mut files = std::fs::read_dir(run)
        .expect("a folder")
        .filter_map(|entry| Some(entry.ok()?.path()));
    let file = files.find(|path| path.to_string_lossy().contains("tfevents"));
    let bytes = std::fs::read(file.expect("an event file")).expect("a file");
    let (mut at, mut count) = (0, 0);
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let data = &bytes[at + 12..][..length as usize];
        count += usize::from(data.windows(tag.len()).any(|part| part == tag.as_bytes()));
        at += 16 + length as usize;
    }
    assert_eq!(at, bytes.len());
    count
}

/// Lines are over all steps since the last: here an epoch over two images, of code 3 in 24
/// places and code 7 in 8. exp(−¾ ln ¾ − ¼ ln ¼) = 4 / 3^¾.
#[test]
fn the_log_counts_the_codes_of_its_interval() {
    let place = Workplace::new(&model("{kind: unconditional}", ""), 2);
    let mut tokens = [3i64; 32];
    tokens[24..].fill(7);
    let tokens = Tensor::from_slice(&tokens).view([2, 16]);
    Tensor::write_safetensors(&[("tokens", tokens)], place.path("tokens.safetensors"))
        .expect("a tokens file");
    place.succeed(&[
        "train.steps=4",
        "train.batch_size=1",
        "train.accumulation=1",
        "train.log_every=2",
        "data.drop_rate=0",
    ]);
    assert_eq!(place.logged("run", "distinct_codes"), [2.0, 2.0]);
    for perplexity in place.logged("run", "code_perplexity") {
        assert!((perplexity - 4.0 / 3f64.powf(0.75)).abs() < 1e-12);
    }
    for tag in ["train/distinct_codes", "train/code_perplexity"] {
        assert_eq!(events(&place.path("run"), tag), 2);
    }
}

/// How a step's samples are divided into batches changes rounding alone.
#[test]
fn accumulation_is_a_larger_batch() {
    let place = Workplace::new(&text_model(), 10);
    let steps = ["train.steps=12", "train.validation.every=0"];
    for (folder, batch_size, accumulation) in [("one", 4, 1), ("four", 1, 4)] {
        let overrides = [
            format!("train.folder={folder}"),
            format!("train.batch_size={batch_size}"),
            format!("train.accumulation={accumulation}"),
        ];
        let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
        place.succeed(&[steps.as_slice(), &overrides].concat());
    }
    let (one, four) = (place.logged("one", "loss"), place.logged("four", "loss"));
    assert_eq!((one.len(), four.len()), (12, 12));
    for (step, (a, b)) in one.iter().zip(&four).enumerate() {
        assert!((a - b).abs() < 1e-3 * a, "step {step}: {a} and {b}");
    }
}

#[test]
fn class_and_unconditional_models_train() {
    for (condition, drop_rate) in [
        (
            "{kind: class, classes: 4, null_class: learned}",
            "data.drop_rate=0.2",
        ),
        ("{kind: unconditional}", "data.drop_rate=0"),
    ] {
        let place = Workplace::new(&model(condition, ""), 10);
        place.succeed(&["train.steps=30", "train.precision=bf16", drop_rate]);
        let loss = place.logged("run", "loss");
        assert_eq!(events(&place.path("run"), "train/token_accuracy"), 30);
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
        assert!(
            mean(&loss[20..]) < 0.9 * mean(&loss[..10]),
            "{condition}: {loss:?}"
        );
    }
}
