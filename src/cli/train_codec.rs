//! `vqdiffusion train-codec`: pictures to an image codec.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::compute::ComputeArgs;
use super::experiment_args::{print_config, ExperimentArgs};
use super::progress::Progress;
use super::signals::{stop_on_signals, STOPPED};
use super::CliResult;
use crate::checkpoint::{CodecFile, OpenOptions};
use crate::data::dataset::Epoch;
use crate::data::pictures::first_readable;
use crate::data::{DataError, Dataset, PictureLoader, Rows, Split, Transform};
use crate::experiment::codec::{CodecExperiment, PictureConfig};
use crate::train::codec::checkpoint::{restore, MODEL};
use crate::train::codec::run::{holds_run, run as train, Ended};
use crate::train::codec::start::from_file;
use crate::train::codec::{CodecTrainer, Trained};

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

    /// Go on from the checkpoint in the run's folder.
    #[arg(long)]
    resume: bool,

    /// Start from this codec's weights and codebook, or from those of a model's codec.
    #[arg(long, value_name = "CHECKPOINT", conflicts_with = "resume")]
    init_from: Option<PathBuf>,

    #[command(flatten)]
    compute: ComputeArgs,
}

pub fn run(args: &TrainCodecArgs) -> CliResult {
    let experiment = CodecExperiment::read(&args.experiment.config, &args.experiment.overrides)?;
    if args.experiment.print_config {
        return print_config(&experiment);
    }
    let config = &experiment.train;
    let folder = &config.folder;
    match (holds_run(folder), args.resume) {
        (true, false) => {
            let path = folder.display();
            return Err(format!("{path}: holds a run; --resume it or give another folder").into());
        }
        (false, true) => {
            let path = folder.display();
            return Err(format!("{path}: holds no run to resume").into());
        }
        _ => {}
    }
    if config.trained == Trained::Decoder && args.init_from.is_none() && !args.resume {
        return Err("train.trained is decoder: name the codec with --init-from".into());
    }
    let start = config.codebook.start;
    if args.init_from.is_none() && !args.resume && start >= config.steps {
        let steps = config.steps;
        return Err(format!(
            "train.codebook.start is {start}, expected below train.steps ({steps}): the \
             codebook would never start"
        )
        .into());
    }
    let device = args.compute.set_up()?;
    let data = Arc::new(pictures(&experiment)?);
    let validation = match &experiment.data.validation {
        Some(path) => {
            let dataset = open(path, Split::Val, false)?;
            let size = experiment.codec.resolution as u32;
            first_readable(&dataset, size, config.validation_pictures)?
                .into_iter()
                .map(|(_, picture)| picture)
                .collect()
        }
        None => Vec::new(),
    };
    tch::manual_seed(config.seed as i64);
    let mut trainer = match &args.init_from {
        None => CodecTrainer::drawn(&experiment.codec, config, device),
        Some(path) => {
            let file = CodecFile::open(path, &OpenOptions::default())?;
            from_file(&file, &experiment.codec, config, device)?
        }
    };
    if args.resume {
        restore(folder, &mut trainer)?;
    }
    eprintln!(
        "codec: {} trained weights, {} entries of width {}, {} pictures, {} for validation, {} steps of {}",
        trainer.trained_values(),
        experiment.codec.codebook,
        experiment.codec.embedding_width,
        data.len(),
        validation.len(),
        config.steps,
        config.batch_size,
    );
    let mut progress = Progress::new(config.steps, "codec", false);
    progress.start_at(trainer.step);
    let stop = stop_on_signals()?;
    let ended = train(
        &mut trainer,
        config,
        data.clone(),
        &validation,
        &stop,
        &mut |step, line| {
            if let Some(line) = line {
                let psnr = line
                    .psnr
                    .map_or(String::new(), |psnr| format!(", PSNR {psnr:.2} dB"));
                progress.note(&format!(
                    "step {step}: reconstruction {:.4}, commitment {:.4}, codes {:.0} %, \
                 perplexity {:.0}, {:.1} img/s{psnr}",
                    line.reconstruction,
                    line.commitment,
                    100.0 * line.codes_used,
                    line.perplexity,
                    line.images_per_second,
                ));
            }
            progress.reach(step);
        },
    )?;
    progress.finish();
    let skipped = data.skipped();
    if !skipped.is_empty() {
        eprintln!("{} pictures could not be read:", skipped.len());
        skipped.iter().for_each(|skipped| eprintln!("  {skipped}"));
    }
    writeln!(std::io::stdout(), "wrote {}", folder.join(MODEL).display())?;
    Ok(match ended {
        Ended::Finished => ExitCode::SUCCESS,
        Ended::Stopped => {
            eprintln!(
                "stopped by a signal at step {}; --resume goes on",
                trainer.step
            );
            ExitCode::from(STOPPED)
        }
    })
}

fn pictures(experiment: &CodecExperiment) -> Result<PictureLoader, DataError> {
    let PictureConfig {
        train,
        split,
        crop,
        flip,
        strict,
        ..
    } = &experiment.data;
    let dataset = open(train, *split, *strict)?;
    let rows = Rows::new(Epoch::Pictures, &dataset.items);
    let transform = Transform {
        size: experiment.codec.resolution as u32,
        crop: *crop,
        flip: *flip,
    };
    let seed = experiment.train.seed;
    PictureLoader::new(dataset, rows, transform, seed, *strict)
}

fn open(path: &Path, split: Split, strict: bool) -> Result<Dataset, DataError> {
    let dataset = Dataset::open(path, split, strict)?;
    for skipped in &dataset.skipped {
        log::warn!("skipped {skipped}");
    }
    Ok(dataset)
}
