//! `vqdiffusion convert`: any readable model file to the own format.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::model_source::ModelSource;
use super::CliResult;
use crate::checkpoint::native;
use crate::pipeline::check_weights;

#[derive(Args)]
#[command(after_help = "\
Example:
  vqdiffusion convert coco_learnable.pth_aa coco.safetensors --mapping taming_vqvae_2887.pt")]
pub struct ConvertArgs {
    /// Model file to read.
    input: PathBuf,

    /// File to write (.safetensors).
    output: PathBuf,

    #[command(flatten)]
    model: ModelSource,

    /// Replace the output if it exists.
    #[arg(long)]
    overwrite: bool,
}

pub fn run(args: &ConvertArgs) -> CliResult {
    let output = args.output.display();
    if args.output.extension().is_none_or(|e| e != "safetensors") {
        return Err(format!("{output}: expected a name ending in .safetensors").into());
    }
    if args.output.exists() && !args.overwrite {
        return Err(format!("{output}: exists already; give another name or --overwrite").into());
    }
    let checkpoint = args.model.open(&args.input)?;
    let report = check_weights(&checkpoint)?;
    native::write(&args.output, &checkpoint.config, &checkpoint.state)?;
    let mut out = std::io::stdout();
    writeln!(out, "{report}")?;
    writeln!(out, "wrote {output}")?;
    Ok(ExitCode::SUCCESS)
}
