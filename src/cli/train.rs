//! `vqdiffusion train`: an experiment to checkpoints.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::compute::ComputeArgs;
use super::experiment_args::{print_config, ExperimentArgs};
use super::progress::Progress;
use super::signals::{stop_on_signals, STOPPED};
use super::train_data::DataSource;
use super::CliResult;
use crate::data::Split;
use crate::experiment::Experiment;
use crate::files::expand_home;
use crate::train::branch::{own_checkpoint, set_aside_after};
use crate::train::checkpoint::{newest, restore, saved_steps, MODEL};
use crate::train::log::Speed;
use crate::train::plan::{peak_flops, Plan};
use crate::train::run::{Ended, Event, Run, RunData};
use crate::train::start::{Start, WeightsConfig};
use crate::train::trainer::Trainer;

const HELP: &str = "\
Examples:
  vqdiffusion train configs/train_coco.yaml
  vqdiffusion train birds.yaml train.steps=20000 train.learning_rate.peak=1e-4
  vqdiffusion train birds.yaml --init-from coco.safetensors --resume auto

SIGTERM, SIGINT and SIGHUP let the step at hand finish, write a checkpoint and end with exit
code 3; a second one ends at once. Sample from a run with
  vqdiffusion sample --checkpoint FOLDER/best/model.safetensors \"...\"";

#[derive(Args)]
#[command(after_help = HELP)]
pub struct TrainArgs {
    #[command(flatten)]
    experiment: ExperimentArgs,

    /// Go on from a checkpoint folder of this run, or with `auto` from the newest whole
    /// one (from the start if there is none). Newer ones are set aside.
    #[arg(long, value_name = "auto|PATH")]
    resume: Option<String>,

    /// Start from this model's weights (weights.init_from).
    #[arg(long, value_name = "CHECKPOINT")]
    init_from: Option<PathBuf>,

    #[command(flatten)]
    compute: ComputeArgs,
}

pub fn run(args: &TrainArgs) -> CliResult {
    let wanted = &args.experiment;
    let mut experiment = Experiment::read(&wanted.config, &wanted.overrides)?;
    if let Some(path) = &args.init_from {
        experiment.weights.init_from = Some(path.clone());
    }
    let folder = experiment.train.folder.clone();
    let resumed = resume_from(args, &folder)?;
    if wanted.print_config && resumed.is_none() && experiment.model.is_some() {
        return print_config(&experiment);
    }
    // A checkpoint holds the frozen parts too.
    let weights = match &resumed {
        Some(path) => WeightsConfig {
            init_from: Some(path.join(MODEL)),
            ..WeightsConfig::default()
        },
        None => experiment.weights.clone(),
    };
    let start = Start::open(&weights, experiment.model.as_ref(), experiment.train.text)?;
    if wanted.print_config {
        experiment.model = Some(start.model().clone());
        return print_config(&experiment);
    }
    let device = args.compute.set_up()?;
    let config = &experiment.train;
    let model = start.model();
    config.preview.check(&model.denoiser.condition)?;
    // Also a check of the codec, which every checkpoint gets a copy of.
    let codec = start.codec(device)?;
    let source = DataSource::new(&experiment, model, start.checkpoint.tokenizer()?, codec)?;
    let train = source.open(&experiment.data.train, Split::Train)?;
    let validation = match &experiment.data.validation {
        Some(path) => Some(source.open(path, Split::Val)?),
        None => None,
    };
    let fixed = || {
        let samples = validation.as_ref().unwrap_or(&train);
        samples.fixed(config.validation.samples)
    };
    let data = RunData {
        validation: (config.validation.every > 0).then(fixed).transpose()?,
        train,
    };
    drop((source, validation)); // and with it the codec, if it is not needed any more
    let stop = stop_on_signals()?;
    let (trained, frozen) = start.sizes(config)?;
    let plan = Plan {
        config,
        model,
        device,
        trained,
        frozen,
        samples: data.train.len(),
    };
    eprintln!("{plan}");
    plan.check_memory()?;
    let (mut state, parts, frozen) = start.load(config, device)?;
    if let Some(path) = &resumed {
        restore(path, config, &mut state)?;
        eprintln!("continued    {} at step {}", path.display(), state.step);
        if let Some(aside) = set_aside_after(&folder, state.step)? {
            eprintln!(
                "set aside    the newer checkpoints of steps {:?}, with the log so far: {}",
                aside.steps,
                aside.folder.display()
            );
        }
    }
    let run = Run {
        config,
        model,
        frozen: &frozen,
        notice: start.checkpoint.notice.as_deref(),
        data: &data,
        speed: Speed {
            flops_per_image: plan.flops_per_image(),
            peak: peak_flops(device, config.precision),
        },
    };
    let mut progress = Progress::new(config.steps, "training", false);
    progress.start_at(state.step);
    let mut trainer = Trainer::new(config, model, parts, state, device);
    let ended = run.train(&mut trainer, &stop, &mut |event| {
        show(&mut progress, &event);
    });
    progress.finish();
    match ended? {
        Ended::Finished => Ok(ExitCode::SUCCESS),
        Ended::Stopped => {
            eprintln!(
                "stopped by a signal at step {}; --resume auto goes on",
                trainer.state.step
            );
            Ok(ExitCode::from(STOPPED))
        }
    }
}

/// The checkpoint folder to go on from.
fn resume_from(
    args: &TrainArgs,
    folder: &Path,
) -> Result<Option<PathBuf>, Box<dyn std::error::Error>> {
    match args.resume.as_deref() {
        Some("auto") => Ok(newest(folder)?.map(|saved| saved.path)),
        Some(path) => Ok(Some(own_checkpoint(
            folder,
            &expand_home(Path::new(path))?,
        )?)),
        None if args.experiment.print_config => Ok(None),
        None => match saved_steps(folder)?.last() {
            None => Ok(None),
            Some(saved) => Err(format!(
                "{} exists already; go on from it with --resume auto, or give another \
                 train.folder",
                saved.path.display()
            )
            .into()),
        },
    }
}

fn show(progress: &mut Progress, event: &Event) {
    match event {
        Event::Step { line: None, .. } => progress.step("training"),
        Event::Step {
            line: Some(line), ..
        } => progress.step(&format!(
            "loss {:.4}, {:.2} images/s, MFU {:.0} %",
            line.loss.unwrap_or(f64::NAN),
            line.images_per_second,
            100.0 * line.model_flops_utilization
        )),
        Event::Validated { step, bound } => progress.note(&format!(
            "step {step}: validation {:.5} nats per token",
            bound.nats_per_token
        )),
        Event::Saved(saved) => progress.note(&format!("wrote {}", saved.path.display())),
    }
}
