//! `vqdiffusion train-codec`: pictures to an image codec.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::compute::ComputeArgs;
use super::experiment_args::{print_config, ExperimentArgs};
use super::launch::{join, LaunchArgs};
use super::progress::{say, ProgressDisplay};
use super::signals::{stop_on_signals, STOPPED};
use super::CliResult;
use crate::experiment::codec::CodecExperiment;
use crate::ranks::Ranks;
use crate::train::codec::session::{open, CodecTraining};
use crate::train::codec::{CodecLine, MODEL};
use crate::train::engine::{Ended, Event, Resume};

const HELP: &str = "\
Examples:
  vqdiffusion train-codec configs/emoji_codec.yaml
  vqdiffusion train-codec codec.yaml train.steps=5000 --init-from codec.safetensors
  vqdiffusion tokenize pets/ --checkpoint runs/codec/codec.safetensors --out pets.tokens

SIGTERM, SIGINT and SIGHUP let the step at hand finish, write a checkpoint and end with exit
code 3; a second one ends at once.";

#[derive(Args)]
#[command(after_help = HELP)]
pub struct TrainCodecArgs {
    #[command(flatten)]
    experiment: ExperimentArgs,

    /// Go on from the newest whole checkpoint of this run, or with a path from that checkpoint
    /// folder. Newer ones are set aside.
    #[arg(
        long,
        value_name = "auto|PATH",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "auto"
    )]
    resume: Option<Resume>,

    /// Start from this codec's weights and codebook, or from those of a model's codec.
    #[arg(long, value_name = "CHECKPOINT")]
    init_from: Option<PathBuf>,

    #[command(flatten)]
    launch: LaunchArgs,

    #[command(flatten)]
    compute: ComputeArgs,
}

pub fn run(args: &TrainCodecArgs) -> CliResult {
    let mut overrides = args.experiment.overrides.clone();
    let mut resume = args.resume.clone().unwrap_or_default();
    // `--resume PATH`, as `train` has it: a word that is no setting.
    if resume == Resume::Auto {
        if let Some(n) = overrides.iter().position(|word| !word.contains('=')) {
            resume = overrides.remove(n).parse()?;
        }
    }
    let experiment = CodecExperiment::read(&args.experiment.config, &overrides)?;
    if args.experiment.print_config {
        return print_config(&experiment);
    }
    if let Some(code) = args.launch.run()? {
        return Ok(code);
    }
    let ranks = join()?;
    let device = args.compute.set_up()?;
    if ranks.is_restart()? {
        resume = resume.again(&experiment.train.folder, MODEL)?;
    }
    let CodecExperiment { codec, data, train } = &experiment;
    // Of several processes one speaks.
    let speaks = ranks.is_first();
    let stop = stop_on_signals()?;
    let init_from = args.init_from.as_deref();
    let CodecTraining {
        mut run,
        resumed,
        set_aside,
        plan,
    } = open(codec, data, train, init_from, &resume, device, ranks)?;
    if speaks {
        run.folder.record(&serde_yaml::to_string(&experiment)?)?;
        say(format_args!("{plan}"));
    }
    if let Some(path) = resumed.filter(|_| speaks) {
        say(format_args!(
            "continued {} at step {}",
            path.display(),
            run.state.step
        ));
    }
    if let Some(aside) = set_aside {
        say(format_args!("set aside {aside}"));
    }
    let mut progress = ProgressDisplay::new(train.steps, "training the codec", !speaks);
    progress.start_at(run.state.step);
    let ended = run.train(&stop, &mut |event| {
        if speaks {
            show(&mut progress, &event);
        }
    });
    progress.finish();
    // A run that failed says what this process could not read.
    let skipped = match &ended {
        Ok(_) => run.task.skipped(run.ranks())?,
        Err(_) => run.task.skipped(&Ranks::alone())?,
    };
    if !speaks {
        return Ok(match ended? {
            Ended::Finished => ExitCode::SUCCESS,
            Ended::Stopped => ExitCode::from(STOPPED),
        });
    }
    if !skipped.is_empty() {
        say(format_args!(
            "{} pictures could not be read:",
            skipped.len()
        ));
        skipped
            .iter()
            .for_each(|skipped| say(format_args!("  {skipped}")));
    }
    let ended = ended?;
    let codec = train.folder.join(MODEL);
    if codec.exists() {
        // A reader that went away changes nothing of what the run came to.
        let _ = writeln!(std::io::stdout(), "wrote {}", codec.display());
    }
    Ok(match ended {
        Ended::Finished => ExitCode::SUCCESS,
        Ended::Stopped => {
            say(format_args!(
                "stopped by a signal at step {}; --resume goes on",
                run.state.step
            ));
            ExitCode::from(STOPPED)
        }
    })
}

fn show(progress: &mut ProgressDisplay, event: &Event<CodecLine>) {
    match event {
        Event::Step { step, line } => {
            if let Some(line) = line {
                progress.note(&format!(
                    "step {step}: reconstruction {:.4}, commitment {:.4}, codes {:.0} %, \
                     perplexity {:.0}, {:.1} img/s",
                    line.reconstruction,
                    line.commitment,
                    100.0 * line.codes_used,
                    line.perplexity,
                    line.images_per_second,
                ));
            }
            progress.reach(*step);
        }
        Event::Validated { step, value } => {
            progress.note(&format!("step {step}: PSNR {value:.2} dB"));
        }
        Event::Saved(saved) => progress.note(&format!("wrote {}", saved.path.display())),
    }
}
