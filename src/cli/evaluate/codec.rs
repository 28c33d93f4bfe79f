//! `vqdiffusion evaluate codec`: what the image codec loses over a data set.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::extraction::ExtractionProgress;
use super::network_args::NetworkArgs;
use crate::cli::choices;
use crate::cli::compute::ComputeArgs;
use crate::cli::model_source::ModelSource;
use crate::cli::progress::say;
use crate::cli::signals::{stop_on_signals, STOPPED};
use crate::cli::CliResult;
use crate::data::{Dataset, Fingerprint, Split};
use crate::evaluate::codec::{CodecScore, CodecScores};
use crate::evaluate::model::protocol::MeasuresProtocol;
use crate::evaluate::pictures::compare::{controls, RealPictures};
use crate::evaluate::pictures::extract::{extract_through, Extractor, Setting};
use crate::evaluate::pictures::networks::{Described, Network};
use crate::evaluate::pictures::report::Controls;
use crate::evaluate::pictures::run::observed;
use crate::evaluate::pictures::set::PictureSet;
use crate::evaluate::pictures::ComparisonError;
use crate::files;
use crate::metrics::networks::Lpips;
use crate::metrics::preparation::InceptionResize;
use crate::picture::Picture;
use crate::pipeline::LoadedCodec;

#[derive(Args)]
#[command(after_help = "\
Examples:
  vqdiffusion evaluate codec --checkpoint model.safetensors --data data/emoji/heldout_pairs
  vqdiffusion evaluate codec --checkpoint codec.pth --data data/imagenet --out codec.json \\
      --inception pt_inception-2015-12-05-6726825d.pth --vgg vgg16-397923af.pth --lpips vgg.pth")]
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
    networks: NetworkArgs,

    /// How pictures come to Inception's size: as clean-fid, pytorch-fid, or ADM's evaluator
    /// and torch-fidelity do.
    #[arg(long, value_parser = choices::inception_resize(), default_value = "clean")]
    inception_resize: InceptionResize,

    /// Weights of VGG16 for LPIPS (torchvision's vgg16-397923af.pth).
    #[arg(long, value_name = "FILE", requires = "lpips")]
    vgg: Option<PathBuf>,

    /// The heads of LPIPS (the vgg.pth of the package lpips, version 0.1).
    #[arg(long, value_name = "FILE", requires = "vgg")]
    lpips: Option<PathBuf>,

    /// Also write a report, a JSON file.
    #[arg(long, value_name = "REPORT")]
    out: Option<PathBuf>,

    #[command(flatten)]
    compute: ComputeArgs,
}

#[derive(Serialize)]
struct CodecReport<'a> {
    measure: &'static str,
    version: &'static str,
    checkpoint: &'a PathBuf,
    /// SHA-256 of the codec's weights.
    codec_sha256: &'a str,
    data: &'a PathBuf,
    /// SHA-256 of the names, captions and labels of the data set's pictures.
    data_sha256: String,
    #[serde(flatten)]
    scores: CodecScores,
    networks: Vec<Described>,
    /// The reconstructions against the pictures (their Fréchet distance is rFID), and half of
    /// the pictures against the other half.
    #[serde(flatten)]
    compared: Controls,
}

pub fn run(args: &CodecScoreArgs) -> CliResult {
    let device = args.compute.set_up()?;
    let dataset = Arc::new(Dataset::open(&args.data, args.split, true)?);
    let codec = LoadedCodec::load(&args.model.open_codec(&args.checkpoint)?, device)?;
    let lpips = args.vgg.as_deref().zip(args.lpips.as_deref());
    let lpips = lpips
        .map(|(vgg, heads)| Lpips::load(vgg, heads, device))
        .transpose()?;
    let measures = MeasuresProtocol {
        inception_resize: args.inception_resize,
        ..MeasuresProtocol::default()
    };
    let networks = args.networks.open_any(&measures, device)?;
    let described: Vec<Described> = networks.iter().map(Network::described).collect();
    let cache = args.networks.cache();
    let mut extractors = networks
        .into_iter()
        .map(|network| Extractor::new(network, measures.pillow, cache.as_deref()))
        .collect::<Result<Vec<_>, _>>()?;

    let [height, width] = codec.picture_size().map(|side| side as u32);
    let places = (0..dataset.items.len()).collect();
    let set = PictureSet::of_items(dataset.clone(), places);
    let setting = Setting {
        crop: None,
        pillow: measures.pillow,
        device,
    };
    let stop = stop_on_signals()?;
    let mut progress = ExtractionProgress::default();
    let mut score = CodecScore::new(&codec, lpips.as_ref().map(|lpips| &lpips.network));
    let mut pass = |through: &mut dyn FnMut(Picture) -> Result<Picture, ComparisonError>| {
        observed(
            &set.path,
            set.len(),
            &mut |event| progress.hear(event),
            |done| extract_through(&set, &mut extractors, setting, through, &stop, done),
        )
    };
    let mut measured = || -> Result<_, ComparisonError> {
        let coded = pass(&mut |picture| Ok(score.add(&picture.cover(width, height))))?;
        let reals = match described.is_empty() {
            false => Some(pass(&mut |picture| Ok(picture.cover(width, height)))?),
            true => None,
        };
        Ok((coded, reals))
    };
    let (coded, reals) = match measured() {
        Err(ComparisonError::Stopped) => {
            say(format_args!("stopped by a signal"));
            return Ok(ExitCode::from(STOPPED));
        }
        outcome => outcome?,
    };
    let compared = match reals {
        None => Controls::default(),
        Some(reals) => {
            let reals = RealPictures::of_pictures(reals, &extractors, None)?;
            controls(&extractors, &reals, Some(&coded), measures.seed)?
        }
    };
    let report = CodecReport {
        measure: "codec",
        version: env!("CARGO_PKG_VERSION"),
        checkpoint: &args.checkpoint,
        codec_sha256: &codec.fingerprint,
        data: &args.data,
        data_sha256: Fingerprint::of_items(&dataset.items).sha256,
        scores: score.scores(),
        networks: described,
        compared,
    };
    print(&report)?;
    if let Some(path) = &args.out {
        let mut text = serde_json::to_vec_pretty(&report)?;
        text.push(b'\n');
        files::write(path, text)?;
        writeln!(std::io::stdout(), "wrote {}", path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(report: &CodecReport) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    let scores = &report.scores;
    writeln!(out, "pictures {}", scores.pictures)?;
    writeln!(
        out,
        "PSNR {:.2} dB (mean; worst {:.2})",
        scores.psnr, scores.worst_psnr
    )?;
    if let Some(ssim) = scores.ssim {
        writeln!(out, "SSIM {ssim:.4}")?;
    }
    if let Some(lpips) = scores.lpips {
        writeln!(out, "LPIPS {lpips:.4}")?;
    }
    if let Some(coded) = &report.compared.reconstructions {
        let halves = report.compared.halves.clone().unwrap_or_default();
        let rows = [
            ("rFID", coded.fid, halves.fid),
            ("rFD-DINOv2", coded.fd_dinov2, halves.fd_dinov2),
            ("CMMD", coded.cmmd, halves.cmmd),
        ];
        for (name, value, half) in rows {
            if let (Some(value), Some(half)) = (value, half) {
                writeln!(
                    out,
                    "{name} {value:.4} (half of the pictures against half {half:.4})"
                )?;
            }
        }
    }
    writeln!(out, "codes used {} of {}", scores.codes_used, scores.codes)?;
    writeln!(out, "perplexity {:.1}", scores.perplexity)
}
