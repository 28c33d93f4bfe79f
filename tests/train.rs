//! Training through the real binary on tiny models: exactness of resuming, survival of
//! kills, learning, and what is refused.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use vqdiffusion::checkpoint::official::{CODEC, DENOISER, NULL_TEXT, TEXT};
use vqdiffusion::checkpoint::{native, Checkpoint, Entry, OpenOptions, StateDict};
use vqdiffusion::clip::{ClipTokenizer, TextEncoder};
use vqdiffusion::codec::ImageCodec;
use vqdiffusion::data::{Samples, TokenLoader};
use vqdiffusion::diffusion::forward::q_sample;
use vqdiffusion::diffusion::noise::{training_uniform, TrainingDraw};
use vqdiffusion::diffusion::posterior::{log_prediction, LogSchedule};
use vqdiffusion::diffusion::truncation::Truncation;
use vqdiffusion::diffusion::{ReverseRule, SamplerConfig};
use vqdiffusion::experiment::Experiment;
use vqdiffusion::model::ModelConfig;
use vqdiffusion::pipeline::{Pipeline, Request, Subject};
use vqdiffusion::torch::device::Precision;
use vqdiffusion::torch::params::RandomWeights;
use vqdiffusion::torch::{Init, Params};
use vqdiffusion::train::checkpoint::{newest, restore, save, saved_steps};
use vqdiffusion::train::config::CheckpointConfig;
use vqdiffusion::train::start::{Start, WeightsConfig};
use vqdiffusion::train::trainer::Trainer;
use vqdiffusion::train::{TextTraining, TrainConfig, TrainableWeights};
use vqdiffusion::transformer::Denoiser;

/// A 4×4 grid of 12 codes; `condition` and `text` in YAML.
fn model(condition: &str, text: &str) -> ModelConfig {
    let yaml = format!(
        "{{denoiser: {{layers: 2, width: 32, heads: 2, codes: 12, grid: [4, 4],
            position_table: [4, 4], timesteps: 10, timestep_embedding: table,
            feed_forward: fc, expansion: 2, condition: {condition}}},
          transition: {{kind: mask_and_replace, alpha: [0.99999, 0.000009],
            gamma: [0.000009, 0.9]}},
          {text}
          codec: {{resolution: 16, channels: 32, multipliers: [1, 1, 1],
            residual_blocks: 1, attention_resolutions: [4], latent_channels: 8,
            embedding_width: 8, codebook: 12, quantizer: gumbel}}}}"
    );
    serde_yaml::from_str(&yaml).expect("a model")
}

fn text_model() -> ModelConfig {
    model(
        "{kind: text, positions: 77, width: 16}",
        "text: {tower: {vocabulary: 1792, context: 77, width: 16, layers: 1, heads: 1,
            hidden: 32}, null_text: learned},",
    )
}

/// Writes a model file with random weights.
fn write_model(path: &Path, config: &ModelConfig) {
    tch::manual_seed(5);
    let weights = TrainableWeights::new(&RandomWeights, Device::Cpu);
    let root = Params::new(&weights, Device::Cpu, Kind::Float);
    let _ = Denoiser::new(&root.at(DENOISER), &config.denoiser);
    let _ = ImageCodec::new(&root.at(CODEC), &config.codec, None);
    if let Some(text) = &config.text {
        let _ = TextEncoder::new(&root.at(TEXT), &text.tower);
        let shape = [text.tower.context, text.tower.width];
        let _ = root.get(NULL_TEXT, &shape, Init::Normal(1.0));
    }
    let mut state = StateDict::default();
    for (name, tensor) in weights.into_parameters().tensors {
        let entry = Entry::in_memory(name.as_str(), &tensor.detach()).expect("an f32 tensor");
        state.insert(name, entry);
    }
    native::write(path, config, &state).expect("a model file");
}

const CAPTIONS: [&str; 4] = ["a", "b", "c", "d"];

/// Four images of 16 tokens, each with its caption and label, repeated to `count` rows.
fn write_tokens(path: &Path, count: usize) {
    let tokenizer = ClipTokenizer::new(1792).expect("a tokenizer");
    let rows = || (0..count).map(|i| i % 4);
    let ids: Vec<i64> = rows()
        .flat_map(|i| tokenizer.encode(CAPTIONS[i]).expect("ids").ids)
        .collect();
    let labels: Vec<i64> = rows().map(|i| i as i64).collect();
    let tokens: Vec<i64> = rows().flat_map(image).collect();
    let count = count as i64;
    let tensors = [
        ("tokens", Tensor::from_slice(&tokens).view([count, 16])),
        ("text_ids", Tensor::from_slice(&ids).view([count, -1])),
        ("labels", Tensor::from_slice(&labels)),
    ];
    Tensor::write_safetensors(&tensors, path).expect("a tokens file");
}

fn image(i: usize) -> Vec<i64> {
    (0..16)
        .map(|l| ((3 * i + l * (i + 1)) % 12) as i64)
        .collect()
}

/// A folder with a model, tokens and an experiment over them.
struct Workplace {
    folder: TempDir,
}

impl Workplace {
    fn new(config: &ModelConfig, count: usize) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        write_model(&folder.path().join("start.safetensors"), config);
        write_tokens(&folder.path().join("tokens.safetensors"), count);
        let workplace = Workplace { folder };
        std::fs::write(workplace.path("experiment.yaml"), EXPERIMENT).expect("a file");
        workplace
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, overrides: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vqdiffusion"));
        command
            .args([
                "train",
                "experiment.yaml",
                "--threads",
                "1",
                "--device",
                "cpu",
            ])
            .args(overrides)
            .current_dir(self.folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, overrides: &[&str]) -> Output {
        self.command(overrides).output().expect("the binary starts")
    }

    fn succeed(&self, overrides: &[&str]) -> String {
        let output = self.run(overrides);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{overrides:?}: {message}");
        message
    }

    /// Expects exit code 2 and a message with all of `words`.
    fn refuse(&self, overrides: &[&str], words: &[&str]) {
        let output = self.run(overrides);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{overrides:?}: {message}");
        assert!(!message.contains("panicked"), "{message}");
        for word in words {
            assert!(
                message.contains(word),
                "{overrides:?}: {word:?} not in: {message}"
            );
        }
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn assert_same(&self, a: &str, b: &str) {
        for file in ["model.safetensors", "state.safetensors"] {
            let (a, b) = (format!("{a}/{file}"), format!("{b}/{file}"));
            assert!(self.bytes(&a) == self.bytes(&b), "{a} and {b} differ");
        }
    }

    /// The value `key` in every line of the log of the run in `folder`.
    fn logged(&self, folder: &str, key: &str) -> Vec<f64> {
        let text = String::from_utf8(self.bytes(&format!("{folder}/log.jsonl"))).expect("text");
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON"));
        lines.filter_map(|line| line[key].as_f64()).collect()
    }
}

/// 10 samples and 4 a step: epochs end in the middle of steps.
const EXPERIMENT: &str = "\
weights:
  init_from: start.safetensors
data:
  train: tokens.safetensors
  drop_rate: 0.2
train:
  folder: run
  steps: 40
  batch_size: 2
  accumulation: 2
  learning_rate:
    start: 1.0e-4
    peak: 2.0e-3
    warmup: 10
    course: {kind: plateau, factor: 0.5, patience: 8, threshold: 0.1, minimum: 1.0e-5, window: 3}
  checkpoint: {every: 5, keep: 2}
  validation: {every: 10, samples: 4, times: 10}
  log_every: 1
";

/// Waits until `done`, failing after a minute.
fn wait_for(child: &mut Child, what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        let ended = child.try_wait().expect("a child");
        assert!(ended.is_none(), "ended before {what}: {ended:?}");
        assert!(start.elapsed() < Duration::from_secs(60), "no {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn signal(child: &Child, signal: libc::c_int) {
    // SAFETY: sends a signal to a process that is ours and not waited for yet.
    unsafe { libc::kill(child.id() as libc::pid_t, signal) };
}

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let place = Workplace::new(&text_model(), 10);
    place.succeed(&["train.folder=whole"]);
    place.succeed(&["train.folder=again"]);
    place.assert_same("whole/last", "again/last");

    let killed = ["train.folder=killed", "train.steps=1000000"];
    let mut child = place.command(&killed).spawn().expect("the binary starts");
    wait_for(&mut child, "checkpoint", || {
        place.path("killed/step-00000005").exists()
    });
    child.kill().expect("a running child"); // SIGKILL
    let _ = child.wait();
    let steps = saved_steps(&place.path("killed")).expect("a folder");
    assert!(steps.last().is_some_and(|s| s.step < 40), "{steps:?}");
    let message = place.succeed(&["train.folder=killed", "--resume", "auto"]);
    assert!(message.contains("continued"), "{message}");
    place.assert_same("whole/last", "killed/last");
    // The log has every step once.
    assert_eq!(
        place.logged("killed", "loss"),
        place.logged("whole", "loss")
    );
    // The last two checkpoints stay, and the best.
    let steps = saved_steps(&place.path("whole")).expect("a folder");
    assert!((2..=3).contains(&steps.len()), "{steps:?}");
}

#[test]
fn a_signal_ends_the_run_after_a_checkpoint() {
    let place = Workplace::new(&text_model(), 10);
    for number in [libc::SIGTERM, libc::SIGINT] {
        let folder = format!("train.folder=signal{number}");
        let long = [
            folder.as_str(),
            "train.steps=1000000",
            "train.checkpoint.every=1000000",
        ];
        let mut child = place.command(&long).spawn().expect("the binary starts");
        let log = place.path(&format!("signal{number}/log.jsonl"));
        wait_for(&mut child, "step", || {
            std::fs::metadata(&log).is_ok_and(|file| file.len() > 0)
        });
        signal(&child, number);
        let status = child.wait().expect("a child");
        assert_eq!(status.code(), Some(3));
        let folder_path = place.path(&format!("signal{number}"));
        let saved = newest(&folder_path)
            .expect("a folder")
            .expect("a checkpoint");
        let steps = place.logged(&format!("signal{number}"), "step");
        assert_eq!(Some(&(saved.step as f64)), steps.last());
        // It goes on from there.
        let end = format!("train.steps={}", saved.step + 2);
        place.succeed(&[&folder, &end, "--resume", "auto"]);
    }
}

#[test]
fn a_second_signal_ends_the_run_at_once() {
    let place = Workplace::new(&text_model(), 10);
    // A step of minutes.
    let long = ["train.accumulation=100000"];
    let mut child = place.command(&long).spawn().expect("the binary starts");
    let log = place.path("run/log.jsonl");
    wait_for(&mut child, "log", || log.exists());
    signal(&child, libc::SIGTERM);
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().expect("a child").is_none());
    signal(&child, libc::SIGTERM);
    let status = child.wait().expect("a child");
    assert_eq!(status.code(), Some(128 + libc::SIGTERM));
}

#[test]
fn without_room_the_previous_checkpoint_stays() {
    let place = Workplace::new(&text_model(), 10);
    place.succeed(&["train.steps=5"]);
    // Files may not grow beyond 64 KiB, as on a full disk.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_vqdiffusion"))
        .args([
            "train",
            "experiment.yaml",
            "--resume",
            "auto",
            "--threads",
            "1",
        ])
        .current_dir(place.folder.path())
        .output()
        .expect("sh starts");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    for word in ["step 10 could not be written", "step-00000005 stays"] {
        assert!(message.contains(word), "{word:?} not in: {message}");
    }
    let left: Vec<_> = std::fs::read_dir(place.path("run"))
        .expect("a folder")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    place.succeed(&["--resume", "auto"]);
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let place = Workplace::new(&text_model(), 10);
    place.succeed(&["train.steps=10"]);
    let file = place.path("run/step-00000010/state.safetensors");
    let mut bytes = std::fs::read(&file).expect("a file");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, bytes).expect("a file");
    place.refuse(
        &["--resume", "run/step-00000010"],
        &["state.safetensors", "SHA-256"],
    );
    let message = place.succeed(&["--resume", "auto", "train.steps=12"]);
    assert!(message.contains("step-00000005 at step 5"), "{message}");
}

/// Saves checkpoints in `KILLED_SAVER` without end; nothing without that variable.
#[test]
fn child_that_saves_without_end() {
    let Some(folder) = std::env::var_os("KILLED_SAVER").map(PathBuf::from) else {
        return;
    };
    tch::set_num_threads(1);
    let config = TrainConfig::default();
    let weights = WeightsConfig {
        init_from: Some(folder.join("start.safetensors")),
        ..WeightsConfig::default()
    };
    let start = Start::open(&weights, None, TextTraining::Frozen).expect("a start");
    let (mut state, _, frozen) = start.load(&config, Device::Cpu).expect("a start");
    let run = folder.join("run");
    if let Some(saved) = newest(&run).expect("a readable folder") {
        restore(&saved.path, &config, &mut state).expect("a whole checkpoint");
    }
    let keep = CheckpointConfig { every: 1, keep: 2 };
    loop {
        state.step += 1;
        save(&run, &keep, start.model(), &state, &frozen, None).expect("a saved checkpoint");
    }
}

#[test]
fn the_last_checkpoint_survives_two_hundred_kills() {
    std::thread::scope(|scope| {
        for lane in 1..=2 {
            scope.spawn(move || survive_kills(100, lane * 88_172_645_463_325_252));
        }
    });
}

fn survive_kills(kills: usize, mut generator: u64) {
    let folder = TempDir::new().expect("a temporary folder");
    let config = model("{kind: unconditional}", "");
    write_model(&folder.path().join("start.safetensors"), &config);
    let run = folder.path().join("run");
    let exe = std::env::current_exe().expect("this test");
    let mut last = 0;
    let steps = || saved_steps(&run).ok().and_then(|s| Some(s.last()?.step));
    for kill in 0..kills {
        let mut child = Command::new(&exe)
            .args(["--exact", "child_that_saves_without_end", "--nocapture"])
            .env("KILLED_SAVER", folder.path())
            .env("OMP_NUM_THREADS", "1")
            .stdout(Stdio::null())
            .spawn()
            .expect("this test starts again");
        wait_for(&mut child, "newer checkpoint", || {
            steps().unwrap_or(0) > last
        });
        // xorshift: somewhere in the next saves, which take milliseconds.
        generator ^= generator << 13;
        generator ^= generator >> 7;
        generator ^= generator << 17;
        std::thread::sleep(Duration::from_micros(generator % 20_000));
        child.kill().expect("a running child");
        let _ = child.wait();
        let saved = newest(&run).expect("a readable folder");
        let saved = saved.unwrap_or_else(|| panic!("no checkpoint after kill {kill}"));
        assert_eq!(
            Some(saved.step),
            steps(),
            "the newest is damaged (kill {kill})"
        );
        assert!(
            saved.step > last,
            "kill {kill}: {} after {last}",
            saved.step
        );
        last = saved.step;
    }
    // It is a model file.
    let saved = newest(&run)
        .expect("a readable folder")
        .expect("a checkpoint");
    let file = saved.path.join("model.safetensors");
    let model = Checkpoint::open(&file, &OpenOptions::default()).expect("a model file");
    Pipeline::load(&model, Device::Cpu, Precision::F32).expect("a whole model");
}

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
    let config = SamplerConfig {
        steps: 10,
        guidance: 1.0,
        truncation: Truncation::TopP(0.9),
        revealing: None,
        rule: ReverseRule::Exact,
    };
    let sampler = pipeline.sampler(&config).expect("a sampler");
    let requests: Vec<Request> = (0..12)
        .map(|i| Request {
            subject: Subject::Text(CAPTIONS[i % 4].into()),
            seed: i as u64,
        })
        .collect();
    let tokens = pipeline.sample_tokens(&sampler, &requests, &mut |_, _| ());
    let tokens = tokens.expect("tokens");
    for row in 0..12 {
        let drawn = Vec::<i64>::try_from(tokens.get(row as i64)).expect("tokens");
        let right = image(row % 4)
            .iter()
            .zip(&drawn)
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

#[test]
fn class_and_unconditional_models_train() {
    for condition in [
        "{kind: class, classes: 4, null_class: learned}",
        "{kind: unconditional}",
    ] {
        let place = Workplace::new(&model(condition, ""), 10);
        place.succeed(&["train.steps=30", "train.precision=bf16"]);
        let loss = place.logged("run", "loss");
        assert_eq!(events(&place.path("run"), "train/token_accuracy"), 30);
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
        assert!(
            mean(&loss[20..]) < 0.9 * mean(&loss[..10]),
            "{condition}: {loss:?}"
        );
    }
}

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
        (["train.clip.norm=-1"], ["train.clip.norm is -1", "above 0"]),
        (["train.precision=f16"], ["train.precision is f16", "bf16"]),
        (["data.drop_rate=2"], ["data.drop_rate is 2", "0 to 1"]),
        (
            ["data.train=absent.safetensors"],
            ["absent.safetensors", "No such file"],
        ),
        (
            ["weights.init_from=absent.pth"],
            ["absent.pth", "no such file"],
        ),
    ] {
        place.refuse(&overrides, &words);
    }
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
    // A run is not continued or replaced by accident.
    place.succeed(&["train.steps=5"]);
    place.refuse(&[], &["step-00000005", "--resume auto"]);
}

/// An official configuration is an experiment, with the recipe it describes.
#[test]
fn an_official_configuration_trains() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text_tiny");
    let folder = TempDir::new().expect("a temporary folder");
    let place = Workplace { folder };
    let official = case.join("config.yaml");
    let run = |overrides: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_vqdiffusion"))
            .args(["train", official.to_str().expect("UTF-8"), "--threads", "1"])
            .args([
                "--init-from",
                case.join("last.pth").to_str().expect("UTF-8"),
            ])
            .args(overrides)
            .current_dir(place.folder.path())
            .output()
            .expect("the binary starts")
    };
    let message = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        message(&output).contains("data.train=FOLDER"),
        "{}",
        message(&output)
    );

    let tokens = Tensor::zeros([4, 64], (Kind::Int64, Device::Cpu));
    let ids = Tensor::zeros([4, 77], (Kind::Int64, Device::Cpu));
    let file = place.path("tokens.safetensors");
    Tensor::write_safetensors(&[("tokens", tokens), ("text_ids", ids)], file).expect("a file");
    let data = [
        "data.train=tokens.safetensors",
        "train.steps=2",
        "train.folder=run",
    ];
    let output = run(&[data.as_slice(), &["--print-config"]].concat());
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in [
        "recipe: official",
        "patience: 60000",
        "peak: 0.001",
        "end: 5000",
    ] {
        assert!(printed.contains(line), "{line:?} not in: {printed}");
    }
    let grid = ["train.preview={every: 1, prompts: [a bird], columns: 2, steps: 2}"];
    let output = run(&[data.as_slice(), &grid].concat());
    assert!(output.status.success(), "{}", message(&output));
    assert!(place.path("run/last/model.safetensors").exists());
    let picture = image::open(place.path("run/samples-00000002.png")).expect("a grid");
    assert_eq!((picture.width(), picture.height()), (2 * 64 + 2, 64));
}

/// From random weights a run needs the codec, the text tower (or trains it), and nothing
/// else; the same seed draws the same weights.
#[test]
fn training_starts_from_a_codec_and_a_text_tower() {
    let place = Workplace::new(&text_model(), 10);
    let experiment = format!(
        "model: {}\nweights: {{codec: start.safetensors}}\n{}",
        serde_json::to_string(&text_model()).expect("JSON"),
        EXPERIMENT.replace("weights:\n  init_from: start.safetensors\n", ""),
    );
    std::fs::write(place.path("experiment.yaml"), experiment).expect("a file");
    place.refuse(&[], &["weights.text is missing", "train.text: trained"]);
    let text = "weights.text=start.safetensors";
    for folder in ["train.folder=a", "train.folder=b"] {
        place.succeed(&[text, folder, "train.steps=5"]);
    }
    place.assert_same("a/last", "b/last");
    let message = place.succeed(&["train.text=trained", "train.folder=c", "train.steps=5"]);
    assert!(message.contains("0 frozen"), "{message}");
    place.refuse(
        &[text, "weights.codec=tokens.safetensors", "train.folder=d"],
        &["tokens.safetensors", "header"],
    );
}

/// A class model tuned for guidance gets a row for "no class", which starts as what
/// stood for it before: the mean of the classes.
#[test]
fn a_null_class_is_added_for_tuning() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("start.safetensors");
    write_model(
        &path,
        &model("{kind: class, classes: 4, null_class: mean}", ""),
    );
    let weights = WeightsConfig {
        init_from: Some(path),
        learned_null: true,
        ..WeightsConfig::default()
    };
    let wanted = model("{kind: class, classes: 4, null_class: learned}", "");
    let start = Start::open(&weights, Some(&wanted), TextTraining::Frozen).expect("a start");
    assert_eq!(start.model(), &wanted);
    let (state, _, _) = start
        .load(&TrainConfig::default(), Device::Cpu)
        .expect("a start");
    let table = &state.parameters.tensors[&format!("{DENOISER}.blocks.0.ln2.emb.weight")];
    assert_eq!(table.size(), [5, 32]);
    let mean = table.narrow(0, 0, 4).mean_dim(0, false, Kind::Float);
    let off = (table.get(4) - mean).abs().max().double_value(&[]);
    assert!(off < 1e-6, "{off}");
}

/// The experiments that come with the project can be read.
#[test]
fn the_configurations_are_experiments() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("train_") {
            Experiment::read(&path, &[]).unwrap_or_else(|e| panic!("{e}"));
            count += 1;
        }
    }
    assert!(count > 0);
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
    let start = Start::open(&weights, None, TextTraining::Frozen).expect("a start");
    let (mut state, parts, _) = start.load(&train, Device::Cpu).expect("a start");
    let extra = Tensor::zeros([3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    state
        .parameters
        .tensors
        .insert("blocks.left_over".into(), extra);
    let samples = Samples::read(&folder.path().join("tokens.safetensors")).expect("samples");
    let loader = TokenLoader::new(samples, 0, 0.0).expect("a loader");
    let mut trainer = Trainer::new(&train, start.model(), parts, state, Device::Cpu);
    let error = trainer.step(&loader).expect_err("no gradient");
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
