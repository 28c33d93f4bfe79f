//! `vqdiffusion evaluate pictures`: pictures of any origin against real ones.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::extraction::ExtractionProgress;
use super::network_args::NetworkArgs;
use crate::cli::choices;
use crate::cli::compute::ComputeArgs;
use crate::cli::progress::say;
use crate::cli::signals::{stop_on_signals, STOPPED};
use crate::cli::CliResult;
use crate::evaluate::model::protocol::MeasuresProtocol;
use crate::evaluate::pictures::extract::Setting;
use crate::evaluate::pictures::run::{run as measure, Comparison};
use crate::evaluate::pictures::ComparisonError;
use crate::files;
use crate::metrics::networks::dinov2::PositionTable;
use crate::metrics::preparation::{ClipCrop, DinoResize, InceptionResize};
use crate::metrics::statistics_file;
use crate::picture::Pillow;

#[derive(Args)]
#[command(after_help = "\
Examples:
  vqdiffusion evaluate pictures --samples made --references real \\
      --inception pt_inception-2015-12-05-6726825d.pth --out report.json
  vqdiffusion evaluate pictures --samples samples.npz --references VIRTUAL_imagenet256_labeled.npz \\
      --inception pt_inception-2015-12-05-6726825d.pth --inception-resize adm \\
      --dinov2 dinov2_vitl14_pretrain.pth --out report.json

docs/evaluation.md says what each figure is and where the weights are from.")]
pub struct PicturesArgs {
    /// The pictures to measure: a folder with all below it, a zip archive, or an .npz with
    /// uint8 pictures in arr_0.
    #[arg(long, value_name = "DIR|ZIP|NPZ")]
    samples: PathBuf,

    /// The real pictures, or an .npz with the statistics of some (mu, sigma), which serve
    /// FID and sFID alone.
    #[arg(long, value_name = "DIR|ZIP|NPZ")]
    references: PathBuf,

    /// Training pictures, to look for copies of them.
    #[arg(long, value_name = "DIR|ZIP|NPZ")]
    train: Option<PathBuf>,

    #[command(flatten)]
    networks: NetworkArgs,

    /// How pictures come to Inception's size: as clean-fid, pytorch-fid, or ADM's evaluator
    /// and torch-fidelity do.
    #[arg(long, value_parser = choices::inception_resize(), default_value = "clean")]
    inception_resize: InceptionResize,

    /// How pictures come to DINOv2's size: as dgm-eval (two ways) or torch-fidelity do.
    #[arg(long, value_parser = choices::dino_resize(), default_value = "pil")]
    dinov2_resize: DinoResize,

    /// How DINOv2's table of positions is scaled: as torch.hub or transformers do.
    #[arg(long, value_parser = choices::position_table(), default_value = "hub")]
    dinov2_positions: PositionTable,

    /// What part of a picture CLIP sees: as OpenAI, transformers or the published CMMD do.
    #[arg(long, value_parser = choices::clip_crop(), default_value = "openai")]
    clip_crop: ClipCrop,

    /// The samples' captions, a JSON object a line with file and caption [default:
    /// captions.jsonl in the folder of samples, if there is one].
    #[arg(long, value_name = "FILE")]
    captions: Option<PathBuf>,

    /// Scale every picture to cover a square of so many pixels, and cut its centre out.
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(8..=4096))]
    crop: Option<u32>,

    /// Release of Pillow whose bicubic resizing is repeated: up to 12, or from 13 on, which
    /// filters some shapes in the other order.
    #[arg(long, value_parser = choices::pillow(), default_value = "13")]
    pillow: Pillow,

    /// Seed of the subsets of KID and FD infinity, the parts of the Inception score and the
    /// halves of the reals.
    #[arg(long, default_value_t = 2020)]
    seed: u64,

    /// Also write the statistics of the references as an .npz that pytorch-fid, clean-fid and
    /// ADM's evaluator read.
    #[arg(long, value_name = "NPZ", requires = "inception")]
    write_statistics: Option<PathBuf>,

    /// The report, a JSON file.
    #[arg(long, value_name = "REPORT")]
    out: PathBuf,

    #[command(flatten)]
    compute: ComputeArgs,
}

pub fn run(args: &PicturesArgs) -> CliResult {
    let device = args.compute.set_up()?;
    if args.out.is_dir() {
        return Err(format!("--out {}: is a folder, expected a file", args.out.display()).into());
    }
    let measures = MeasuresProtocol {
        inception_resize: args.inception_resize,
        dinov2_resize: args.dinov2_resize,
        dinov2_positions: args.dinov2_positions,
        clip_crop: args.clip_crop,
        pillow: args.pillow,
        seed: args.seed,
    };
    let networks = args.networks.open(&measures, device)?;
    let plan = Comparison {
        samples: args.samples.clone(),
        references: args.references.clone(),
        train: args.train.clone(),
        captions: args.captions.clone(),
        seed: args.seed,
        setting: Setting {
            crop: args.crop,
            pillow: args.pillow,
            device,
        },
        cache: args.networks.cache(),
    };
    let stop = stop_on_signals()?;
    let mut progress = ExtractionProgress::default();
    let outcome = measure(&plan, networks, &stop, &mut |event| progress.hear(event));
    let found = match outcome {
        Err(ComparisonError::Stopped) => {
            let kept = match plan.cache.is_some() {
                true => "; the features so far are kept, and the same command goes on",
                false => "",
            };
            say(format_args!("stopped by a signal{kept}"));
            return Ok(ExitCode::from(STOPPED));
        }
        outcome => outcome?,
    };
    if let (Some(path), Some(statistics)) = (&args.write_statistics, &found.statistics) {
        statistics_file::write(path, statistics)?;
    }
    let mut text = serde_json::to_vec_pretty(&found.report)?;
    text.push(b'\n');
    files::write(&args.out, text)?;
    let mut out = std::io::stdout();
    write!(out, "{}", found.report)?;
    writeln!(out, "wrote {}", args.out.display())?;
    Ok(ExitCode::SUCCESS)
}
