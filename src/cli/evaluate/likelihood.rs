//! `vqdiffusion evaluate likelihood`: the variational bound on held-out pictures.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use clap::Args;
use serde::Serialize;

use crate::cli::arguments::whole;
use crate::cli::choices;
use crate::cli::compute::ComputeArgs;
use crate::cli::model_source::ModelSource;
use crate::cli::progress::{say, ProgressDisplay};
use crate::cli::signals::{stop_on_signals, STOPPED};
use crate::cli::CliResult;
use crate::data::{Dataset, Fingerprint, Item, Split};
use crate::evaluate::bound::{of_picture, Bound, Likelihood};
use crate::files;
use crate::metrics::subsets::subset;
use crate::picture::PictureError;
use crate::pipeline::{Pipeline, Subject};
use crate::random::MeasureDraw;
use crate::torch::device::Precision;
use crate::transformer::Conditioning;

#[derive(Args)]
#[command(after_help = "\
Example:
  vqdiffusion evaluate likelihood --checkpoint model.safetensors --data data/emoji/heldout_pairs \\
      --limit 200 --out likelihood.json")]
pub struct LikelihoodArgs {
    /// Model to measure: an official .pth (whole or split), our .safetensors, a diffusers
    /// folder, or its name on the Hugging Face Hub.
    #[arg(long, value_name = "PATH")]
    checkpoint: PathBuf,

    #[command(flatten)]
    model: ModelSource,

    /// Data set of any layout that the model was not trained on. Pictures are scaled to the
    /// model's size, the middle cut out; each is given its first caption, or its label.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,

    /// Part of a data set that has parts.
    #[arg(long, value_parser = choices::split(), default_value = "val")]
    split: Split,

    /// Measure this many pictures, a fixed draw.
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..=100_000_000))]
    limit: Option<usize>,

    /// Evaluations of the network for each quarter of the times and picture.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = whole::<usize>(1..=100_000))]
    draws: usize,

    /// Seed of the times, the noise, and the pictures drawn.
    #[arg(long, default_value_t = 2020)]
    seed: u64,

    /// Number format of the network.
    #[arg(long, value_parser = choices::precision(), default_value = "f32")]
    dtype: Precision,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Also write a report, a JSON file.
    #[arg(long, value_name = "REPORT")]
    out: Option<PathBuf>,
}

#[derive(Serialize)]
struct LikelihoodReport<'a> {
    measure: &'static str,
    version: &'static str,
    checkpoint: &'a PathBuf,
    /// SHA-256 of its weights.
    model_sha256: &'a str,
    data: &'a PathBuf,
    /// SHA-256 of the names, captions and labels of the data set's pictures.
    data_sha256: String,
    seed: u64,
    dtype: Precision,
    /// Whether a signal ended the work before all pictures were measured.
    stopped: bool,
    #[serde(flatten)]
    likelihood: Likelihood,
}

pub fn run(args: &LikelihoodArgs) -> CliResult {
    let device = args.compute.set_up()?;
    let dataset = Dataset::open(&args.data, args.split, true)?;
    let checkpoint = args.model.open(&args.checkpoint)?;
    args.compute.limit_threads(&checkpoint.config);
    let pipeline = Pipeline::load(&checkpoint, device, args.dtype)?;
    let all = dataset.items.len();
    let count = args.limit.unwrap_or(all).min(all);
    let places = subset(args.seed, MeasureDraw::Reals, 0, all, count);
    let schedule = pipeline.config().schedule();
    let bound = Bound::new(&schedule, device);
    let [height, width] = pipeline.config().picture_size().map(|side| side as u32);
    let stop = stop_on_signals()?;
    let mut progress = ProgressDisplay::counting("pictures", count as u64, "likelihood", false);
    let mut bounds = Vec::new();
    for place in places {
        let item = &dataset.items[place as usize];
        let picture = dataset.picture(item).map_err(|problem| PictureError {
            path: dataset.root.join(item.picture.to_string()),
            problem,
        })?;
        let tokens = pipeline.encode(&picture.cover(width, height)); // [1, L]
        let subject = subject(item, &pipeline)?;
        let (draws, seed) = (args.draws, args.seed);
        let found = of_picture(
            &pipeline,
            &bound,
            &subject,
            &tokens,
            draws,
            seed,
            place as u64,
        )?;
        bounds.push(found);
        progress.step("likelihood");
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    progress.finish();
    let tokens = pipeline.config().denoiser.tokens() as f64;
    let dimensions = 3.0 * f64::from(height) * f64::from(width);
    let likelihood = Likelihood::new(&bounds, args.draws, [tokens, dimensions], args.seed);
    print(&likelihood)?;
    let stopped = bounds.len() < count;
    if let Some(path) = &args.out {
        let report = LikelihoodReport {
            measure: "likelihood",
            version: env!("CARGO_PKG_VERSION"),
            checkpoint: &args.checkpoint,
            model_sha256: pipeline.fingerprint(),
            data: &args.data,
            data_sha256: Fingerprint::of_items(&dataset.items).sha256,
            seed: args.seed,
            dtype: args.dtype,
            stopped,
            likelihood,
        };
        let mut text = serde_json::to_vec_pretty(&report)?;
        text.push(b'\n');
        files::write(path, text)?;
        writeln!(std::io::stdout(), "wrote {}", path.display())?;
    }
    match stopped {
        false => Ok(ExitCode::SUCCESS),
        true => {
            let done = bounds.len();
            say(format_args!(
                "stopped by a signal: {done} of {count} pictures were measured"
            ));
            Ok(ExitCode::from(STOPPED))
        }
    }
}

fn subject(item: &Item, pipeline: &Pipeline) -> Result<Subject, Box<dyn Error>> {
    let lacks = |what: &str| format!("{}: has no {what}, which the model needs", item.picture);
    Ok(match pipeline.config().denoiser.condition {
        Conditioning::Text { .. } => {
            let caption = item.captions.first().ok_or_else(|| lacks("caption"))?;
            Subject::Text(caption.clone())
        }
        Conditioning::Class { .. } => Subject::Class(item.label.ok_or_else(|| lacks("label"))?),
        Conditioning::Unconditional => Subject::Anything,
    })
}

fn print(found: &Likelihood) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    let [low, high] = found.bits_per_token_interval;
    writeln!(out, "pictures {}", found.pictures)?;
    writeln!(
        out,
        "bound {:.4} bits a token ({low:.4} to {high:.4}), {:.4} bits a dimension",
        found.bits_per_token, found.bits_per_dimension
    )?;
    let [a, b, c, d] = found.quarters;
    writeln!(
        out,
        "by quarter of t {a:.4} {b:.4} {c:.4} {d:.4}, prior {:.4}",
        found.prior
    )
}
