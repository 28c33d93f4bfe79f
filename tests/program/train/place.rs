//! A folder with a tiny model, its data and an experiment, and the binary run in it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use vqdiffusion::checkpoint::official::{CODEC, DENOISER, NULL_TEXT, TEXT};
use vqdiffusion::checkpoint::{native, Entry, StateDict};
use vqdiffusion::clip::{ClipTokenizer, TextEncoder};
use vqdiffusion::codec::ImageCodec;
use vqdiffusion::model::{ModelConfig, NullText};
use vqdiffusion::torch::params::RandomWeights;
use vqdiffusion::torch::{Init, Params};
use vqdiffusion::train::TrainableWeights;
use vqdiffusion::transformer::Denoiser;

use crate::drawn::drawn;

/// A 4×4 grid of 12 codes; `condition` and `text` in YAML.
pub fn model(condition: &str, text: &str) -> ModelConfig {
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

pub fn text_model() -> ModelConfig {
    model(
        "{kind: text, positions: 77, width: 16}",
        "text: {tower: {vocabulary: 1792, context: 77, width: 16, layers: 1, heads: 1,
            hidden: 32}, null_text: learned},",
    )
}

/// Random weights for a model.
fn weights(config: &ModelConfig) -> TrainableWeights<'static> {
    let weights = TrainableWeights::new(&RandomWeights, Device::Cpu);
    let root = Params::new(&weights, Device::Cpu, Kind::Float);
    let _ = Denoiser::new(&root.at(DENOISER), &config.denoiser);
    let _ = ImageCodec::new(&root.at(CODEC), &config.codec, None);
    if let Some(text) = &config.text {
        let _ = TextEncoder::new(&root.at(TEXT), &text.tower);
        if text.null == NullText::Learned {
            let shape = [text.tower.context, text.tower.width];
            let _ = root.get(NULL_TEXT, &shape, Init::Normal(1.0));
        }
    }
    weights
}

/// Writes a model file with random weights, always the same.
pub fn write_model(path: &Path, config: &ModelConfig) {
    let weights = drawn(5, || weights(config));
    let mut state = StateDict::default();
    for (name, tensor) in weights.into_parameters().tensors {
        let entry = Entry::in_memory(name.as_str(), &tensor.detach()).expect("an f32 tensor");
        state.insert(name, entry);
    }
    native::write(path, config, &state, None).expect("a model file");
}

pub const CAPTIONS: [&str; 4] = ["a", "b", "c", "d"];

/// Four images of 16 tokens, each with its caption and label, repeated to `count` rows.
pub fn write_tokens(path: &Path, count: usize) {
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

pub fn image(i: usize) -> Vec<i64> {
    (0..16)
        .map(|l| ((3 * i + l * (i + 1)) % 12) as i64)
        .collect()
}

/// A folder with a model, tokens and an experiment over them.
pub struct Workplace {
    pub folder: TempDir,
}

impl Workplace {
    pub fn new(config: &ModelConfig, count: usize) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        write_model(&folder.path().join("start.safetensors"), config);
        write_tokens(&folder.path().join("tokens.safetensors"), count);
        let workplace = Workplace { folder };
        std::fs::write(workplace.path("experiment.yaml"), EXPERIMENT).expect("a file");
        workplace
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn command(&self, overrides: &[&str]) -> Command {
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

    pub fn run(&self, overrides: &[&str]) -> Output {
        self.command(overrides).output().expect("the binary starts")
    }

    pub fn succeed(&self, overrides: &[&str]) -> String {
        let output = self.run(overrides);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{overrides:?}: {message}");
        message
    }

    /// Expects exit code 2 and a message with all of `words`.
    pub fn refuse(&self, overrides: &[&str], words: &[&str]) {
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

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn assert_same(&self, a: &str, b: &str) {
        for file in ["model.safetensors", "state.safetensors"] {
            let (a, b) = (format!("{a}/{file}"), format!("{b}/{file}"));
            assert!(self.bytes(&a) == self.bytes(&b), "{a} and {b} differ");
        }
    }

    /// The value `key` in every line of the log of the run in `folder`.
    pub fn logged(&self, folder: &str, key: &str) -> Vec<f64> {
        let text = String::from_utf8(self.bytes(&format!("{folder}/log.jsonl"))).expect("text");
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON"));
        lines.filter_map(|line| line[key].as_f64()).collect()
    }
}

/// 10 samples and 4 a step: epochs end in the middle of steps.
pub const EXPERIMENT: &str = "\
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
pub fn wait_for(child: &mut Child, what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        let ended = child.try_wait().expect("a child");
        assert!(ended.is_none(), "ended before {what}: {ended:?}");
        assert!(start.elapsed() < Duration::from_secs(60), "no {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn signal(child: &Child, signal: libc::c_int) {
    // SAFETY: sends a signal to a process that is ours and not waited for yet.
    unsafe { libc::kill(child.id() as libc::pid_t, signal) };
}
