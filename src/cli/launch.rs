//! Several processes of one command.

use std::error::Error;
use std::process::{Command, ExitCode};

use clap::Args;

use super::signals::{stop_on_signals, STOPPED};
use crate::train::engine::launch::launch;

const FLAG: &str = "--nproc-per-node";

#[derive(Args)]
pub struct LaunchArgs {
    /// Processes on this machine that divide the work among them, on the CPU; one thread
    /// each unless OMP_NUM_THREADS or --threads says otherwise. torchrun can start them too
    /// (`torchrun --no-python`).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    nproc_per_node: Option<u16>,
}

impl LaunchArgs {
    /// How many processes are asked for.
    pub fn processes(&self) -> usize {
        self.nproc_per_node.map_or(1, usize::from)
    }

    /// Where processes are asked for: runs this command line in each of them to the end, and
    /// returns what it came to. None in such a process, and where none are asked for.
    pub fn run(&self) -> Result<Option<ExitCode>, Box<dyn Error>> {
        let Some(count) = self.nproc_per_node else {
            return Ok(None);
        };
        let stop = stop_on_signals()?;
        let program = one_process()?;
        let again = || {
            let mut command = Command::new(program.get_program());
            command.args(program.get_args());
            command
        };
        let code = launch(again, count.into(), STOPPED, &stop)?;
        Ok(Some(ExitCode::from(code)))
    }
}

/// This command line without the number of processes, for each of them.
fn one_process() -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut words = std::env::args_os().skip(1);
    while let Some(word) = words.next() {
        if word == FLAG {
            words.next();
        } else if !word.to_string_lossy().starts_with(&format!("{FLAG}=")) {
            command.arg(word);
        }
    }
    Ok(command)
}
