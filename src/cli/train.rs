//! `vqdiffusion train`: an experiment to checkpoints.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::compute::ComputeArgs;
use super::experiment_args::{print_config, ExperimentArgs};
use super::launch::{join, LaunchArgs};
use super::progress::{say, ProgressDisplay};
use super::signals::{stop_on_signals, STOPPED};
use super::CliResult;
use crate::experiment::Experiment;
use crate::train::diffusion::model::sizes;
use crate::train::diffusion::plan::DiffusionPlan;
use crate::train::diffusion::session::{open_start, DiffusionTraining, Session};
use crate::train::diffusion::{LogLine, MODEL};
use crate::train::engine::{Ended, Event, Resume, Share};

const HELP: &str = "\
Examples:
  vqdiffusion train configs/coco_from_cc.yaml
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
    resume: Option<Resume>,

    /// Start from this model's weights (weights.init_from).
    #[arg(long, value_name = "CHECKPOINT")]
    init_from: Option<PathBuf>,

    /// Print what the run would do and need, and end; only the experiment's file is read. With
    /// --nproc-per-node, of so many processes.
    #[arg(long, conflicts_with = "print_config")]
    print_plan: bool,

    #[command(flatten)]
    launch: LaunchArgs,

    #[command(flatten)]
    compute: ComputeArgs,
}

pub fn run(args: &TrainArgs) -> CliResult {
    let wanted = &args.experiment;
    let mut experiment = Experiment::read(&wanted.config, &wanted.overrides)?;
    if let Some(path) = &args.init_from {
        experiment.weights.init_from = Some(path.clone());
    }
    let mut resume = args.resume.clone().unwrap_or_default();
    if wanted.print_config || args.print_plan {
        return print(experiment, &resume, args);
    }
    if let Some(code) = args.launch.run()? {
        return Ok(code);
    }
    let ranks = join()?;
    let device = args.compute.set_up()?;
    if ranks.is_restart()? {
        resume = resume.again(&experiment.train.folder, MODEL)?;
    }
    let resumed = match &resume {
        Resume::No => None,
        resume => resume.checkpoint(&experiment.train.folder, MODEL)?,
    };
    if resumed.is_none() {
        experiment.complete()?;
    }
    let Experiment {
        model,
        weights,
        data,
        train,
    } = &experiment;
    // Of several processes one speaks.
    let speaks = ranks.is_first();
    let session = Session::open(model.as_ref(), weights, data, train, &resume, device, ranks)?;
    let stop = stop_on_signals()?;
    if speaks {
        say(format_args!("{}", session.plan()));
    }
    let steps = session.steps();
    let whole = Experiment {
        model: Some(session.plan().model.clone()),
        ..experiment.clone()
    };
    let DiffusionTraining {
        mut run,
        resumed,
        set_aside,
    } = session.load()?;
    if speaks {
        run.folder.record(&serde_yaml::to_string(&whole)?)?;
    }
    if let Some(path) = resumed.filter(|_| speaks) {
        say(format_args!(
            "continued    {} at step {}",
            path.display(),
            run.state.step
        ));
    }
    if let Some(aside) = set_aside {
        say(format_args!("set aside    {aside}"));
    }
    let mut progress = ProgressDisplay::new(steps, "training", !speaks);
    progress.start_at(run.state.step);
    let ended = run.train(&stop, &mut |event| {
        if speaks {
            show(&mut progress, &event);
        }
    });
    progress.finish();
    match ended? {
        Ended::Finished => Ok(ExitCode::SUCCESS),
        Ended::Stopped => {
            if speaks {
                say(format_args!(
                    "stopped by a signal at step {}; --resume auto goes on",
                    run.state.step
                ));
            }
            Ok(ExitCode::from(STOPPED))
        }
    }
}

/// What `--print-plan` and `--print-config` do.
fn print(mut experiment: Experiment, resume: &Resume, args: &TrainArgs) -> CliResult {
    let resumed = match resume {
        Resume::No => None,
        resume => resume.checkpoint(&experiment.train.folder, MODEL)?,
    };
    if resumed.is_none() {
        experiment.complete()?;
    }
    if args.print_plan {
        return print_plan(&experiment, resumed.as_deref(), args);
    }
    if resumed.is_some() || experiment.model.is_none() {
        let (model, weights) = (experiment.model.as_ref(), &experiment.weights);
        let text = experiment.train.text;
        let start = open_start(model, weights, text, resumed.as_deref())?;
        experiment.model = Some(start.model().clone());
    }
    print_config(&experiment)
}

/// What `--print-plan` does.
fn print_plan(experiment: &Experiment, resumed: Option<&Path>, args: &TrainArgs) -> CliResult {
    let config = &experiment.train;
    let of_file;
    let model = match (&experiment.model, resumed) {
        (Some(model), None) => model,
        (model, resumed) => {
            let weights = &experiment.weights;
            of_file = open_start(model.as_ref(), weights, config.text, resumed)?;
            of_file.model()
        }
    };
    let processes = args.launch.processes()?;
    let (trained, frozen) = sizes(model, config.text);
    let plan = DiffusionPlan {
        config,
        model,
        device: args.compute.named(),
        trained,
        frozen,
        samples: None,
        data: experiment.data.train.display().to_string(),
        processes,
        share: Share::of(&config.settings(), processes)?,
    };
    writeln!(std::io::stdout(), "{plan}")?;
    Ok(ExitCode::SUCCESS)
}

fn show(progress: &mut ProgressDisplay, event: &Event<LogLine>) {
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
        Event::Validated { step, value } => progress.note(&format!(
            "step {step}: validation {value:.5} nats per token"
        )),
        Event::Saved(saved) => progress.note(&format!("wrote {}", saved.path.display())),
    }
}
