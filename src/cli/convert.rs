//! `vqdiffusion convert`: any readable model to another layout.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::choices;
use super::model_source::ModelSource;
use super::CliResult;
use crate::checkpoint::pytorch::DType;
use crate::files;
use crate::pipeline::convert::{Conversion, ConvertError, Target};

#[derive(Args)]
#[command(after_help = "\
Examples:
  vqdiffusion convert coco_learnable.pth_aa coco.safetensors --mapping taming_vqvae_2887.pt
  vqdiffusion convert microsoft/vq-diffusion-ithq ithq.pth
  vqdiffusion convert coco.safetensors coco-diffusers --to diffusers --dtype f16")]
pub struct ConvertArgs {
    /// Model to read: a file, a diffusers folder, or a name on the Hugging Face Hub.
    input: PathBuf,

    /// File or folder to write.
    output: PathBuf,

    #[command(flatten)]
    model: ModelSource,

    /// Layout to write [default: by the output's name: native for .safetensors,
    /// official for .pth].
    #[arg(long, value_parser = choices::target())]
    to: Option<Target>,

    /// Number format of the weights [default: as they are, bit by bit].
    #[arg(long, value_parser = choices::stored_format())]
    dtype: Option<DType>,

    /// Codec file to take the decoder from: the model's own codec, whose decoder was
    /// trained further (train-codec with train.trained: decoder).
    #[arg(long, value_name = "FILE")]
    decoder: Option<PathBuf>,

    /// Text on licences and authors to keep with the weights, in place of the input's if
    /// it has one: in the header of a native file, as NOTICE in a diffusers folder.
    #[arg(long, value_name = "FILE")]
    notice: Option<PathBuf>,

    /// Replace the output if it exists.
    #[arg(long)]
    overwrite: bool,
}

pub fn run(args: &ConvertArgs) -> CliResult {
    let conversion = Conversion {
        to: Target::of(&args.output, args.to).map_err(with_flags)?,
        dtype: args.dtype,
        decoder: args.decoder.clone(),
        notice: args.notice.as_deref().map(read_notice).transpose()?,
        overwrite: args.overwrite,
    };
    conversion.check(&args.output).map_err(with_flags)?;
    let checkpoint = args.model.open(&args.input)?;
    let written = conversion.write(checkpoint, &args.output);
    let written = written.map_err(with_flags)?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", written.report)?;
    for what in written.left_out {
        writeln!(out, "left out: {what}")?;
    }
    for (file, what) in written.beside {
        writeln!(out, "wrote {} ({what})", file.display())?;
    }
    writeln!(out, "wrote {}", args.output.display())?;
    Ok(ExitCode::SUCCESS)
}

/// Size of a notice, at most.
const MOST_NOTICE: u64 = 1 << 20;

/// The text in `path`, which is to be some.
fn read_notice(path: &Path) -> Result<String, Box<dyn Error>> {
    let text = files::read_text(path, MOST_NOTICE)?;
    match text.trim().is_empty() {
        true => Err(format!("{}: holds no text", path.display()).into()),
        false => Ok(text),
    }
}

/// `error` with the flags that it is about.
fn with_flags(error: ConvertError) -> Box<dyn Error> {
    match error {
        ConvertError::Unnamed { .. } => format!("{error}, or --to").into(),
        ConvertError::OtherName { .. } => format!("{error} given with --to").into(),
        ConvertError::Exists { .. } => format!("{error}; give another name or --overwrite").into(),
        ConvertError::Notice => "--notice: an official file has no place for it".into(),
        error => error.into(),
    }
}
