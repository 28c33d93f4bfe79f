//! `vqdiffusion evaluate sweep`: a model over steps, guidance, truncation and rules.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::model::{select, stopped, MeasuredArgs, RunProgress};
use super::network_args::NetworkArgs;
use crate::cli::arguments::whole;
use crate::cli::choices;
use crate::cli::progress::say;
use crate::cli::selection_args::SelectionArgs;
use crate::cli::signals::stop_on_signals;
use crate::cli::CliResult;
use crate::diffusion::ReverseRule;
use crate::evaluate::model::run::ModelRun;
use crate::evaluate::sweep::cells::Axes;
use crate::evaluate::sweep::{page, run::sweep};
use crate::files::FolderLock;
use crate::pipeline::Pipeline;
use crate::ranks::Ranks;
use crate::torch::device::Precision;

#[derive(Args)]
#[command(after_help = "\
Example:
  vqdiffusion evaluate sweep --protocol configs/evaluate/coco.yaml --checkpoint model.safetensors \\
      --pictures 5000 --steps 10,25,50,100 --guidance 1,3,5 --truncation 0.86,1 \\
      --inception pt_inception-2015-12-05-6726825d.pth --clip ViT-B-32.pt --out sweep

A sweep that was stopped goes on with the same command.")]
pub struct SweepArgs {
    #[command(flatten)]
    measured: MeasuredArgs,

    #[command(flatten)]
    networks: NetworkArgs,

    #[command(flatten)]
    selection: SelectionArgs,

    /// Numbers of reverse steps [default: the protocol's].
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = whole::<usize>(1..=u32::MAX.into()))]
    steps: Vec<usize>,

    /// Guidance scales; 1 is none [default: the protocol's].
    #[arg(long, value_name = "SCALE,…", value_delimiter = ',')]
    guidance: Vec<f64>,

    /// Truncation rates; 1 keeps all codes [default: the protocol's].
    #[arg(long, value_name = "RATE,…", value_delimiter = ',')]
    truncation: Vec<f64>,

    /// Rules of the reverse step [default: the protocol's].
    #[arg(long, value_name = "RULE,…", value_delimiter = ',', value_parser = choices::reverse_rule())]
    rule: Vec<ReverseRule>,

    /// Number format of the network [default: bf16 where the device computes in it natively, else f32].
    #[arg(long, value_parser = choices::precision())]
    dtype: Option<Precision>,

    /// Folder for the table, the charts, the page and the pictures; made if missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub fn run(args: &SweepArgs) -> CliResult {
    let device = args.measured.compute.set_up()?;
    let mut protocol = args.measured.protocol()?;
    let checkpoint = args.measured.open()?;
    let options = args.measured.options(&protocol, &checkpoint);
    let axes = Axes {
        steps: args.steps.clone(),
        guidance: args.guidance.clone(),
        truncation: args.truncation.clone(),
        rules: args.rule.clone(),
    };
    let cells = axes.cells(&options);
    for cell in &cells {
        cell.apply(&options).plan(&checkpoint.config)?;
    }
    let selection = select(&args.selection, &mut protocol, device)?;
    let networks = args.networks.open(&protocol.measures, device)?;
    let _lock = FolderLock::take(&args.out)?;
    let dtype = args.dtype.unwrap_or_else(|| Precision::native(device));
    let pipeline = Pipeline::load(&checkpoint, device, dtype)?;
    let ranks = Ranks::alone();
    let base = ModelRun {
        protocol,
        checkpoint: args.measured.checkpoint.clone(),
        pipeline: &pipeline,
        options,
        selection: selection.as_ref(),
        runs: 1,
        keep: true,
        train: None,
        cache: args.networks.cache(),
        out: args.out.clone(),
        ranks: &ranks,
    };
    let stop = stop_on_signals()?;
    let mut progress = RunProgress::default();
    let mut told = None;
    let report = sweep(&base, &cells, networks, &stop, &mut |cell, event| {
        if told != Some(cell) {
            told = Some(cell);
            say(format_args!(
                "cell {} of {}: {}",
                cell + 1,
                cells.len(),
                cells[cell].name()
            ));
        }
        progress.hear(event);
    });
    let report = match report {
        Err(error) if error.is_stop() => return Ok(stopped(&mut progress)),
        report => report?,
    };
    let path = page::write(&report, &args.out)?;
    writeln!(std::io::stdout(), "wrote {}", path.display())?;
    match report.cells.len() == cells.len() {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(stopped(&mut progress)),
    }
}
