//! One process against two at equal global batch, one thread each:
//! `cargo bench --bench processes -- --steps 30`.
//!
//! Trains the bundled model on random tokens with the program itself and prints JSON: images a
//! second of one process, of two together, and the share of two processes' time that goes into
//! communication. That is what they take beyond two runs side by side that make the same
//! halves of a step and tell each other nothing. Then, of a stack of linear layers in two
//! threads: seconds of a pass whose gradients the Reducer averages as they come, and of one
//! whose gradients are summed after it.

use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use tch::{Device, Kind, Tensor};
use vqdiffusion::checkpoint::{Checkpoint, OpenOptions};
use vqdiffusion::ranks::Ranks;
use vqdiffusion::torch::c10d::Store;
use vqdiffusion::torch::foreach::forget_gradients;
use vqdiffusion::transformer::Conditioning;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/checkpoints/emoji.safetensors");

#[derive(Parser)]
struct Args {
    /// Timed steps; three before them warm up.
    #[arg(long, default_value_t = 30)]
    steps: u64,
    /// Samples a step.
    #[arg(long, default_value_t = 8)]
    batch: u64,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

const WARM_UP: u64 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// A run in `folder` of its own, with `batch` samples a step.
fn training(args: &Args, folder: &Path, name: &str, batch: u64, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vqdiffusion"));
    let steps = args.steps + WARM_UP;
    command
        .args(["train", "bench.yaml", "--device", "cpu", "--threads", "1"])
        .arg(format!("train.folder={name}"))
        .arg(format!("train.steps={steps}"))
        .arg(format!("train.batch_size={batch}"))
        .args(more)
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Seconds a step: the median of the timed ones, of which each is a line of the log.
fn seconds(folder: &Path, name: &str, batch: u64) -> Result<f64, Box<dyn Error>> {
    let log = std::fs::read_to_string(folder.join(name).join("log.jsonl"))?;
    let mut seconds = Vec::new();
    for line in log.lines().skip(WARM_UP as usize) {
        let line: serde_json::Value = serde_json::from_str(line)?;
        if let Some(rate) = line["images_per_second"].as_f64() {
            seconds.push(batch as f64 / rate);
        }
    }
    seconds.sort_by(f64::total_cmp);
    let middle = seconds.get(seconds.len() / 2).copied();
    middle.ok_or_else(|| format!("{name}: no line of its log is timed").into())
}

fn succeed(mut command: Command) -> Result<(), Box<dyn Error>> {
    match command.status()?.success() {
        true => Ok(()),
        false => Err(format!("{command:?} failed").into()),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    vqdiffusion::torch::runtime::start();
    let args = Args::parse();
    let model = Checkpoint::open(Path::new(MODEL), &OpenOptions::default())?.config;
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    let (rows, denoiser) = (64, &model.denoiser);
    let random =
        |codes: i64, width: i64| Tensor::randint(codes, [rows, width], (Kind::Int64, Device::Cpu));
    let tokens = random(denoiser.codes, denoiser.tokens());
    let mut tensors = vec![("tokens", tokens)];
    if let Conditioning::Text { positions, .. } = denoiser.condition {
        tensors.push(("text_ids", random(100, positions)));
    }
    Tensor::write_safetensors(&tensors, folder.join("tokens.safetensors"))?;
    let experiment = format!(
        "weights: {{init_from: {MODEL}}}\ndata: {{train: tokens.safetensors}}\ntrain: {{accumulation: 1, \
         log_every: 1, checkpoint: {{every: 1000000, keep: 1}}, validation: {{every: 0}}}}\n"
    );
    std::fs::write(folder.join("bench.yaml"), experiment)?;

    let (batch, half) = (args.batch, args.batch / 2);
    succeed(training(&args, folder, "one", batch, &[]))?;
    succeed(training(
        &args,
        folder,
        "two",
        batch,
        &["--nproc-per-node", "2"],
    ))?;
    let mut apart = training(&args, folder, "apart", half, &[]).spawn()?;
    succeed(training(&args, folder, "beside", half, &[]))?;
    apart.wait()?;

    let one = seconds(folder, "one", batch)?;
    let two = seconds(folder, "two", batch)?;
    let silent = seconds(folder, "apart", half)?.max(seconds(folder, "beside", half)?);
    tch::set_num_threads(1);
    let [overlapped, after] = overlap(args.steps as usize)?;
    println!(
        "{}",
        serde_json::json!({
            "what": "vqdiffusion, two training processes against one, one thread each",
            "batch": batch,
            "images_per_second": {"one": batch as f64 / one, "two": batch as f64 / two},
            "speedup": one / two,
            "share_of_communication": (1.0 - silent / two).max(0.0),
            "pass_seconds": {"overlapped": overlapped, "summed_after": after},
        })
    );
    Ok(())
}

/// Seconds of a training pass over two threads, one a member: with gradients averaged by the
/// Reducer as they come, and with one sum of all of them after the backward pass.
fn overlap(rounds: usize) -> Result<[f64; 2], Box<dyn Error>> {
    let (store, port) = Store::host(0, PATIENCE)?;
    let here = || Store::at("127.0.0.1", port, false, PATIENCE);
    let other = here()?;
    let member = std::thread::spawn(move || times(other, 1, rounds).map_err(|e| e.to_string()));
    let own = times(here()?, 0, rounds)?;
    member.join().map_err(|_| "a member failed")??;
    drop(store);
    Ok(own)
}

/// Both ways in turns, the medians.
fn times(store: Store, rank: usize, rounds: usize) -> Result<[f64; 2], Box<dyn Error>> {
    const WIDTH: i64 = 1024;
    let mut ranks = Ranks::meet(store, rank, 2)?;
    let device = (Kind::Float, Device::Cpu);
    let weights: Vec<Tensor> = (0..12)
        .map(|_| (Tensor::randn([WIDTH, WIDTH], device) / 32.0).set_requires_grad(true))
        .collect();
    let all: Vec<&Tensor> = weights.iter().collect();
    ranks.average_gradients(&all, false)?;
    let rows = Tensor::randn([256, WIDTH], device);
    let mut taken = [Vec::new(), Vec::new()];
    for round in 0..2 * (rounds + 2) {
        let overlapped = round % 2 == 0;
        ranks.wait_for_all()?;
        let since = Instant::now();
        ranks.before_part(overlapped)?;
        let out = all
            .iter()
            .fold(rows.shallow_clone(), |x, w| x.matmul(w).tanh());
        out.square().mean(Kind::Float).backward();
        if overlapped {
            ranks.after_step()?;
        } else {
            let gradients: Vec<Tensor> = all.iter().map(|w| w.grad().flatten(0, -1)).collect();
            let _mean = ranks.summed(&Tensor::cat(&gradients, 0))? / 2.0;
        }
        // Two of each warm up: the Reducer fills its buckets anew after the first.
        if round >= 4 {
            taken[usize::from(!overlapped)].push(since.elapsed().as_secs_f64());
        }
        forget_gradients(&weights);
    }
    Ok(taken.map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    }))
}
