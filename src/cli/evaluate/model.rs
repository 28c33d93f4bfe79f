//! `vqdiffusion evaluate model`: a model by a protocol, beside what was published.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tch::Device;

use super::extraction::ExtractionProgress;
use super::network_args::NetworkArgs;
use crate::checkpoint::Checkpoint;
use crate::cli::arguments::whole;
use crate::cli::compute::ComputeArgs;
use crate::cli::launch::{join, LaunchArgs};
use crate::cli::model_source::ModelSource;
use crate::cli::progress::{say, ProgressDisplay};
use crate::cli::sampler_args::SamplerArgs;
use crate::cli::selection_args::SelectionArgs;
use crate::cli::signals::{stop_on_signals, STOPPED};
use crate::cli::CliResult;
use crate::evaluate::model::made::MadeEvent;
use crate::evaluate::model::protocol::ModelProtocol;
use crate::evaluate::model::run::{ModelRun, RunEvent};
use crate::evaluate::report::REPORT;
use crate::files::{self, FolderLock};
use crate::pipeline::{PictureOptions, Pipeline, Selection};

#[derive(Args)]
#[command(after_help = "\
Examples:
  vqdiffusion evaluate model --protocol configs/evaluate/coco.yaml --checkpoint model.safetensors \\
      --inception pt_inception-2015-12-05-6726825d.pth --clip ViT-B-32.pt --out coco
  vqdiffusion evaluate model --protocol configs/evaluate/imagenet.yaml --checkpoint imagenet.pth \\
      --reals VIRTUAL_imagenet256_labeled.npz --guidance 1.5 --truncation 0.94 \\
      --inception pt_inception-2015-12-05-6726825d.pth --seeds 3 --out imagenet

A run that was stopped goes on with the same command. docs/evaluation.md says what each figure is
and where the weights are from.")]
pub struct ModelArgs {
    #[command(flatten)]
    measured: MeasuredArgs,

    #[command(flatten)]
    networks: NetworkArgs,

    #[command(flatten)]
    sampler: SamplerArgs,

    #[command(flatten)]
    selection: SelectionArgs,

    /// Runs with seeds of their own: each figure with its mean and spread.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<u64>(1..=1000))]
    seeds: u64,

    /// Remove pictures when their features are known; they can be made again.
    #[arg(long)]
    discard_pictures: bool,

    /// Training pictures, to look for copies of them.
    #[arg(long, value_name = "DIR|ZIP|NPZ")]
    train: Option<PathBuf>,

    /// Folder for the report, the pictures and their features; made if missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    #[command(flatten)]
    launch: LaunchArgs,
}

/// What is measured by which protocol.
#[derive(Args)]
pub struct MeasuredArgs {
    /// The protocol (YAML): real pictures, what is asked for, how it is measured.
    #[arg(long, value_name = "YAML")]
    protocol: PathBuf,

    /// Model to measure: an official .pth (whole or split), our .safetensors, a diffusers
    /// folder, or its name on the Hugging Face Hub.
    #[arg(long, value_name = "PATH")]
    pub checkpoint: PathBuf,

    #[command(flatten)]
    model: ModelSource,

    /// The real pictures, in the place of the protocol's: a data set of any layout, or an .npz.
    #[arg(long, value_name = "PATH")]
    reals: Option<PathBuf>,

    /// Pictures, in the place of the protocol's; its figures are of more.
    #[arg(long, value_name = "N", value_parser = whole::<usize>(10..=10_000_000))]
    pictures: Option<usize>,

    /// Pictures made and decoded together on a GPU.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,

    #[command(flatten)]
    pub compute: ComputeArgs,
}

impl MeasuredArgs {
    /// The protocol with what is given in its values' places.
    pub fn protocol(&self) -> Result<ModelProtocol, Box<dyn Error>> {
        let mut protocol = ModelProtocol::read(&self.protocol)?;
        if let Some(reals) = &self.reals {
            protocol.reals.data.clone_from(reals);
        }
        if let Some(pictures) = self.pictures {
            protocol.samples.pictures = pictures;
        }
        Ok(protocol)
    }

    /// Opens the model, on threads that are of use to it.
    pub fn open(&self) -> Result<Checkpoint, Box<dyn Error>> {
        let checkpoint = self.model.open(&self.checkpoint)?;
        self.compute.limit_threads(&checkpoint.config);
        Ok(checkpoint)
    }

    /// What suits the model, with what the protocol says of the sampler.
    pub fn options(&self, protocol: &ModelProtocol, checkpoint: &Checkpoint) -> PictureOptions {
        let usual = PictureOptions::usual(&checkpoint.config);
        let options = protocol.samples.sampler.apply(usual);
        options.batch_size(self.batch_size as usize)
    }
}

pub fn run(args: &ModelArgs) -> CliResult {
    if let Some(code) = args.launch.run()? {
        return Ok(code);
    }
    let ranks = join()?;
    let speaks = ranks.is_first();
    let device = args.measured.compute.set_up()?;
    let mut protocol = args.measured.protocol()?;
    let checkpoint = args.measured.open()?;
    let options = args.measured.options(&protocol, &checkpoint);
    let options = args.sampler.apply(options, &checkpoint.config);
    options.plan(&checkpoint.config)?;
    let selection = select(&args.selection, &mut protocol, device)?;
    let networks = args.networks.open(&protocol.measures, device)?;
    let _lock = speaks.then(|| FolderLock::take(&args.out)).transpose()?;
    let pipeline = Pipeline::load(&checkpoint, device, args.sampler.dtype(device))?;
    let plan = ModelRun {
        protocol,
        checkpoint: args.measured.checkpoint.clone(),
        pipeline: &pipeline,
        options,
        selection: selection.as_ref(),
        runs: args.seeds,
        keep: !args.discard_pictures,
        train: args.train.clone(),
        cache: args.networks.cache(),
        out: args.out.clone(),
        ranks: &ranks,
    };
    let stop = stop_on_signals()?;
    let mut progress = RunProgress::default();
    let mut hear = |event: RunEvent| {
        if speaks {
            progress.hear(event);
        }
    };
    let report = match plan.run(networks, &stop, &mut hear) {
        Err(error) if error.is_stop() && !speaks => return Ok(ExitCode::from(STOPPED)),
        Err(error) if error.is_stop() => return Ok(stopped(&mut progress)),
        outcome => outcome?,
    };
    let Some(report) = report else {
        return Ok(ExitCode::SUCCESS);
    };
    let path = args.out.join(REPORT);
    let mut text = serde_json::to_vec_pretty(&report)?;
    text.push(b'\n');
    files::write(&path, text)?;
    let mut out = std::io::stdout();
    write!(out, "{report}")?;
    writeln!(out, "wrote {}", path.display())?;
    Ok(ExitCode::SUCCESS)
}

/// What ranks candidates, asked for here or by the protocol, which says it from now on.
pub fn select(
    args: &SelectionArgs,
    protocol: &mut ModelProtocol,
    device: Device,
) -> Result<Option<Selection>, Box<dyn Error>> {
    let samples = &mut protocol.samples;
    let usual = samples.rerank.map(|ranking| (ranking, samples.best_of));
    let asked = args.asked(usual)?;
    samples.rerank = asked.map(|(ranking, _)| ranking);
    samples.best_of = asked.map_or(1, |(_, candidates)| candidates);
    args.open(asked, device)
}

/// Says that a signal ended the work, and that nothing is lost.
pub fn stopped(progress: &mut RunProgress) -> ExitCode {
    progress.end();
    say(format_args!(
        "stopped by a signal; what was made and measured is kept, and the same command goes on"
    ));
    ExitCode::from(STOPPED)
}

/// Shows the passes over real pictures, and the runs.
#[derive(Default)]
pub struct RunProgress {
    reals: ExtractionProgress,
    run: Option<ProgressDisplay>,
}

impl RunProgress {
    pub fn hear(&mut self, event: RunEvent) {
        match event {
            RunEvent::Reals(event) => self.reals.hear(event),
            RunEvent::Run { run, pictures } => {
                say(format_args!("pictures of run {}", run + 1));
                let total = pictures as u64;
                let display = ProgressDisplay::counting("pictures", total, "sampling", false);
                self.run = Some(display);
            }
            RunEvent::Made(MadeEvent::Pictures(done)) => {
                if let Some(progress) = &mut self.run {
                    progress.reach(done as u64);
                }
            }
            // What was there already says nothing of the time that the rest takes.
            RunEvent::Made(MadeEvent::Known(done)) => {
                if let Some(progress) = &mut self.run {
                    progress.start_at(done as u64);
                }
            }
            RunEvent::End => self.end(),
        }
    }

    fn end(&mut self) {
        if let Some(progress) = self.run.take() {
            progress.finish();
        }
    }
}
