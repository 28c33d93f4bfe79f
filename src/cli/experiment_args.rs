//! Arguments that say which experiment to train.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::CliResult;

#[derive(Args)]
pub struct ExperimentArgs {
    /// The experiment (YAML), which may be based on others.
    #[arg(value_name = "CONFIG")]
    pub config: PathBuf,

    /// Settings that replace the file's: dotted keys with YAML values.
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,

    /// Print the experiment with its bases and every value filled in, and end.
    #[arg(long)]
    pub print_config: bool,
}

/// What `--print-config` does.
pub fn print_config(experiment: &impl Serialize) -> CliResult {
    write!(std::io::stdout(), "{}", serde_yaml::to_string(experiment)?)?;
    Ok(ExitCode::SUCCESS)
}
