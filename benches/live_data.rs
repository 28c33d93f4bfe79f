//! Training from a token cache against training straight from the pictures, with one
//! experiment through the program's own commands:
//! `cargo bench --bench live_data -- configs/emoji.yaml data.train=data/emoji/train --threads 1`.
//!
//! Prints JSON: images per second of making the cache and of training both ways.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use clap::Parser;
use vqdiffusion::experiment::Experiment;

#[derive(Parser)]
struct Args {
    /// The experiment; its `data.train` is a data set of pictures.
    config: PathBuf,
    /// Settings that replace the file's.
    overrides: Vec<String>,
    /// Timed steps of each run, behind as many that warm up.
    #[arg(long, default_value_t = 10)]
    steps: u64,
    /// The two ways take turns; the best run of each counts.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    #[arg(long, default_value_t = 1)]
    threads: u16,
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let experiment = Experiment::read(&args.config, &args.overrides)?;
    let weights = &experiment.weights;
    let codec = weights.codec.as_ref().or(weights.init_from.as_ref());
    let codec = codec.ok_or("weights.codec is missing: the codec of the cache")?;
    let folder = tempfile::tempdir()?;
    let cache = folder.path().join("tokens");

    let began = Instant::now();
    let mut tokenize = args.program("tokenize");
    tokenize.arg(&experiment.data.train);
    tokenize.arg("--checkpoint").arg(codec);
    tokenize.arg("--out").arg(&cache);
    run(&mut tokenize)?;
    let seconds = began.elapsed().as_secs_f64();
    let pictures = vqdiffusion::data::TokenCache::open(&cache)?.items().len();

    let [mut from_cache, mut from_pictures] = [0f64; 2];
    for round in 0..args.rounds {
        let run_folder = |way: &str| folder.path().join(format!("{way}-{round}"));
        let speed = args.train(&cache, &run_folder("cache"))?;
        from_cache = from_cache.max(speed);
        let speed = args.train(&experiment.data.train, &run_folder("pictures"))?;
        from_pictures = from_pictures.max(speed);
    }
    println!(
        "{}",
        serde_json::json!({
            "what": "training, images per second",
            "batch": experiment.train.batch_size * experiment.train.accumulation,
            "threads": args.threads,
            "pictures": pictures,
            "tokenize": pictures as f64 / seconds,
            "from_cache": from_cache,
            "from_pictures": from_pictures,
            "ratio": from_cache / from_pictures,
        })
    );
    Ok(())
}

impl Args {
    fn program(&self, command: &str) -> Command {
        let threads = self.threads.to_string();
        let mut program = Command::new(env!("CARGO_BIN_EXE_vqdiffusion"));
        program
            .args([command, "--threads", &threads, "--device", &self.device])
            // Those that decode pictures too.
            .env("RAYON_NUM_THREADS", &threads);
        program
    }

    /// Trains on `data` and gives the images per second of the second half of the run.
    fn train(&self, data: &Path, folder: &Path) -> Result<f64, Box<dyn Error>> {
        let steps = 2 * self.steps;
        run(self
            .program("train")
            .arg(&self.config)
            .args(&self.overrides)
            .args([
                format!("data.train={}", data.display()),
                format!("train.folder={}", folder.display()),
                format!("train.steps={steps}"),
                format!("train.log_every={}", self.steps),
                format!("train.checkpoint.every={steps}"),
                "train.validation.every=0".into(),
                "train.preview.every=0".into(),
            ]))?;
        let log = std::fs::read_to_string(folder.join("log.jsonl"))?;
        let last = log.lines().last().ok_or("an empty log")?;
        let line: serde_json::Value = serde_json::from_str(last)?;
        let speed = line["images_per_second"].as_f64();
        Ok(speed.ok_or("no images_per_second in the log")?)
    }
}

fn run(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let output = command.stdout(Stdio::null()).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into()),
    }
}
