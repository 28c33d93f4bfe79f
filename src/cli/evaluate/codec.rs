//! `vqdiffusion evaluate codec`: what the image codec loses over a data set.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::choices;
use crate::cli::compute::ComputeArgs;
use crate::cli::model_source::ModelSource;
use crate::cli::progress::ProgressDisplay;
use crate::cli::CliResult;
use crate::data::{Dataset, Split};
use crate::evaluate::codec::CodecScore;
use crate::picture::PictureError;
use crate::pipeline::LoadedCodec;

#[derive(Args)]
#[command(after_help = "\
Example:
  vqdiffusion evaluate codec --checkpoint model.safetensors --data data/emoji/heldout_pairs")]
pub struct CodecScoreArgs {
    /// Model or codec: an official .pth (whole or split), our .safetensors, a diffusers
    /// folder, or its name on the Hugging Face Hub.
    #[arg(long, value_name = "PATH")]
    checkpoint: PathBuf,

    #[command(flatten)]
    model: ModelSource,

    /// Data set of any layout, best one that the codec was not trained on. Pictures are
    /// scaled to the codec's size, the middle cut out.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,

    /// Part of a data set that has parts.
    #[arg(long, value_parser = choices::split(), default_value = "val")]
    split: Split,

    #[command(flatten)]
    compute: ComputeArgs,
}

pub fn run(args: &CodecScoreArgs) -> CliResult {
    let device = args.compute.set_up()?;
    let dataset = Dataset::open(&args.data, args.split, true)?;
    let codec = LoadedCodec::load(&args.model.open_codec(&args.checkpoint)?, device)?;
    let [height, width] = codec.picture_size().map(|side| side as u32);
    let mut score = CodecScore::new(&codec);
    let mut progress =
        ProgressDisplay::counting("pictures", dataset.items.len() as u64, "codec", false);
    for item in &dataset.items {
        let picture = dataset.picture(item).map_err(|problem| PictureError {
            path: dataset.root.join(item.picture.to_string()),
            problem,
        })?;
        score.add(&codec, &picture.cover(width, height));
        progress.step("codec");
    }
    progress.finish();
    let scores = score.scores();
    let mut out = std::io::stdout();
    writeln!(out, "pictures {}", scores.pictures)?;
    writeln!(
        out,
        "PSNR {:.2} dB (mean; worst {:.2})",
        scores.psnr, scores.worst_psnr
    )?;
    writeln!(out, "codes used {} of {}", scores.codes_used, scores.codes)?;
    writeln!(out, "perplexity {:.1}", scores.perplexity)?;
    Ok(ExitCode::SUCCESS)
}
