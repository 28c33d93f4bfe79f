//! `vqdiffusion convert`: any readable model to another layout.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::model_source::ModelSource;
use super::CliResult;
use crate::checkpoint::decoder::replace_decoder;
use crate::checkpoint::infer::RELEASED_HEADS;
use crate::checkpoint::official_export::mapping_name;
use crate::checkpoint::pytorch::DType;
use crate::checkpoint::vocabulary;
use crate::checkpoint::{diffusers, native, official_export, Checkpoint};
use crate::pipeline::check_weights;

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
    #[arg(long, value_enum)]
    to: Option<Target>,

    /// Number format of the weights [default: as they are, bit by bit].
    #[arg(long, value_enum)]
    dtype: Option<StoredKind>,

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

/// A layout to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// One safetensors file that holds everything.
    Native,
    /// A PyTorch file for the original code; a code mapping goes to a file beside it.
    Official,
    /// A folder for diffusers' VQDiffusionPipeline.
    Diffusers,
}

/// A number format of stored weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StoredKind {
    F32,
    F16,
    Bf16,
}

impl StoredKind {
    fn dtype(self) -> DType {
        match self {
            StoredKind::F32 => DType::F32,
            StoredKind::F16 => DType::F16,
            StoredKind::Bf16 => DType::BF16,
        }
    }
}

pub fn run(args: &ConvertArgs) -> CliResult {
    let target = target(args)?;
    refuse_output(args, &args.output)?;
    let notice = args.notice.as_deref().map(read_notice).transpose()?;
    if notice.is_some() && target == Target::Official {
        return Err("--notice: an official file has no place for it".into());
    }
    let mut checkpoint = args.model.open(&args.input)?;
    if target == Target::Official && checkpoint.config.needs_code_mapping() {
        refuse_output(args, &mapping_file(args, &checkpoint))?;
    }
    let text = checkpoint.config.text.as_ref();
    if let Some(text) = text.filter(|t| target == Target::Official && !t.tower.merges.is_clip()) {
        let file = vocabulary::file_name(&text.tower);
        refuse_output(args, &args.output.with_file_name(file))?;
    }
    if let Some(decoder) = &args.decoder {
        replace_decoder(&mut checkpoint, decoder)?;
    }
    let report = check_weights(&checkpoint)?;
    if let Some(kind) = args.dtype {
        checkpoint.state = checkpoint.state.map(|entry| entry.cast(kind.dtype()));
    }
    let (model, state) = (&checkpoint.config, &checkpoint.state);
    let notice = notice.as_deref().or(checkpoint.notice.as_deref());
    let mut out = std::io::stdout();
    match target {
        Target::Native => {
            native::write(&args.output, model, state, notice)?;
            writeln!(out, "{report}")?;
        }
        Target::Official => {
            let beside = official_export::write(&args.output, model, state)?;
            writeln!(out, "{report}")?;
            let heads = model.denoiser.heads;
            if heads != RELEASED_HEADS {
                writeln!(
                    out,
                    "left out: the number of attention heads, {heads}; whoever reads the file needs \
                     a configuration that says it (n_head)"
                )?;
            }
            for what in official_export::left_out(model) {
                writeln!(out, "left out: {what}")?;
            }
            if notice.is_some() {
                writeln!(out, "left out: the notice (shown by vqdiffusion inspect)")?;
            }
            for (file, what) in beside {
                writeln!(out, "wrote {} ({what})", file.display())?;
            }
        }
        Target::Diffusers => {
            let left_out = diffusers::write(&args.output, model, state, notice)?;
            writeln!(out, "{report}")?;
            for tensor in left_out {
                writeln!(out, "left out: {tensor}")?;
            }
        }
    }
    writeln!(out, "wrote {}", args.output.display())?;
    Ok(ExitCode::SUCCESS)
}

/// The text in `path`, which is to be some.
fn read_notice(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    match text.trim().is_empty() {
        true => Err(format!("{}: holds no text", path.display())),
        false => Ok(text),
    }
}

/// The wanted layout, checked against the output's name.
fn target(args: &ConvertArgs) -> Result<Target, String> {
    let ending = args.output.extension().and_then(|e| e.to_str());
    let output = args.output.display();
    let named = match ending {
        Some("safetensors") => Some(Target::Native),
        Some("pth") => Some(Target::Official),
        _ => None,
    };
    match (args.to, named) {
        (None, Some(target)) => Ok(target),
        (None, None) => Err(format!(
            "{output}: expected a name ending in .safetensors (native) or .pth (official), or --to"
        )),
        (Some(Target::Native), Some(Target::Native)) => Ok(Target::Native),
        (Some(Target::Native), _) => {
            Err(format!("{output}: expected a name ending in .safetensors"))
        }
        (Some(Target::Official), named) if named != Some(Target::Native) => Ok(Target::Official),
        (Some(Target::Diffusers), None) => Ok(Target::Diffusers),
        (Some(target), _) => Err(format!(
            "{output}: the name is not that of the {target:?} layout given with --to"
        )),
    }
}

/// Refuses an output that is there, or has no folder to be in.
fn refuse_output(args: &ConvertArgs, path: &Path) -> Result<(), String> {
    if !path.exists() {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        return match folder {
            Some(folder) if !folder.is_dir() => {
                Err(format!("{}: no such folder", folder.display()))
            }
            _ => Ok(()),
        };
    }
    let path_name = path.display();
    if !args.overwrite {
        return Err(format!(
            "{path_name}: exists already; give another name or --overwrite"
        ));
    }
    // Nothing but what this command writes is ever replaced.
    let is_pipeline = diffusers::is_replaceable(path);
    if path.is_dir() && (args.to != Some(Target::Diffusers) || !is_pipeline) {
        return Err(format!(
            "{path_name}: is a folder, and no diffusers pipeline written by this command to replace"
        ));
    }
    if path.is_file() && args.to == Some(Target::Diffusers) {
        return Err(format!("{path_name}: is a file, expected a folder"));
    }
    Ok(())
}

fn mapping_file(args: &ConvertArgs, checkpoint: &Checkpoint) -> PathBuf {
    args.output.with_file_name(mapping_name(&checkpoint.config))
}
