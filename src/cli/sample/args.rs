//! The arguments of `vqdiffusion sample`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::edit_args::EditArgs;
use crate::cli::arguments::whole;
use crate::cli::compute::ComputeArgs;
use crate::cli::launch::LaunchArgs;
use crate::cli::model_source::ModelSource;
use crate::cli::sampler_args::SamplerArgs;
use crate::cli::selection_args::SelectionArgs;

const EXAMPLES: &str = "\
Examples:
  vqdiffusion sample --checkpoint model.safetensors \"a teddy bear playing in the pool\"
  vqdiffusion sample --checkpoint coco_learnable.pth_aa --mapping taming_vqvae_2887.pt \\
      --prompts prompts.txt --count 4 --steps 50 --guidance 5 --out pictures --grid
  vqdiffusion sample --checkpoint imagenet_learnable.pth --class 207,hen --count 4
  vqdiffusion sample --checkpoint model.safetensors --from-image pictures/0-a-teddy-bear.png
  vqdiffusion sample --checkpoint model.safetensors --init-image room.jpg --mask sofa.png \\
      \"a red sofa\"";

/// Folders of other programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// NNNNN/metadata.jsonl and NNNNN/samples/NNNNN.png for each prompt.
    Geneval,
}

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct SampleArgs {
    /// What the pictures should show; several prompts make several pictures.
    #[arg(value_name = "PROMPT")]
    pub prompt: Vec<String>,

    /// File with one prompt a line; empty lines are skipped.
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,

    /// Classes of a class-conditional model, by index or ImageNet name; several make
    /// several pictures: 207,8 or "golden retriever".
    #[arg(long, value_name = "CLASS", value_delimiter = ',', conflicts_with_all = ["prompt", "prompts"])]
    pub class: Vec<String>,

    /// Repeat the picture in this PNG: its prompt or class, seed and sampler options.
    #[arg(long, value_name = "PNG", conflicts_with_all = ["prompt", "prompts", "class", "count", "seed",
        "steps", "times", "order", "guidance", "guidance_span", "local_steps", "truncation", "top_k", "purity", "tokens_per_step", "compat", "dtype",
        "decode_dtype",
        "strength", "outpaint", "negative_prompt", "layout", "rerank"])]
    pub from_image: Option<PathBuf>,

    /// Model: an official .pth (whole or split), our .safetensors, a diffusers folder, or
    /// its name on the Hugging Face Hub.
    #[arg(long, value_name = "PATH")]
    pub checkpoint: PathBuf,

    #[command(flatten)]
    pub model: ModelSource,

    /// Pictures per prompt or class, or of an unconditional model.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,

    /// Pictures made and decoded together; on a GPU it bounds the memory, on the CPU
    /// a picture does not depend on it.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_size: u32,

    /// Seed of the first picture; picture i has seed + i.
    #[arg(long, default_value_t = 0, value_parser = whole::<u64>(0..=u64::MAX))]
    pub seed: u64,

    #[command(flatten)]
    pub sampler: SamplerArgs,

    #[command(flatten)]
    pub launch: LaunchArgs,

    #[command(flatten)]
    pub compute: ComputeArgs,

    /// Give the same bytes in every run on the same GPU with the same batch size;
    /// somewhat slower. On the CPU it is always so.
    #[arg(long)]
    pub deterministic: bool,

    /// Record each reverse step once as a CUDA graph and replay it: the same pictures with
    /// fewer calls to the GPU. Not measured yet.
    #[arg(long, conflicts_with_all = ["local_steps", "purity", "tokens_per_step", "compat"])]
    pub cuda_graph: bool,

    /// Folder for the pictures; made if missing.
    #[arg(long, value_name = "DIR", default_value = "outputs")]
    pub out: PathBuf,

    /// Replace pictures of the same name.
    #[arg(long)]
    pub overwrite: bool,

    /// Also write all pictures as one grid.png with the prompts or classes below them: a
    /// row each, or side by side if there is but one picture of each. Pictures below 128
    /// pixels are enlarged there.
    #[arg(long)]
    pub grid: bool,

    /// Also write a GIF of each picture's denoising, masked tokens in grey.
    #[arg(long)]
    pub animate: bool,

    /// Also write what each run looked like from inside to DIR/NAME-OF-THE-PICTURE: the
    /// tokens, their entropy and which changed at every step, where the image looked
    /// for each word, all as pictures and in trace.json. Asks the network again; in one
    /// process alone.
    #[arg(long, value_name = "DIR")]
    pub trace: Option<PathBuf>,

    /// Lay the pictures out for an evaluation that reads them: geneval, whose list of prompts
    /// (evaluation_metadata.jsonl) --prompts names; 4 pictures of each are usual (--count 4).
    #[arg(long, value_enum, requires = "prompts", conflicts_with_all = ["prompt", "rerank", "grid",
        "animate", "trace"])]
    pub layout: Option<Layout>,

    #[command(flatten)]
    pub selection: SelectionArgs,

    #[command(flatten)]
    pub edit: EditArgs,
}
