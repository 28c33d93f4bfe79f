//! `vqdiffusion sample`: text to PNG files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::model_source::ModelSource;
use super::progress::Progress;
use super::CliResult;
use crate::codec::image_codec::to_bytes;
use crate::codec::Rounding;
use crate::diffusion::purity::Revealing;
use crate::diffusion::truncation::Truncation;
use crate::diffusion::{ReverseRule, SamplerConfig};
use crate::model::{ModelConfig, NullText};
use crate::picture::{grid, read_png_texts, write_gif, write_png, Picture};
use crate::pipeline::{Pipeline, Request};
use crate::torch::device::{use_deterministic_operators, DeviceChoice, Precision};

const EXAMPLES: &str = "\
Examples:
  vqdiffusion sample --checkpoint model.safetensors \"a teddy bear playing in the pool\"
  vqdiffusion sample --checkpoint coco_learnable.pth_aa --mapping taming_vqvae_2887.pt \\
      --prompts prompts.txt --count 4 --steps 50 --guidance 5 --out pictures --grid
  vqdiffusion sample --checkpoint model.safetensors --from-image pictures/0-a-teddy-bear.png";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("what").required(true).multiple(true)
    .args(["prompt", "prompts", "from_image"]))]
pub struct SampleArgs {
    /// What the pictures should show; several prompts make several pictures.
    #[arg(value_name = "PROMPT")]
    prompt: Vec<String>,

    /// File with one prompt a line; empty lines are skipped.
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,

    /// Repeat the picture in this PNG: its prompt, seed and sampler options.
    #[arg(long, value_name = "PNG", conflicts_with_all = ["prompt", "prompts", "count", "seed",
        "steps", "guidance", "truncation", "top_k", "purity", "tokens_per_step", "compat", "dtype"])]
    from_image: Option<PathBuf>,

    /// Model file: an official .pth (whole or split) or our .safetensors.
    #[arg(long, value_name = "PATH")]
    checkpoint: PathBuf,

    #[command(flatten)]
    model: ModelSource,

    /// Pictures per prompt.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,

    /// Pictures made and decoded together; on a GPU it bounds the memory, on the CPU
    /// a picture does not depend on it.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,

    /// Seed of the first picture; picture i has seed + i.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Reverse steps, 1 to the model's diffusion steps [default: all of them].
    #[arg(long)]
    steps: Option<usize>,

    /// Guidance scale; 1 is none [default: 5 for models with a learned null text, else 1].
    #[arg(long)]
    guidance: Option<f64>,

    /// Keep the likeliest codes up to this share of the probability, in (0, 1];
    /// 1 keeps all [default: 1 with a learned null text, else 0.86].
    #[arg(long, value_name = "RATE", conflicts_with = "top_k")]
    truncation: Option<f64>,

    /// Keep this many likeliest codes.
    #[arg(long, value_name = "K")]
    top_k: Option<i64>,

    /// Reveal a fixed number of tokens a step, the purest predictions first, and
    /// sharpen predictions by this weight (0 or more).
    #[arg(long, value_name = "WEIGHT")]
    purity: Option<f64>,

    /// Reveal at most this many tokens per evaluation of the network (high-quality
    /// inference: fewer tokens, more evaluations).
    #[arg(long, value_name = "N")]
    tokens_per_step: Option<usize>,

    /// Follow the rules of an original implementation.
    #[arg(long, value_enum)]
    compat: Option<Compat>,

    /// cpu, cuda or cuda:N [default: cuda if there is one].
    #[arg(long)]
    device: Option<DeviceChoice>,

    /// Number format of the network [default: bf16 where the device computes in it natively, else f32].
    #[arg(long, value_enum)]
    dtype: Option<Precision>,

    /// Threads for CPU work [default: libtorch's choice].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,

    /// Give the same bytes in every run on the same GPU with the same batch size;
    /// somewhat slower. On the CPU it is always so.
    #[arg(long)]
    deterministic: bool,

    /// Folder for the pictures; made if missing.
    #[arg(long, value_name = "DIR", default_value = "outputs")]
    out: PathBuf,

    /// Replace pictures of the same name.
    #[arg(long)]
    overwrite: bool,

    /// Also write all pictures as one grid.png, a row per prompt.
    #[arg(long)]
    grid: bool,

    /// Also write a GIF of each picture's denoising, masked tokens in grey.
    #[arg(long)]
    animate: bool,
}

/// Whose rules to follow; only a name for option values.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Compat {
    /// The official code: its reverse rule, and 8-bit values cut off instead of rounded.
    Official,
    /// diffusers' VQDiffusionPipeline.
    Diffusers,
}

/// Everything in a PNG that repeats it, besides prompt, seed and model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    sampler: SamplerConfig,
    rounding: Rounding,
    dtype: Precision,
}

/// Keywords of the PNG's text chunks.
mod chunk {
    pub const PROMPT: &str = "prompt";
    pub const SEED: &str = "seed";
    pub const OPTIONS: &str = "vqdiffusion";
    pub const MODEL: &str = "model-sha256";
}

/// What will be done, with every choice made.
struct Plan {
    requests: Vec<Request>,
    options: Options,
    /// The weights that a repeated picture was made with.
    wanted_model: Option<String>,
}

pub fn run(args: &SampleArgs) -> CliResult {
    if let Some(threads) = args.threads {
        tch::set_num_threads(threads.into());
    }
    if args.deterministic {
        use_deterministic_operators();
    }
    let device = args.device.unwrap_or_else(DeviceChoice::best).available()?;
    let checkpoint = args.model.open(&args.checkpoint)?;
    let plan = match &args.from_image {
        Some(png) => repeated(png)?,
        None => planned(args, &checkpoint.config, device)?,
    };
    // Cheap refusals first: the options, then the folder, then the weights.
    crate::diffusion::Sampler::new(
        &plan.options.sampler,
        &checkpoint.config.schedule(),
        checkpoint.config.denoiser.tokens(),
    )?;
    let names: Vec<PathBuf> = plan
        .requests
        .iter()
        .map(|r| args.out.join(file_name(r)))
        .collect();
    prepare_folder(args, &names)?;

    let pipeline = Pipeline::load(&checkpoint, device, plan.options.dtype)?;
    log::info!("{}", pipeline.report());
    if let (Some(wanted), Some(png)) = (&plan.wanted_model, &args.from_image) {
        if wanted != pipeline.fingerprint() {
            return Err(format!(
                "{}: made with a model of SHA-256 {wanted}, but {} has {}",
                png.display(),
                args.checkpoint.display(),
                pipeline.fingerprint()
            )
            .into());
        }
    }
    make_pictures(args, &plan, &pipeline, &names)
}

fn planned(
    args: &SampleArgs,
    model: &ModelConfig,
    device: tch::Device,
) -> Result<Plan, Box<dyn std::error::Error>> {
    let mut prompts = args.prompt.clone();
    if let Some(file) = &args.prompts {
        let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        prompts.extend(
            text.lines()
                .filter(|l| !l.trim().is_empty())
                .map(String::from),
        );
        if prompts.is_empty() {
            return Err(format!("{}: holds no prompt", file.display()).into());
        }
    }
    let pictures = prompts.len() as u64 * u64::from(args.count);
    if args.seed.checked_add(pictures).is_none() {
        return Err(format!(
            "seed is {}, which leaves no room for {pictures} pictures below 2^64",
            args.seed
        )
        .into());
    }
    let requests = prompts
        .iter()
        .flat_map(|prompt| std::iter::repeat_n(prompt, args.count as usize))
        .enumerate()
        .map(|(i, prompt)| Request {
            prompt: prompt.clone(),
            seed: args.seed + i as u64,
        })
        .collect();
    Ok(Plan {
        requests,
        options: options(args, model, device),
        wanted_model: None,
    })
}

fn options(args: &SampleArgs, model: &ModelConfig, device: tch::Device) -> Options {
    let learned = model.null_text == NullText::Learned;
    let (rule, rounding, guidance, rate) = match args.compat {
        None | Some(Compat::Official) => {
            let (guidance, rate) = if learned { (5.0, 1.0) } else { (1.0, 0.86) };
            match args.compat {
                None => (ReverseRule::Exact, Rounding::Nearest, guidance, rate),
                _ => (ReverseRule::Official, Rounding::Truncate, guidance, rate),
            }
        }
        Some(Compat::Diffusers) => (ReverseRule::Diffusers, Rounding::Nearest, 5.0, 1.0),
    };
    let truncation = match (args.top_k, args.truncation.unwrap_or(rate)) {
        (Some(k), _) => Truncation::TopK(k),
        // The official top1.0r drops codes by rounding alone; it is kept as it is.
        (None, 1.0) if rule != ReverseRule::Official => Truncation::Off,
        (None, rate) => Truncation::TopP(rate),
    };
    let revealing = (args.purity.is_some() || args.tokens_per_step.is_some()).then(|| Revealing {
        purity: args.purity,
        tokens_per_evaluation: args.tokens_per_step.unwrap_or(usize::MAX),
    });
    Options {
        sampler: SamplerConfig {
            steps: args.steps.unwrap_or(model.denoiser.timesteps as usize),
            guidance: args.guidance.unwrap_or(guidance),
            truncation,
            revealing,
            rule,
        },
        rounding,
        dtype: args.dtype.unwrap_or_else(|| Precision::native(device)),
    }
}

/// The plan that made the picture in `png`.
fn repeated(png: &Path) -> Result<Plan, Box<dyn std::error::Error>> {
    let texts = read_png_texts(png)?;
    let text = |keyword: &str| {
        texts
            .iter()
            .find(|(k, _)| k == keyword)
            .map(|(_, value)| value.clone())
            .ok_or_else(|| {
                format!(
                    "{}: has no text chunk '{keyword}', so it was not made by this program",
                    png.display()
                )
            })
    };
    let seed = text(chunk::SEED)?;
    let seed = seed
        .parse()
        .map_err(|e| format!("{}: text chunk 'seed' is {seed:?}: {e}", png.display()))?;
    let options = serde_json::from_str(&text(chunk::OPTIONS)?)
        .map_err(|e| format!("{}: text chunk '{}': {e}", png.display(), chunk::OPTIONS))?;
    Ok(Plan {
        requests: vec![Request {
            prompt: text(chunk::PROMPT)?,
            seed,
        }],
        options,
        wanted_model: Some(text(chunk::MODEL)?),
    })
}

/// Makes the folder; refuses to replace pictures unless asked to.
fn prepare_folder(args: &SampleArgs, names: &[PathBuf]) -> Result<(), String> {
    std::fs::create_dir_all(&args.out).map_err(|e| format!("{}: {e}", args.out.display()))?;
    if args.overwrite {
        return Ok(());
    }
    let grid = args.out.join("grid.png");
    let extra = args.grid.then_some(&grid);
    match names.iter().chain(extra).find(|name| name.exists()) {
        None => Ok(()),
        Some(name) => Err(format!(
            "{}: exists already; give another --out or --seed, or --overwrite",
            name.display()
        )),
    }
}

/// `SEED-WORDS-OF-THE-PROMPT.png`
fn file_name(request: &Request) -> String {
    let words: String = request
        .prompt
        .chars()
        .map(|c| {
            if c.is_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                ' '
            }
        })
        .collect();
    let mut slug = words.split_whitespace().collect::<Vec<_>>().join("-");
    if let Some((end, _)) = slug.char_indices().nth(40) {
        slug.truncate(end);
    }
    format!("{}-{}.png", request.seed, slug.trim_end_matches('-'))
}

fn make_pictures(
    args: &SampleArgs,
    plan: &Plan,
    pipeline: &Pipeline,
    names: &[PathBuf],
) -> CliResult {
    let sampler = pipeline.sampler(&plan.options.sampler)?;
    let options = serde_json::to_string(&plan.options)?;
    let batch = args.batch_size as usize;
    let groups = match pipeline.device() {
        tch::Device::Cpu => plan.requests.len(),
        _ => plan.requests.len().div_ceil(batch),
    };
    let mut progress = Progress::new(
        (groups * plan.options.sampler.steps) as u64,
        "sampling",
        false,
    );
    let mut pictures = Vec::new();
    for (requests, names) in plan.requests.chunks(batch).zip(names.chunks(batch)) {
        let mut film = Film::new(args.animate, requests.len(), plan.options.sampler.steps);
        let tokens = pipeline.sample_tokens(&sampler, requests, &mut |first, step| {
            film.record(first, &step);
            progress.step("sampling");
        })?;
        let decoded = to_bytes(&pipeline.decode(&tokens), plan.options.rounding);
        for (i, (request, name)) in requests.iter().zip(names).enumerate() {
            let picture = Picture::from_tensor(&decoded.get(i as i64));
            let texts = [
                (chunk::PROMPT, request.prompt.clone()),
                (chunk::SEED, request.seed.to_string()),
                (chunk::OPTIONS, options.clone()),
                (chunk::MODEL, pipeline.fingerprint().to_string()),
            ];
            write_png(name, &picture, &texts)?;
            if args.animate {
                let frames = film.frames(i, pipeline, plan.options.rounding);
                write_gif(
                    &name.with_extension("gif"),
                    &frames,
                    Duration::from_millis(120),
                )?;
            }
            announce(name);
            pictures.push(picture);
        }
    }
    progress.finish();
    if args.grid {
        let columns = match args.count {
            1 => (pictures.len() as f64).sqrt().ceil() as usize,
            count => count as usize,
        };
        if let Some(sheet) = grid(&pictures, columns, 2) {
            let path = args.out.join("grid.png");
            write_png(&path, &sheet, &[])?;
            announce(&path);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a file's name. A reader that went away does not stop the work.
fn announce(path: &Path) {
    let _ = writeln!(std::io::stdout(), "{}", path.display());
}

/// The token states of a batch that an animation shows.
struct Film {
    /// States of each picture, oldest first.
    tokens: Vec<Vec<tch::Tensor>>,
    every: Option<usize>,
}

impl Film {
    const FRAMES: usize = 32;

    fn new(wanted: bool, pictures: usize, steps: usize) -> Self {
        Film {
            tokens: (0..pictures).map(|_| Vec::new()).collect(),
            every: wanted.then(|| steps.div_ceil(Self::FRAMES)),
        }
    }

    fn record(&mut self, first: usize, step: &crate::diffusion::sampler::Progress) {
        let Some(every) = self.every else { return };
        if step.done.is_multiple_of(every) || step.done == step.steps {
            for (i, tokens) in step.tokens.split(1, 0).iter().enumerate() {
                self.tokens[first + i].push(tokens.copy());
            }
        }
    }

    fn frames(&self, picture: usize, pipeline: &Pipeline, rounding: Rounding) -> Vec<Picture> {
        self.tokens[picture]
            .iter()
            .map(|tokens| {
                let decoded = pipeline.decode_partial(tokens);
                Picture::from_tensor(&to_bytes(&decoded, rounding).get(0))
            })
            .collect()
    }
}
