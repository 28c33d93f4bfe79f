//! `vqdiffusion sample`: text, classes or nothing to PNG files.

mod edit_args;
mod film;
mod pictures;
mod plan;
mod subject;
mod trace;

use std::path::PathBuf;

use clap::Args;

use self::edit_args::EditArgs;
use self::pictures::{make_pictures, Outputs};
use self::plan::{planned, repeated, SamplePlan};
use super::arguments::whole;
use super::compute::ComputeArgs;
use super::model_source::ModelSource;
use super::out_folder;
use super::sampler_args::SamplerArgs;
use super::CliResult;
use crate::pipeline::Pipeline;
use crate::torch::device::use_deterministic_operators;

const EXAMPLES: &str = "\
Examples:
  vqdiffusion sample --checkpoint model.safetensors \"a teddy bear playing in the pool\"
  vqdiffusion sample --checkpoint coco_learnable.pth_aa --mapping taming_vqvae_2887.pt \\
      --prompts prompts.txt --count 4 --steps 50 --guidance 5 --out pictures --grid
  vqdiffusion sample --checkpoint imagenet_learnable.pth --class 207,hen --count 4
  vqdiffusion sample --checkpoint model.safetensors --from-image pictures/0-a-teddy-bear.png
  vqdiffusion sample --checkpoint model.safetensors --init-image room.jpg --mask sofa.png \\
      \"a red sofa\"";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct SampleArgs {
    /// What the pictures should show; several prompts make several pictures.
    #[arg(value_name = "PROMPT")]
    prompt: Vec<String>,

    /// File with one prompt a line; empty lines are skipped.
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,

    /// Classes of a class-conditional model, by index or ImageNet name; several make
    /// several pictures: 207,8 or "golden retriever".
    #[arg(long, value_name = "CLASS", value_delimiter = ',', conflicts_with_all = ["prompt", "prompts"])]
    class: Vec<String>,

    /// Repeat the picture in this PNG: its prompt or class, seed and sampler options.
    #[arg(long, value_name = "PNG", conflicts_with_all = ["prompt", "prompts", "class", "count", "seed",
        "steps", "times", "guidance", "guidance_span", "truncation", "top_k", "purity", "tokens_per_step", "compat", "dtype",
        "strength", "outpaint", "negative_prompt"])]
    from_image: Option<PathBuf>,

    /// Model: an official .pth (whole or split), our .safetensors, a diffusers folder, or
    /// its name on the Hugging Face Hub.
    #[arg(long, value_name = "PATH")]
    checkpoint: PathBuf,

    #[command(flatten)]
    model: ModelSource,

    /// Pictures per prompt or class, or of an unconditional model.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,

    /// Pictures made and decoded together; on a GPU it bounds the memory, on the CPU
    /// a picture does not depend on it.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,

    /// Seed of the first picture; picture i has seed + i.
    #[arg(long, default_value_t = 0, value_parser = whole::<u64>(0..=u64::MAX))]
    seed: u64,

    #[command(flatten)]
    sampler: SamplerArgs,

    #[command(flatten)]
    compute: ComputeArgs,

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

    /// Also write all pictures as one grid.png with the prompts or classes below them: a
    /// row each, or side by side if there is but one picture of each. Pictures below 128
    /// pixels are enlarged there.
    #[arg(long)]
    grid: bool,

    /// Also write a GIF of each picture's denoising, masked tokens in grey.
    #[arg(long)]
    animate: bool,

    /// Also write what each run looked like from inside to DIR/NAME-OF-THE-PICTURE: the
    /// tokens, their entropy and which changed at every step, where the image looked
    /// for each word, all as pictures and in trace.json. Asks the network again.
    #[arg(long, value_name = "DIR")]
    trace: Option<PathBuf>,

    #[command(flatten)]
    edit: EditArgs,
}

pub fn run(args: &SampleArgs) -> CliResult {
    if args.deterministic {
        use_deterministic_operators();
    }
    let device = args.compute.set_up()?;
    let checkpoint = args.model.open(&args.checkpoint)?;
    args.compute.limit_threads(&checkpoint.config);
    let plan = match &args.from_image {
        Some(png) => repeated(png, &args.edit)?,
        None => planned(args, &checkpoint.config, device)?,
    };
    // Cheap refusals first: the options, then the folder, then the weights.
    plan.check(&checkpoint.config)?;
    let outputs = args.outputs(&plan);
    out_folder::prepare(&args.out, &outputs.files(), args.overwrite)?;
    if let Some(trace) = &args.trace {
        out_folder::prepare(trace, &[], args.overwrite)?;
    }

    let pipeline = Pipeline::load(&checkpoint, device, plan.dtype)?;
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
    make_pictures(&plan, &outputs, &pipeline)
}

impl SampleArgs {
    fn outputs(&self, plan: &SamplePlan) -> Outputs {
        let names = plan.requests.iter();
        Outputs {
            overwrite: self.overwrite,
            names: names.map(|r| self.out.join(r.file_name())).collect(),
            animate: self.animate,
            trace: self.trace.clone(),
            grid: self.grid.then(|| self.out.join("grid.png")),
        }
    }
}
