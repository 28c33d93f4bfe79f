//! The command line: one file a sub-command, each turning its arguments into a
//! validated plan and library calls.
//!
//! Exit codes: 0 success, 1 the answer is no (a verification failed), 2 an error, 3 a run
//! stopped by a signal (what it wrote holds everything so far).
//! A reader that stops reading (a broken pipe) is success.

mod code_usage;
mod codec_run;
mod compute;
mod convert;
mod doctor;
mod evaluate;
mod experiment_args;
mod inspect;
mod model_source;
mod out_folder;
mod progress;
mod reconstruct;
mod sample;
mod sampler_args;
mod token_cache;
mod tokenize;
mod train;
mod train_codec;
mod train_data;
mod train_vocabulary;

use std::error::Error;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::guard::is_guarded;
use crate::torch::cuda::{self, CudaLibrary};

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

/// An error for the user: what happened, and its causes.
type CliResult = Result<ExitCode, Box<dyn Error>>;

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
        .format_target(false)
        .format_timestamp(None)
        .init();
    let cuda = cuda::load();
    let cli = Cli::parse();
    if let CudaLibrary::Failed { path, reason } = &cuda {
        log::warn!("{} could not be loaded: {reason}", path.display());
    }
    std::panic::set_hook(Box::new(report_panic));
    let outcome = std::panic::catch_unwind(|| dispatch(cli.command, &cuda));
    match outcome.unwrap_or_else(|_| Ok(ExitCode::from(2))) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut said = error.to_string();
            let mut cause = error.source();
            while let Some(inner) = cause {
                let text = inner.to_string();
                if !said.ends_with(&text) {
                    eprintln!("  caused by: {text}");
                }
                (said, cause) = (text, inner.source());
            }
            ExitCode::from(2)
        }
    }
}

fn dispatch(command: Command, cuda: &CudaLibrary) -> CliResult {
    match command {
        Command::Sample(args) => sample::run(&args),
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
            clap_complete::generate(shell, &mut Cli::command(), "vqdiffusion", &mut script);
            std::io::Write::write_all(&mut std::io::stdout(), &script)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The bindings panic where an operator of libtorch fails: mostly memory that runs
/// out. The first line says it; the C++ stack behind it helps only with RUST_BACKTRACE.
fn report_panic(panic: &std::panic::PanicHookInfo) {
    if is_guarded() {
        return;
    }
    let payload = panic.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown cause");
    if std::env::var_os("RUST_BACKTRACE").is_some_and(|wanted| wanted != "0") {
        eprintln!("{panic}\n{}", std::backtrace::Backtrace::force_capture());
    }
    let first = message.split("\nException raised").next();
    eprintln!("error: an operation failed: {}", first.unwrap_or(message));
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
