//! Time of one guided reverse step at a published model size, random weights:
//! `cargo bench --bench step -- --size b --threads 2`.
//!
//! Prints JSON: seconds per step, best and median of the repeats, split into the
//! network, the rest of the step (guidance, truncation, draw), and one decode; the network's
//! work in a step, were it evaluated everywhere, and a hash of the tokens at the end. With
//! `--whole` a whole run is timed, and its seconds are those of a picture's tokens
//! (`scripts/bench/picture.py` has the table of such runs).

use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use tch::{Device, Kind, Tensor};
use vqdiffusion::checkpoint::config_file::ConfigFile;
use vqdiffusion::codec::ImageCodec;
use vqdiffusion::diffusion::guidance::Prediction;
use vqdiffusion::diffusion::sampler::fixed::{self, FixedSteps};
use vqdiffusion::diffusion::sampler::{sample, start, Progress, Query, Reuse, Start};
use vqdiffusion::diffusion::truncation::Truncation;
use vqdiffusion::diffusion::{HostNoise, RevealOrder, ReverseRule, SamplerConfig, Times};
use vqdiffusion::model::ModelConfig;
use vqdiffusion::torch::device::{DeviceChoice, Precision};
use vqdiffusion::torch::graph::Recorder;
use vqdiffusion::torch::host::values;
use vqdiffusion::torch::params::RandomWeights;
use vqdiffusion::torch::profile::{linear_rate, profiled};
use vqdiffusion::torch::Params;
use vqdiffusion::transformer::{Conditioning, Denoiser, KeptKeys};

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Size {
    /// 19 blocks of width 1024 (COCO, CUB-200, Conceptual Captions).
    B,
    /// 18 blocks of width 192.
    S,
}

impl Size {
    /// The model of this size (`configs/text_b.yaml`, `configs/text_s_dense.yaml`).
    fn model(self) -> Result<ModelConfig, Box<dyn Error>> {
        let name = match self {
            Size::B => "text_b.yaml",
            Size::S => "text_s_dense.yaml",
        };
        let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        match ConfigFile::read(&configs.join(name))? {
            ConfigFile::Own { model, .. } => Ok(*model),
            ConfigFile::Official(_) => Err("a configuration of the original".into()),
        }
    }
}

#[derive(Parser)]
struct Args {
    #[arg(long, value_enum, default_value = "b")]
    size: Size,
    /// Reverse steps to time.
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// Steps of the run that they are of [default: all that the model has].
    #[arg(long)]
    of: Option<usize>,
    /// Time the whole run.
    #[arg(long, conflicts_with = "steps")]
    whole: bool,
    /// Few tokens first and many at the end.
    #[arg(long)]
    cosine: bool,
    /// Guidance only from this visible share …
    #[arg(long, default_value_t = 0.0)]
    guidance_from: f64,
    /// … to this one.
    #[arg(long, default_value_t = 1.0)]
    guidance_to: f64,
    #[arg(long, default_value_t = 0)]
    local_steps: usize,
    #[arg(long, default_value_t = 1)]
    batch: i64,
    /// Guidance scale; 1 is none.
    #[arg(long, default_value_t = 5.0)]
    guidance: f64,
    #[arg(long, default_value_t = 0.86)]
    truncation: f64,
    #[arg(long)]
    threads: Option<i32>,
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    #[arg(long, default_value = "f32")]
    dtype: Precision,
    /// Make the steps at fixed places in memory; on a GPU they are recorded as CUDA graphs.
    #[arg(long, conflicts_with = "local_steps")]
    cuda_graph: bool,
    /// Also say which operators the time of the steps goes to.
    #[arg(long, conflicts_with = "cuda_graph")]
    profile: bool,
    /// Also time the decoding of one batch by the f8 codec.
    #[arg(long)]
    decode: bool,
    /// Number format of that.
    #[arg(long, default_value = "f32")]
    decode_dtype: Precision,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    vqdiffusion::torch::runtime::start();
    let args = Args::parse();
    if let Some(threads) = args.threads {
        tch::set_num_threads(threads);
    }
    let device = args.device.available()?;
    let _no_grad = tch::no_grad_guard();
    tch::manual_seed(0);
    let model = args.size.model()?;
    let config = &model.denoiser;
    let params = Params::new(&RandomWeights, device, args.dtype.kind());
    let mut denoiser = Denoiser::new(&params, config);
    denoiser.prepare();
    let Conditioning::Text { positions, width } = config.condition else {
        return Err("the benchmark's models are text-conditioned".into());
    };
    let guided = (args.guidance - 1.0).abs() >= 1e-3;
    let branches = if guided { 2 } else { 1 };
    let text = [branches * args.batch, positions, width];
    let text = Tensor::randn(text, (Kind::Float, device));
    let text = &text / text.norm_scalaropt_dim(2.0, [-1], true);
    let condition = denoiser.condition(&text.to_kind(args.dtype.kind()));

    let schedule = model.schedule();
    let options = SamplerConfig {
        steps: args.of.unwrap_or(config.timesteps as usize),
        times: match args.cosine {
            true => Times::Cosine,
            false => Times::Even,
        },
        order: RevealOrder::Independent,
        guidance: args.guidance,
        guidance_span: Some([args.guidance_from, args.guidance_to]),
        local_steps: args.local_steps,
        truncation: Truncation::TopP(args.truncation),
        revealing: None,
        rule: ReverseRule::Exact,
    };
    let plan = options.plan(&schedule, config.grid)?;
    let seeds: Vec<u64> = (0..args.batch as u64).collect();
    let mut noise = HostNoise::new(&seeds);
    let start = start(&plan, args.batch, &mut noise).to_device(device);
    let mut fixed = match (args.cuda_graph, device) {
        (false, _) => None,
        (true, Device::Cpu) => Some(FixedSteps::new(None)),
        (true, _) => Some(FixedSteps::new(Some(Rc::new(Recorder::new(device)?)))),
    };
    let is_fixed = fixed.is_some();

    // A run stops after the wanted number; the first step warms up.
    let (wanted, skipped) = match args.whole {
        true => (plan.steps().len(), 0),
        false => (args.steps + 1, 1),
    };
    let batch = args.batch;
    let plain = condition.first(batch);
    let mut run = |wanted: usize| {
        let (mut network, mut steps) = (Vec::new(), Vec::new());
        let mut state = Vec::new();
        let mut kept = KeptKeys::default();
        let start = Start::from(start.copy());
        let mut noise = HostNoise::new(&seeds);
        let mut last = Instant::now();
        let mut denoise = |query: Query| {
            let began = Instant::now();
            let condition = if query.null { &condition } else { &plain };
            let Query {
                x_t, t, positions, ..
            } = query;
            let logits = match (query.reuse, positions) {
                (Reuse::Kept { group, first }, Some(positions)) => {
                    let wanted = first..first + positions.size()[1];
                    denoiser.forward_local(x_t, t, condition, group, wanted, &mut kept)
                }
                (Reuse::Keep, _) => {
                    let (logits, keys) = denoiser.forward_keeping(x_t, t, condition, positions);
                    kept = keys;
                    logits
                }
                _ => denoiser.forward(x_t, t, condition, positions),
            };
            if !is_fixed {
                synchronize(device);
            }
            network.push(began.elapsed().as_secs_f64());
            Prediction {
                conditional: logits.narrow(0, 0, batch),
                unconditional: query.null.then(|| logits.narrow(0, batch, batch)),
            }
        };
        let mut observe = |progress: Progress| {
            synchronize(device);
            steps.push(last.elapsed().as_secs_f64());
            last = Instant::now();
            if progress.done < wanted {
                return ControlFlow::Continue(());
            }
            state = values::<i64>(progress.tokens);
            ControlFlow::Break(())
        };
        let _ = match &mut fixed {
            Some(steps) => {
                fixed::sample(&plan, steps, start, &mut denoise, &mut noise, &mut observe)
            }
            None => sample(&plan, start, &mut denoise, &mut noise, &mut observe),
        };
        (network, steps, state)
    };
    // The first run warms up, and records.
    run(if is_fixed { wanted } else { 1 });
    let (network, steps, state) = run(wanted);
    let steps = &steps[skipped..];
    // What a graph does inside is not seen.
    let network = match is_fixed {
        true => steps,
        false => &network[skipped..],
    };
    let rest: Vec<f64> = steps.iter().zip(network).map(|(s, n)| s - n).collect();
    let mut hash = DefaultHasher::new();
    state.hash(&mut hash);

    let mut report = serde_json::json!({
        "what": "vqdiffusion, seconds per guided reverse step",
        "size": format!("{:?}", args.size),
        "dtype": args.dtype.to_string(),
        "device": args.device.to_string(),
        "threads": tch::get_num_threads(),
        "batch": args.batch,
        "guidance": args.guidance,
        "truncation_rate": args.truncation,
        "cuda_graph": args.cuda_graph,
        "gflop": config.flops() * (branches * batch) as f64 / 1e9,
        "tokens": format!("{:016x}", hash.finish()),
        "steps_timed": steps.len(),
        "min": {"step": min(steps), "network": min(network), "sampling": min(&rest)},
        "median": {"step": median(steps), "network": median(network), "sampling": median(&rest)},
    });
    if args.whole {
        let calls = plan.calls();
        report["picture"] = serde_json::json!({
            "steps": plan.steps().len(),
            "times": options.times,
            "guidance_span": options.guidance_span,
            "local_steps": options.local_steps,
            "network_calls": calls.full,
            "local_calls": calls.local,
            "seconds": steps.iter().sum::<f64>() / batch as f64,
            "network_seconds": network.iter().sum::<f64>() / batch as f64,
        });
    }
    if args.profile {
        let began = Instant::now();
        let (_, operators) = profiled(|| run(wanted - skipped));
        report["profile"] = serde_json::json!({
            "seconds": began.elapsed().as_secs_f64(),
            "linear_gflops": linear_rate(args.dtype.kind(), 3),
            "operators": operators,
        });
    }
    if args.decode {
        let params = Params::new(&RandomWeights, device, Kind::Float);
        let codec = ImageCodec::new(&params, &model.codec, None);
        let tokens = Tensor::randint(
            model.codec.codebook,
            [args.batch, config.tokens()],
            (Kind::Int64, device),
        );
        let times: Vec<f64> = (0..4)
            .map(|_| {
                let began = Instant::now();
                let _ = codec.decode_in(&tokens, config.grid, args.decode_dtype);
                synchronize(device);
                began.elapsed().as_secs_f64()
            })
            .collect();
        report["decode"] =
            serde_json::json!({"min": min(&times[1..]), "median": median(&times[1..])});
    }
    println!("{report}");
    Ok(())
}

fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

fn min(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
