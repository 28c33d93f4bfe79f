//! Time of one training step at a published model size, random weights and tokens:
//! `cargo bench --bench train_step -- --size s --threads 2`.
//!
//! Prints JSON: seconds per step, best and median. `scripts/bench/train_step.py` does
//! the same in PyTorch.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use tch::{Device, Kind, Tensor};
use vqdiffusion::checkpoint::config_file::ConfigFile;
use vqdiffusion::diffusion::forward::q_sample;
use vqdiffusion::diffusion::Objective;
use vqdiffusion::model::ModelConfig;
use vqdiffusion::torch::cuda::free_memory;
use vqdiffusion::torch::device::{DeviceChoice, Precision};
use vqdiffusion::torch::params::RandomWeights;
use vqdiffusion::torch::profile::{linear_rate, profiled};
use vqdiffusion::torch::Params;
use vqdiffusion::train::diffusion::model::hidden_matrices;
use vqdiffusion::train::diffusion::plan::DiffusionPlan;
use vqdiffusion::train::diffusion::step::{accumulate, Shown};
use vqdiffusion::train::engine::Share;
use vqdiffusion::train::{ConditionParts, RunState, TrainConfig, TrainableWeights, TrainingModel};
use vqdiffusion::transformer::Conditioning;

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
    #[arg(long, value_enum, default_value = "s")]
    size: Size,
    /// Timed steps, behind two that warm up.
    #[arg(long, default_value_t = 5)]
    steps: usize,
    #[arg(long, default_value_t = 2)]
    batch: i64,
    #[arg(long)]
    threads: Option<i32>,
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    #[arg(long, default_value = "f32")]
    dtype: Precision,
    /// Activation checkpointing.
    #[arg(long)]
    recompute: bool,
    /// Also say which operators the time of a step goes to.
    #[arg(long)]
    profile: bool,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

const GIB: f64 = (1u64 << 30) as f64;

fn main() -> Result<(), Box<dyn Error>> {
    vqdiffusion::torch::runtime::start();
    let args = Args::parse();
    if let Some(threads) = args.threads {
        tch::set_num_threads(threads);
    }
    let device = args.device.available()?;
    tch::manual_seed(0);
    let model_config = ModelConfig {
        text: None, // features are given
        ..args.size.model()?
    };
    let config = TrainConfig {
        batch_size: args.batch as usize,
        precision: args.dtype,
        activation_checkpointing: args.recompute,
        ..TrainConfig::default()
    };
    let free = || match device {
        Device::Cuda(index) => free_memory(index),
        _ => None,
    };
    let free_before = free();
    let parts = ConditionParts::new(&model_config, None, device);
    let weights = TrainableWeights::new(&RandomWeights, device);
    let params = Params::new(&weights, device, Kind::Float);
    let mut model = TrainingModel::new(&params, &parts, &model_config);
    let denoiser = &model_config.denoiser;
    let rules = config.rules();
    let mut state = RunState::new(&rules, weights.into_parameters(), hidden_matrices);
    let plan = DiffusionPlan {
        config: &config,
        model: &model_config,
        device,
        trained: state.parameters.numel(),
        frozen: 0,
        samples: None,
        data: String::new(),
        processes: 1,
        share: Share::of(&config.settings(), 1)?,
    };
    let planned = plan.state_bytes() + plan.batch_bytes();
    let schedule = model_config.schedule();
    let objective = Objective::new(&config.objective, &schedule, device);
    let Conditioning::Text { positions, width } = denoiser.condition else {
        return Err("the benchmark's models are text-conditioned".into());
    };
    let (batch, tokens) = (args.batch, denoiser.tokens());

    let mut make_step = || {
        if args.dtype != Precision::F32 {
            let params = Params::new(&state.parameters, device, args.dtype.kind());
            model = TrainingModel::new(&params, &parts, &model_config);
        }
        let x_0 = Tensor::randint(denoiser.codes, [batch, tokens], (Kind::Int64, Device::Cpu));
        let u = Tensor::rand([batch, tokens], (Kind::Double, Device::Cpu));
        let t: Vec<i64> = (0..batch)
            .map(|i| (37 * (i + 1)) % denoiser.timesteps)
            .collect();
        let shown = Shown {
            x_t: q_sample(&schedule, &x_0, &t, &u).to_device(device),
            x_0: x_0.to_device(device),
            t: Tensor::from_slice(&t).to_device(device),
            p_t: Tensor::full([batch], 0.01, (Kind::Float, device)),
            y: Tensor::randn([batch, positions, width], (Kind::Float, device)) * 0.04,
            dropout: None,
        };
        state.parameters.clear_gradients();
        let outcome = accumulate(&model, &objective, &shown, 1, args.recompute);
        let (loss, norm) = (outcome.loss.double_value(&[]), state.gradient_norm());
        state.update(&rules, loss, norm);
        if let Device::Cuda(index) = device {
            tch::Cuda::synchronize(index as i64);
        }
    };
    let mut seconds = Vec::new();
    for step in 0..args.steps + 2 {
        let began = Instant::now();
        make_step();
        if step >= 2 {
            seconds.push(began.elapsed().as_secs_f64());
        }
    }
    let profile = args.profile.then(|| {
        let began = Instant::now();
        let (_, operators) = profiled(&mut make_step);
        serde_json::json!({
            "seconds": began.elapsed().as_secs_f64(),
            "linear_gflops": linear_rate(args.dtype.kind(), 3),
            "operators": operators,
        })
    });
    // libtorch keeps what it took once, so this is the most.
    let taken = free_before.zip(free());
    let taken = taken.map(|(before, after)| before.saturating_sub(after));
    seconds.sort_by(f64::total_cmp);
    println!(
        "{}",
        serde_json::json!({
            "what": "vqdiffusion, seconds per training step",
            "size": format!("{:?}", args.size),
            "dtype": args.dtype.to_string(),
            "device": args.device.to_string(),
            "batch": batch,
            "threads": tch::get_num_threads(),
            "best": seconds[0],
            "median": seconds[seconds.len() / 2],
            "gflop": 3.0 * denoiser.flops() * batch as f64 / 1e9,
            "memory_gib": {
                "planned": planned / GIB,
                "taken": taken.map(|bytes| bytes as f64 / GIB),
            },
            "profile": profile,
        })
    );
    Ok(())
}
