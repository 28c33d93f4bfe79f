//! The place of this process among those of a run, as launchers tell it in the environment.

use std::fmt;

use super::slurm;
use super::RanksError;

/// torchrun's default port.
pub const DEFAULT_PORT: u16 = 29500;
/// More processes than any run has.
const MOST: usize = 1 << 16;
/// What our own launcher calls its runs.
pub(super) const OWN_RUN: &str = "vqdiffusion";

/// Who started the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// `--nproc-per-node`.
    Own,
    /// PyTorch's.
    Torchrun,
    /// Whoever set `RANK` and `WORLD_SIZE`, such as Kubeflow's PyTorchJob.
    Variables,
    Slurm,
    OpenMpi,
    /// MPICH, Intel MPI and others that speak PMI.
    Pmi,
    Mvapich,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Launcher::Own => "vqdiffusion",
            Launcher::Torchrun => "torchrun",
            Launcher::Variables => "RANK and WORLD_SIZE in the environment",
            Launcher::Slurm => "srun (SLURM_PROCID, SLURM_NTASKS)",
            Launcher::OpenMpi => "mpirun of Open MPI (OMPI_COMM_WORLD_RANK)",
            Launcher::Pmi => "mpirun with PMI (PMI_RANK)",
            Launcher::Mvapich => "mpirun of MVAPICH (MV2_COMM_WORLD_RANK)",
        })
    }
}

/// One process of several: which one, and where they meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub launcher: Launcher,
    /// Below `count`.
    pub rank: usize,
    pub count: usize,
    /// The process's number on its machine.
    pub local_rank: usize,
    /// The number of its machine; unknown to some launchers.
    pub node: usize,
    /// Where the store is.
    pub host: String,
    pub port: u16,
    /// Whether the launcher holds the store; rank 0 does otherwise.
    pub held: bool,
    /// How often the launcher has started the processes before.
    pub attempt: u64,
}

/// An environment: the value of a variable that is set, and not empty.
pub(super) struct Environment<'a>(pub &'a dyn Fn(&str) -> Option<String>);

impl Environment<'_> {
    pub fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    /// A number in `range`.
    pub fn number(
        &self,
        name: &'static str,
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<Option<usize>, RanksError> {
        let Some(found) = self.text(name) else {
            return Ok(None);
        };
        match found.trim().parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(RanksError::Variable {
                name,
                found,
                expected: format!("a number from {} to {}", range.start(), range.end()),
            }),
        }
    }

    fn count(&self, name: &'static str) -> Result<Option<usize>, RanksError> {
        self.number(name, 1..=MOST)
    }

    /// The number of a process among `count`, which `of` says.
    fn rank(
        &self,
        name: &'static str,
        count: usize,
        of: &str,
    ) -> Result<Option<usize>, RanksError> {
        let rank = self.number(name, 0..=MOST)?;
        match rank {
            Some(rank) if rank >= count => Err(RanksError::Variable {
                name,
                found: rank.to_string(),
                expected: format!("a number below {of}, which is {count}"),
            }),
            rank => Ok(rank),
        }
    }

    pub fn port(&self, name: &'static str) -> Result<Option<u16>, RanksError> {
        let port = self.number(name, 1..=usize::from(u16::MAX))?;
        Ok(port.and_then(|port| u16::try_from(port).ok()))
    }
}

/// The variables of an MPI launcher.
struct Mpi {
    launcher: Launcher,
    rank: &'static str,
    count: &'static str,
    local_rank: &'static str,
}

const MPI: [Mpi; 3] = [
    Mpi {
        launcher: Launcher::OpenMpi,
        rank: "OMPI_COMM_WORLD_RANK",
        count: "OMPI_COMM_WORLD_SIZE",
        local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
    },
    Mpi {
        launcher: Launcher::Pmi,
        rank: "PMI_RANK",
        count: "PMI_SIZE",
        local_rank: "MPI_LOCALRANKID",
    },
    Mpi {
        launcher: Launcher::Mvapich,
        rank: "MV2_COMM_WORLD_RANK",
        count: "MV2_COMM_WORLD_SIZE",
        local_rank: "MV2_COMM_WORLD_LOCAL_RANK",
    },
];

impl Place {
    /// The place that this process's environment tells; none if it works alone.
    ///
    /// # Errors
    ///
    /// Variables that make no sense, or are missing.
    pub fn from_environment() -> Result<Option<Self>, RanksError> {
        Self::find(&|name| std::env::var(name).ok())
    }

    /// As [`from_environment`](Self::from_environment), in an environment given as a function.
    /// `RANK` and `WORLD_SIZE` come first, then SLURM's variables, then MPI's.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn find(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, RanksError> {
        let env = Environment(variable);
        if env.text("RANK").is_some() && env.text("WORLD_SIZE").is_some() {
            return Self::of_torch(&env);
        }
        if let Some(place) = Self::of_slurm(&env)? {
            return Ok(Some(place));
        }
        for mpi in &MPI {
            if let Some(place) = Self::of_mpi(&env, mpi)? {
                return Ok(Some(place));
            }
        }
        if env.text("RANK").is_some() {
            return Err(RanksError::Missing {
                name: "WORLD_SIZE",
                with: "RANK",
                what: "the number of processes",
            });
        }
        if env.count("WORLD_SIZE")?.is_some_and(|count| count > 1) {
            return Err(RanksError::Missing {
                name: "RANK",
                with: "WORLD_SIZE",
                what: "this process's number",
            });
        }
        Ok(None)
    }

    /// torchrun's contract. `LOCAL_RANK` may be missing, as in a PyTorchJob's pods.
    fn of_torch(env: &Environment) -> Result<Option<Self>, RanksError> {
        let (Some(count), with) = (env.count("WORLD_SIZE")?, "WORLD_SIZE") else {
            return Ok(None);
        };
        let rank = env.rank("RANK", count, with)?.unwrap_or(0);
        let local_count = env.count("LOCAL_WORLD_SIZE")?.unwrap_or(MOST);
        let local_rank = env.rank("LOCAL_RANK", local_count, "LOCAL_WORLD_SIZE")?;
        if count == 1 {
            return Ok(None);
        }
        let what = "where the processes meet: the host of rank 0, or of the launcher";
        let launcher = match env.text("TORCHELASTIC_RUN_ID") {
            Some(run) if run == OWN_RUN => Launcher::Own,
            Some(_) => Launcher::Torchrun,
            None => Launcher::Variables,
        };
        Ok(Some(Place {
            launcher,
            rank,
            count,
            local_rank: local_rank.unwrap_or(0),
            node: env.number("GROUP_RANK", 0..=MOST)?.unwrap_or(0),
            host: env.text("MASTER_ADDR").ok_or(RanksError::Missing {
                name: "MASTER_ADDR",
                with,
                what,
            })?,
            port: env.port("MASTER_PORT")?.ok_or(RanksError::Missing {
                name: "MASTER_PORT",
                with,
                what: "the port of the processes' store",
            })?,
            held: env.text("TORCHELASTIC_USE_AGENT_STORE").as_deref() == Some("True"),
            attempt: env
                .number("TORCHELASTIC_RESTART_COUNT", 0..=MOST)?
                .unwrap_or(0) as u64,
        }))
    }

    /// A task of `srun`.
    fn of_slurm(env: &Environment) -> Result<Option<Self>, RanksError> {
        let job = env.text("SLURM_JOB_NAME");
        if matches!(job.as_deref(), Some("bash" | "interactive")) {
            return Ok(None);
        }
        if env.text("SLURM_PROCID").is_none() {
            return Ok(None);
        }
        let (Some(count), of) = (env.count("SLURM_NTASKS")?, "SLURM_NTASKS") else {
            return Ok(None);
        };
        let rank = env.rank("SLURM_PROCID", count, of)?.unwrap_or(0);
        // mpirun in an allocation: its processes inherit the variables of the batch script.
        let of_mpirun = MPI.iter().any(|mpi| {
            let (own, all) = (env.text(mpi.rank), env.text(mpi.count));
            let other = |value: Option<String>, slurm: usize| {
                value.is_some_and(|value| value.parse() != Ok(slurm))
            };
            other(own, rank) || other(all, count)
        });
        if count == 1 || of_mpirun {
            return Ok(None);
        }
        Ok(Some(Place {
            launcher: Launcher::Slurm,
            rank,
            count,
            local_rank: env.number("SLURM_LOCALID", 0..=MOST)?.unwrap_or(0),
            node: env.number("SLURM_NODEID", 0..=MOST)?.unwrap_or(0),
            host: match env.text("MASTER_ADDR") {
                Some(host) => host,
                None => slurm::first_host(env)?.ok_or(RanksError::Missing {
                    name: "SLURM_NODELIST",
                    with: of,
                    what: "the list of the job's machines; MASTER_ADDR can name the first one",
                })?,
            },
            port: match env.port("MASTER_PORT")? {
                Some(port) => port,
                None => slurm::port(env)?,
            },
            held: false,
            attempt: 0,
        }))
    }

    fn of_mpi(env: &Environment, mpi: &Mpi) -> Result<Option<Self>, RanksError> {
        if env.text(mpi.rank).is_none() {
            return Ok(None);
        }
        let Some(count) = env.count(mpi.count)? else {
            return Ok(None);
        };
        let rank = env.rank(mpi.rank, count, mpi.count)?.unwrap_or(0);
        if count == 1 {
            return Ok(None);
        }
        let host = match env.text("MASTER_ADDR") {
            Some(host) => Some(host),
            None => slurm::first_host(env)?,
        };
        Ok(Some(Place {
            launcher: mpi.launcher,
            rank,
            count,
            local_rank: env.number(mpi.local_rank, 0..=MOST)?.unwrap_or(0),
            node: 0,
            host: host.ok_or(RanksError::Missing {
                name: "MASTER_ADDR",
                with: mpi.rank,
                what: "the host of rank 0 (mpirun -x MASTER_ADDR=HOST, or -genv)",
            })?,
            port: env.port("MASTER_PORT")?.unwrap_or(DEFAULT_PORT),
            held: false,
            attempt: 0,
        }))
    }

    /// Whether our own launcher started this process.
    pub fn is_own(variable: &dyn Fn(&str) -> Option<String>) -> bool {
        Environment(variable).text("TORCHELASTIC_RUN_ID").as_deref() == Some(OWN_RUN)
    }
}
