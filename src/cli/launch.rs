//! Several processes of one command.

use std::error::Error;
use std::num::NonZero;
use std::process::{Command, ExitCode};
use std::str::FromStr;
use std::sync::atomic::Ordering;

use clap::Args;

use super::progress::say;
use super::signals::{count_signals, STOPPED};
use crate::ranks::launch::{launch, LaunchPlan};
use crate::ranks::place::{Launcher, Place, DEFAULT_PORT};
use crate::ranks::{Ranks, RanksError};

/// More processes or machines than any run has.
const MOST: usize = 1024;

/// Processes on one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Processes {
    /// As many as there are GPUs, or else CPU cores.
    Auto,
    Gpu,
    Cpu,
    Some(usize),
}

impl FromStr for Processes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Processes::Auto),
            "gpu" => Ok(Processes::Gpu),
            "cpu" => Ok(Processes::Cpu),
            text => match text.parse() {
                Ok(count) if (1..=MOST).contains(&count) => Ok(Processes::Some(count)),
                _ => Err(format!("expected 1 to {MOST}, auto, gpu or cpu")),
            },
        }
    }
}

impl Processes {
    fn count(self) -> Result<usize, RanksError> {
        let gpus = || usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
        let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
        Ok(match self {
            Processes::Some(count) => count,
            Processes::Cpu => cores(),
            Processes::Auto => match gpus() {
                0 => cores(),
                gpus => gpus,
            },
            Processes::Gpu => match gpus() {
                0 => {
                    return Err(RanksError::Variable {
                        name: "--nproc-per-node",
                        found: "gpu".into(),
                        expected: "a machine with visible CUDA devices".into(),
                    })
                }
                gpus => gpus,
            },
        })
    }
}

#[derive(Args)]
#[command(next_help_heading = "Several processes")]
pub struct LaunchArgs {
    /// Processes on this machine that divide the work: a number, or `auto`: one for each GPU,
    /// or else CPU core. On CPUs each has one thread unless OMP_NUM_THREADS or --threads says
    /// otherwise. torchrun, srun and mpirun can start processes too [default: 1, or
    /// PET_NPROC_PER_NODE].
    #[arg(long, value_name = "N|auto")]
    nproc_per_node: Option<Processes>,

    /// Machines; this command runs on each [default: 1, or PET_NNODES].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    nnodes: Option<u16>,

    /// This machine's number, from 0 [default: PET_NODE_RANK].
    #[arg(long, value_name = "N")]
    node_rank: Option<u16>,

    /// Name or address of machine 0 [default: PET_MASTER_ADDR].
    #[arg(long, value_name = "HOST")]
    master_addr: Option<String>,

    /// Port on machine 0 where the processes meet [default: PET_MASTER_PORT, else 29500 on
    /// several machines and a free one on one].
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    master_port: Option<u16>,

    /// How often the processes are started anew, from the last checkpoint, when one fails
    /// [default: 0, or PET_MAX_RESTARTS].
    #[arg(long, value_name = "N")]
    max_restarts: Option<u16>,
}

/// This process among those that its launcher started. The first one says who started them and
/// which are waited for.
pub fn join() -> Result<Ranks, RanksError> {
    let Some(place) = Place::from_environment()? else {
        return Ok(Ranks::alone());
    };
    if place.rank == 0 {
        let others = match place.count {
            2 => "rank 1".to_string(),
            count => format!("ranks 1 to {}", count - 1),
        };
        say(format_args!(
            "launcher     {}: rank 0 of {}, waits for {others} at {}:{}",
            place.launcher, place.count, place.host, place.port
        ));
    }
    Ranks::join(&place)
}

impl LaunchArgs {
    /// How many processes are asked for, on all machines together if each has as many.
    pub fn processes(&self) -> Result<usize, RanksError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let here = match self.nproc_per_node {
            Some(processes) => processes,
            None => parsed(&variable, "PET_NPROC_PER_NODE")?.unwrap_or(Processes::Some(1)),
        };
        let nodes = match self.nnodes {
            Some(nodes) => nodes,
            None => number(&variable, "PET_NNODES", 1, MOST as u16)?.unwrap_or(1),
        };
        Ok(here.count()? * usize::from(nodes))
    }

    /// Where processes are asked for: runs this command line in each of them to the end, and
    /// returns what it came to. None in such a process, and where none are asked for.
    pub fn run(&self) -> Result<Option<ExitCode>, Box<dyn Error>> {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let Some(plan) = self.plan(&variable)? else {
            return Ok(None);
        };
        let signals = count_signals()?;
        let program = std::env::current_exe()?;
        let again = || {
            let mut command = Command::new(&program);
            command.args(std::env::args_os().skip(1));
            command
        };
        let code = launch(&again, &plan, &|| signals.load(Ordering::Relaxed))?;
        Ok(Some(ExitCode::from(code)))
    }

    /// What is to be launched; none in a process of a launcher.
    fn plan(
        &self,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<LaunchPlan>, RanksError> {
        if Place::is_own(variable) {
            return Ok(None);
        }
        if !self.is_given() && !is_asked_by_variables(variable)? {
            return Ok(None);
        }
        let processes = match self.nproc_per_node {
            Some(processes) => processes,
            None => parsed(variable, "PET_NPROC_PER_NODE")?.unwrap_or(Processes::Some(1)),
        };
        let nodes = match self.nnodes {
            Some(nodes) => nodes,
            None => number(variable, "PET_NNODES", 1, MOST as u16)?.unwrap_or(1),
        };
        let node = match self.node_rank {
            Some(node) => Some(node),
            None => number(variable, "PET_NODE_RANK", 0, MOST as u16)?,
        };
        let port = match self.master_port {
            Some(port) => Some(port),
            None => number(variable, "PET_MASTER_PORT", 1, u16::MAX)?,
        };
        let host = self.master_addr.clone();
        let mut plan = LaunchPlan {
            nodes: nodes.into(),
            node: 0,
            processes: processes.count()?,
            host: host.or_else(|| variable("PET_MASTER_ADDR")),
            port,
            max_restarts: match self.max_restarts {
                Some(restarts) => restarts.into(),
                None => number(variable, "PET_MAX_RESTARTS", 0, u16::MAX)?
                    .unwrap_or(0)
                    .into(),
            },
            stopped: STOPPED,
        };
        if nodes == 1 {
            // The store is here, whatever name the machine has elsewhere.
            plan.host = None;
            return match node {
                None | Some(0) => Ok(Some(plan)),
                Some(node) => Err(of_nodes(node, nodes)),
            };
        }
        let missing = |name, what| RanksError::Missing {
            name,
            with: "--nnodes",
            what,
        };
        let node = node.ok_or_else(|| missing("--node-rank", "this machine's number, from 0"))?;
        if node >= nodes {
            return Err(of_nodes(node, nodes));
        }
        plan.node = node.into();
        plan.port = Some(port.unwrap_or(DEFAULT_PORT));
        if plan.host.is_none() {
            return Err(missing("--master-addr", "where machine 0 is found"));
        }
        Ok(Some(plan))
    }

    fn is_given(&self) -> bool {
        self.nproc_per_node.is_some()
            || self.nnodes.is_some()
            || self.node_rank.is_some()
            || self.master_addr.is_some()
            || self.master_port.is_some()
            || self.max_restarts.is_some()
    }
}

fn of_nodes(node: u16, nodes: u16) -> RanksError {
    RanksError::Variable {
        name: "--node-rank (PET_NODE_RANK)",
        found: node.to_string(),
        expected: format!("a number below --nnodes (PET_NNODES), which is {nodes}"),
    }
}

/// Whether `PET_NPROC_PER_NODE` or `PET_NNODES` asks for a launcher, as Kubeflow sets them. In a
/// pod that has a rank already they do for several processes a pod only.
fn is_asked_by_variables(variable: &dyn Fn(&str) -> Option<String>) -> Result<bool, RanksError> {
    let processes: Option<Processes> = parsed(variable, "PET_NPROC_PER_NODE")?;
    match Place::find(variable)? {
        None => Ok(processes.is_some() || variable("PET_NNODES").is_some()),
        Some(place) if place.launcher == Launcher::Variables => {
            let one = [None, Some(Processes::Some(1))].contains(&processes);
            Ok(!one && variable("LOCAL_RANK").is_none())
        }
        Some(_) => Ok(false),
    }
}

fn parsed<T: FromStr<Err = String>>(
    variable: &dyn Fn(&str) -> Option<String>,
    name: &'static str,
) -> Result<Option<T>, RanksError> {
    let Some(found) = variable(name) else {
        return Ok(None);
    };
    match found.parse() {
        Ok(value) => Ok(Some(value)),
        Err(problem) => Err(RanksError::Variable {
            name,
            found,
            expected: problem.trim_start_matches("expected ").to_string(),
        }),
    }
}

fn number(
    variable: &dyn Fn(&str) -> Option<String>,
    name: &'static str,
    least: u16,
    most: u16,
) -> Result<Option<u16>, RanksError> {
    let Some(found) = variable(name) else {
        return Ok(None);
    };
    match found.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
        _ => Err(RanksError::Variable {
            name,
            found,
            expected: format!("a number from {least} to {most}"),
        }),
    }
}
