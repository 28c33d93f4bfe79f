//! The command line: one file a sub-command, each turning its arguments into a
//! validated plan and library calls.
//!
//! Exit codes: 0 success, 1 the answer is no (a verification failed), 2 an error, 3 a run
//! stopped by a signal (what it wrote holds everything so far).
//! A reader that stops reading (a broken pipe) is success.

mod arguments;
mod choices;
mod code_usage;
mod codec_run;
mod compute;
mod convert;
mod doctor;
mod evaluate;
mod experiment_args;
mod failure;
mod fields;
mod inspect;
mod launch;
mod model_source;
mod out_folder;
mod progress;
mod reconstruct;
mod sample;
mod sampler_args;
mod selection_args;
#[cfg(feature = "serve")]
mod serve;
mod signals;
mod token_cache;
mod tokenize;
mod train;
mod train_codec;
mod train_vocabulary;
mod words;

use std::error::Error;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use failure::ReportingAllocator;

use self::progress::say;
use self::words::in_words;
use crate::ranks;
use crate::torch::cuda::CudaLibrary;
use crate::torch::runtime;
use crate::torch::terminate::on_terminate;

/// Text-to-image generation with VQ-Diffusion.
#[derive(Parser)]
#[command(name = "vqdiffusion", version, about, propagate_version = true)]
#[command(after_help = "Set RUST_LOG=debug for more messages.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make pictures from text, of a class, or of anything the model knows.
    Sample(Box<sample::SampleArgs>),
    /// Serve a page and an API that make pictures, and show training runs.
    #[cfg(feature = "serve")]
    Serve(Box<serve::ServeArgs>),
    /// Send pictures through the image codec and back, and say how well they fare.
    Reconstruct(reconstruct::ReconstructArgs),
    /// Write the image tokens of pictures as JSON, or of a data set as a cache for training.
    Tokenize(Box<tokenize::TokenizeArgs>),
    /// Train the diffusion model.
    Train(Box<train::TrainArgs>),
    /// Say how often a token cache uses each code, and write the mapping to the used ones.
    CodeUsage(code_usage::CodeUsageArgs),
    /// Train an image codec on pictures.
    TrainCodec(train_codec::TrainCodecArgs),
    /// Learn the byte-pair vocabulary of captions, for a text tower of the model's own.
    TrainVocabulary(train_vocabulary::TrainVocabularyArgs),
    /// Measure a model, or pictures of any origin, against real pictures.
    Evaluate(evaluate::EvaluateArgs),
    /// Say what a model file is and what it lacks.
    Inspect(inspect::InspectArgs),
    /// Write a model in another layout: the own one, the official one, diffusers'.
    Convert(convert::ConvertArgs),
    /// Say which libtorch, devices and back ends are found, and what to do where one is missing.
    Doctor,
    /// Print shell completions.
    Completions {
        /// The shell to complete for.
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// What the command does, as in "while sampling", and how it takes less memory.
    fn told(&self) -> (&'static str, &'static str) {
        const BATCH: &str = "lower --batch-size";
        match self {
            Command::Sample(_) => ("preparing to sample", BATCH),
            #[cfg(feature = "serve")]
            Command::Serve(_) => ("preparing to serve", BATCH),
            Command::Reconstruct(_) => ("sending pictures through the codec", ""),
            Command::Tokenize(_) => ("preparing to tokenize", BATCH),
            Command::Train(_) => (
                "preparing to train",
                "lower train.batch_size (with more train.accumulation), or set \
                 train.activation_checkpointing=true",
            ),
            Command::TrainCodec(_) => ("preparing to train", "lower train.batch_size"),
            Command::Evaluate(_) => ("preparing to evaluate", BATCH),
            Command::CodeUsage(_) => ("counting codes", ""),
            Command::TrainVocabulary(_) => ("learning a vocabulary", ""),
            Command::Inspect(_) => ("reading the file", ""),
            Command::Convert(_) => ("converting", ""),
            Command::Doctor | Command::Completions { .. } => ("looking around", ""),
        }
    }
}

/// An error for the user: what happened, and its causes.
type CliResult = Result<ExitCode, Box<dyn Error>>;

/// The commands and their arguments.
pub fn command_line() -> clap::Command {
    arguments::prepared(Cli::command())
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    std::panic::set_hook(Box::new(failure::remember));
    on_terminate(failure::on_terminate);
    let cuda = runtime::start();
    let matches = command_line().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    log_to_stderr(&cli.command);
    if let CudaLibrary::Failed { path, reason } = cuda {
        log::warn!("{} could not be loaded: {reason}", path.display());
    }
    let (work, remedy) = cli.command.told();
    failure::command(work, remedy);
    let named = match cli.command {
        Command::Train(_) | Command::TrainCodec(_) => fields::as_keys,
        _ => fields::as_options,
    };
    match std::panic::catch_unwind(|| dispatch(cli.command, cuda)) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) if failure::is_broken_pipe(error.as_ref()) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            report(error.as_ref(), named);
            ExitCode::from(2)
        }
        Err(panic) => {
            fail(&failure::of_panic(panic.as_ref()));
            ExitCode::from(2)
        }
    }
}

/// Messages of the library go to standard error.
fn log_to_stderr(#[cfg_attr(not(feature = "serve"), allow(unused))] command: &Command) {
    let mut logger =
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"));
    logger.format_target(false).format_timestamp(None);
    #[cfg(feature = "serve")]
    if matches!(command, Command::Serve(_)) {
        // It quotes prompts, which are none of the server's business.
        logger.filter_module("vqdiffusion::pipeline::conditioner", log::LevelFilter::Off);
    }
    logger.init();
}

/// Prints the error that the command ends with; one of several processes tells the others.
fn fail(message: &str) {
    if let Some(message) = ranks::fail(message) {
        say(format_args!("error: {message}"));
    }
}

/// Prints `error` and its causes, each once, with the fields that they name as `named`.
fn report(error: &(dyn Error + 'static), named: fn(&str) -> String) {
    let plain = |error: &dyn Error| named(&in_words(&failure::plain(&error.to_string())));
    let mut said = plain(error);
    // Files are named by their errors.
    if error.is::<std::io::Error>() {
        said = format!("standard output: {said}");
    }
    let mut lines = said.clone();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = plain(inner);
        if !said.contains(&text) {
            lines += &format!("\n  caused by: {text}");
        }
        (said, cause) = (text, inner.source());
    }
    fail(&lines);
}

fn dispatch(command: Command, cuda: &CudaLibrary) -> CliResult {
    match command {
        Command::Sample(args) => sample::run(&args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(&args),
        Command::Reconstruct(args) => reconstruct::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Train(args) => train::run(&args),
        Command::CodeUsage(args) => code_usage::run(&args),
        Command::TrainCodec(args) => train_codec::run(&args),
        Command::TrainVocabulary(args) => train_vocabulary::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Doctor => doctor::run(cuda),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            let mut command = arguments::prepared(Cli::command());
            clap_complete::generate(shell, &mut command, "vqdiffusion", &mut script);
            std::io::Write::write_all(&mut std::io::stdout(), &script)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
