//! The launcher: the processes of one machine, of one or several machines that work together,
//! with torchrun's contract. Each process finds its place in the environment; the launcher of
//! the first machine holds the store that they meet in.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use super::arrival::wait_for_all;
use super::place::OWN_RUN;
use super::watch::{tell_for, Member, Watch};
use super::{lasting, meeting, RanksError, BEGUN, START};
use crate::files::FileError;
use crate::torch::c10d::{C10dError, Store};

/// Where launchers of several machines meet.
const AGENTS: &str = "agents";
/// How often the processes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the others may take to end when one has failed: they hear of it within a second.
const END_WITHIN: Duration = Duration::from_secs(8);
/// How long a process may be halted, which keeps the others waiting.
const HALTED_FOR: Duration = Duration::from_secs(5);

/// What is launched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchPlan {
    /// Machines.
    pub nodes: usize,
    /// This machine's number; the first one holds the store.
    pub node: usize,
    /// Processes on this machine.
    pub processes: usize,
    /// Where the first machine is found; this one if `None`.
    pub host: Option<String>,
    /// The store's port there; a free one if `None`, on one machine.
    pub port: Option<u16>,
    /// How often all are started anew when one has failed.
    pub max_restarts: u64,
    /// The exit code of a process that a signal stopped, which is no failure.
    pub stopped: u8,
}

/// How the processes of an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Finished,
    /// A signal stopped them.
    Stopped(u8),
    Failed(u8),
}

impl Outcome {
    /// Both together.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (failed @ Outcome::Failed(_), _) | (_, failed @ Outcome::Failed(_)) => failed,
            (stopped @ Outcome::Stopped(_), _) | (_, stopped @ Outcome::Stopped(_)) => stopped,
            _ => Outcome::Finished,
        }
    }

    fn code(self) -> u8 {
        match self {
            Outcome::Finished => 0,
            Outcome::Stopped(code) | Outcome::Failed(code) => code,
        }
    }
}

/// Runs the processes of this machine, each by `command`, until all have ended, here and on
/// the other machines. Returns the exit code: 0, that of processes which were stopped, or that
/// of one that failed. When one fails all others are ended, and started anew if the plan has
/// restarts left and the run had begun. `signals` counts the requests to stop: the first is
/// passed on, a second one ends all at once.
///
/// # Errors
///
/// Processes that cannot be started, no port for the store, and other machines that do not
/// come or are gone.
pub fn launch(
    command: &dyn Fn() -> Command,
    plan: &LaunchPlan,
    signals: &dyn Fn() -> usize,
) -> Result<u8, RanksError> {
    let agent = Agent::begin(plan)?;
    let mut attempt = 0;
    let code = loop {
        let outcome = agent.attempt(command, attempt, signals)?;
        let Outcome::Failed(code) = outcome else {
            break outcome.code();
        };
        let begun = agent.has_begun().map_err(RanksError::Operation)?;
        if attempt >= plan.max_restarts || signals() > 0 || !begun {
            break code;
        }
        attempt += 1;
        if plan.node == 0 {
            log::warn!(
                "all processes start anew from the last checkpoint (restart {attempt} of {})",
                plan.max_restarts
            );
        }
    };
    if let Some(watch) = &agent.watch {
        watch.leave();
    }
    Ok(code)
}

/// The launcher of one machine.
struct Agent<'a> {
    plan: &'a LaunchPlan,
    host: String,
    port: u16,
    store: Store,
    lasting: Store,
    /// The launchers of several machines watch each other.
    watch: Option<Watch>,
}

impl<'a> Agent<'a> {
    fn begin(plan: &'a LaunchPlan) -> Result<Self, RanksError> {
        let host = plan.host.clone().unwrap_or_else(|| "127.0.0.1".into());
        let wanted = plan.port.unwrap_or(0);
        let (store, port) = match plan.node {
            0 => Store::host(wanted, START).map_err(|source| RanksError::NoPort {
                port: wanted,
                source,
            })?,
            _ => {
                let store = Store::at(&host, wanted, false, START);
                let store = store.map_err(|source| RanksError::NoStore {
                    host: host.clone(),
                    port: wanted,
                    source,
                })?;
                (store, wanted)
            }
        };
        let lasting = lasting(&store).map_err(RanksError::Operation)?;
        let mut agent = Agent {
            plan,
            host,
            port,
            store,
            lasting,
            watch: None,
        };
        if plan.nodes > 1 {
            agent.watch = Some(agent.meet()?);
        }
        Ok(agent)
    }

    /// Waits for the other launchers, and begins to watch them.
    fn meet(&self) -> Result<Watch, RanksError> {
        let LaunchPlan { node, nodes, .. } = *self.plan;
        let own = || -> Result<_, C10dError> {
            let agents = self.lasting.below(AGENTS)?;
            let mark = format!("{} {}", std::process::id(), super::watch::now());
            let first = agents.set_first(&format!("node/{node}"), mark.as_bytes())?;
            Watch::announce(&agents, node)?;
            let count = self.plan.processes.to_string();
            agents.set(&format!("processes/{node}"), count.as_bytes())?;
            Ok((agents, first == mark.as_bytes()))
        };
        let (agents, alone) = own().map_err(RanksError::Operation)?;
        if !alone {
            return Err(RanksError::Twice(node));
        }
        wait_for_all(&agents, "node", node, nodes)?;
        let member = Member {
            what: "node",
            number: node,
            count: nodes,
            node,
            holder: "the launcher of node 0",
            holds_store: node == 0,
        };
        Watch::begin(&agents, member, None).map_err(RanksError::Operation)
    }

    /// Whether the run has got so far that a restart has something to go on with.
    fn has_begun(&self) -> Result<bool, C10dError> {
        Ok(self.lasting.try_get(BEGUN)?.is_some())
    }

    /// The number of the first process here, and that of all processes.
    fn numbers(&self) -> Result<(usize, usize), RanksError> {
        let LaunchPlan {
            nodes, processes, ..
        } = *self.plan;
        if nodes == 1 {
            return Ok((0, processes));
        }
        let (mut first, mut all) = (0, 0);
        for node in 0..nodes {
            let name = format!("{AGENTS}/processes/{node}");
            let bytes = self.lasting.get(&name).map_err(RanksError::Operation)?;
            let count = String::from_utf8_lossy(&bytes).parse().unwrap_or(0_usize);
            if node < self.plan.node {
                first += count;
            }
            all += count;
        }
        Ok((first, all))
    }

    /// Starts the processes and waits for their end, here and on the other machines.
    fn attempt(
        &self,
        command: &dyn Fn() -> Command,
        attempt: u64,
        signals: &dyn Fn() -> usize,
    ) -> Result<Outcome, RanksError> {
        let meeting = meeting(&self.store, attempt).map_err(RanksError::Operation)?;
        let (first, count) = self.numbers()?;
        let mut processes = Processes {
            running: Vec::new(),
            count,
            meeting,
            node: self.plan.node,
        };
        for local in 0..self.plan.processes {
            let rank = first + local;
            let mut command = command();
            self.place(&mut command, rank, local, count, attempt);
            let path = command.get_program().to_os_string();
            match command.spawn() {
                Ok(child) => processes.running.push(Process {
                    rank,
                    child,
                    halted: None,
                }),
                Err(error) => {
                    processes.end(Duration::ZERO);
                    return Err(FileError::reading(path.as_ref())(error).into());
                }
            }
        }
        let outcome = self.wait(&mut processes, signals)?;
        self.of_all(attempt, outcome)
    }

    /// Waits until the processes of this machine have ended.
    fn wait(
        &self,
        processes: &mut Processes,
        signals: &dyn Fn() -> usize,
    ) -> Result<Outcome, RanksError> {
        let mut passed_on = false;
        let mut outcome = Outcome::Finished;
        while !processes.running.is_empty() {
            std::thread::sleep(LOOK_EVERY);
            let asked = signals();
            if asked > 0 && !passed_on {
                passed_on = true;
                processes.signal(libc::SIGTERM);
            }
            if asked > 1 {
                processes.end(Duration::ZERO);
                return Ok(Outcome::Stopped(128 + libc::SIGTERM as u8));
            }
            if let Some(trouble) = self.watch.as_ref().and_then(Watch::trouble) {
                processes.end(END_WITHIN);
                return Err(trouble);
            }
            let ended = processes.look(self.plan.stopped, asked > 0);
            outcome = outcome.and(ended);
            if matches!(ended, Outcome::Failed(_)) {
                processes.end(END_WITHIN);
            }
        }
        Ok(outcome)
    }

    /// The outcome of the processes of all machines.
    fn of_all(&self, attempt: u64, own: Outcome) -> Result<Outcome, RanksError> {
        let Some(watch) = &self.watch else {
            return Ok(own);
        };
        let name = |node: usize| format!("{AGENTS}/{attempt}/ended/{node}");
        let say = self.lasting.set(&name(self.plan.node), &[own.code()]);
        say.map_err(|error| watch.why(error))?;
        let mut all = Outcome::Finished;
        for node in 0..self.plan.nodes {
            let code = loop {
                let found = self.lasting.try_get(&name(node));
                if let Some(code) = found.map_err(|error| watch.why(error))? {
                    break code.first().copied().unwrap_or(2);
                }
                if let Some(trouble) = watch.trouble() {
                    return Err(trouble);
                }
                std::thread::sleep(LOOK_EVERY);
            };
            all = all.and(match code {
                0 => Outcome::Finished,
                code if code == self.plan.stopped || code == 128 + libc::SIGTERM as u8 => {
                    Outcome::Stopped(code)
                }
                code => Outcome::Failed(code),
            });
        }
        Ok(all)
    }

    /// Tells the process its place.
    fn place(
        &self,
        command: &mut Command,
        rank: usize,
        local_rank: usize,
        count: usize,
        attempt: u64,
    ) {
        let LaunchPlan {
            nodes,
            node,
            processes,
            max_restarts,
            ..
        } = *self.plan;
        for (name, value) in [
            ("RANK", rank.to_string()),
            ("LOCAL_RANK", local_rank.to_string()),
            ("WORLD_SIZE", count.to_string()),
            ("LOCAL_WORLD_SIZE", processes.to_string()),
            ("GROUP_RANK", node.to_string()),
            ("GROUP_WORLD_SIZE", nodes.to_string()),
            ("ROLE_RANK", rank.to_string()),
            ("ROLE_WORLD_SIZE", count.to_string()),
            ("ROLE_NAME", "default".into()),
            ("MASTER_ADDR", self.host.clone()),
            ("MASTER_PORT", self.port.to_string()),
            ("TORCHELASTIC_RESTART_COUNT", attempt.to_string()),
            ("TORCHELASTIC_MAX_RESTARTS", max_restarts.to_string()),
            ("TORCHELASTIC_RUN_ID", OWN_RUN.into()),
            ("TORCHELASTIC_USE_AGENT_STORE", "True".into()),
            ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1".into()),
        ] {
            command.env(name, value);
        }
        command.env_remove("TORCHELASTIC_ERROR_FILE");
        if processes > 1 && std::env::var_os("OMP_NUM_THREADS").is_none() {
            command.env("OMP_NUM_THREADS", "1");
        }
        // A group of its own: the terminal's signals come by way of the launcher, once.
        command.process_group(0);
        // SAFETY: system calls that are allowed between fork and exec; they set what the child
        // does at signals.
        unsafe {
            command.pre_exec(|| {
                // Without its launcher it stops, with a checkpoint.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                libc::signal(libc::SIGTSTP, libc::SIG_DFL);
                Ok(())
            });
        }
    }
}

struct Process {
    rank: usize,
    child: Child,
    /// Since when it is halted.
    halted: Option<Instant>,
}

/// The processes of an attempt on this machine.
struct Processes {
    running: Vec<Process>,
    count: usize,
    /// The store of the attempt.
    meeting: Store,
    node: usize,
}

impl Processes {
    /// What has ended since the last look: `stopped` is the code of those that a signal
    /// stopped; before they heed signals, one that they were `asked` by ends them.
    fn look(&mut self, stopped: u8, asked: bool) -> Outcome {
        let mut outcome = Outcome::Finished;
        let mut failed = Vec::new();
        self.running.retain_mut(|process| {
            let Ok(Some(status)) = process.child.try_wait() else {
                if process.is_halted_for(HALTED_FOR) {
                    let cause = "it is halted (SIGSTOP)";
                    failed.push((process.rank, cause.to_string()));
                    let _ = process.child.kill();
                    let _ = process.child.wait();
                    outcome = outcome.and(Outcome::Failed(2));
                    return false;
                }
                return true;
            };
            let ended = match status.code() {
                Some(0) => Outcome::Finished,
                Some(code) if code == i32::from(stopped) => Outcome::Stopped(stopped),
                None if asked && status.signal() == Some(libc::SIGTERM) => {
                    Outcome::Stopped(128 + libc::SIGTERM as u8)
                }
                code => {
                    failed.push((process.rank, how(status)));
                    let code = code.and_then(|code| u8::try_from(code).ok());
                    Outcome::Failed(code.unwrap_or(2))
                }
            };
            outcome = outcome.and(ended);
            false
        });
        for (rank, cause) in failed {
            self.tell(rank, &cause);
        }
        outcome
    }

    /// Says to all that `rank` failed, unless somebody has said why before.
    fn tell(&self, rank: usize, cause: &str) {
        let first = tell_for(&self.meeting, rank, cause, None, self.node);
        let said = first.is_ok_and(|first| first.by.is_some() || first.number != rank);
        if !said {
            log::error!(
                "rank {rank} of {} failed: {cause}; the others end too",
                self.count
            );
        }
    }

    fn signal(&self, signal: libc::c_int) {
        for process in &self.running {
            // SAFETY: sends a signal to a process that is ours and not waited for yet.
            unsafe { libc::kill(process.child.id() as libc::pid_t, signal) };
        }
    }

    /// Waits so long for the processes to end by themselves, and ends those that do not.
    fn end(&mut self, within: Duration) {
        let since = Instant::now();
        while !self.running.is_empty() {
            let over = since.elapsed() >= within;
            self.running.retain_mut(|process| {
                if over || process.is_halted_for(Duration::ZERO) {
                    let _ = process.child.kill();
                    let _ = process.child.wait();
                }
                matches!(process.child.try_wait(), Ok(None))
            });
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Process {
    /// Whether a signal has halted it for so long.
    fn is_halted_for(&mut self, time: Duration) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        // The state follows the name in brackets.
        let halted = status.is_ok_and(|status| {
            let state = status.rsplit(") ").next();
            state.is_some_and(|state| state.starts_with('T'))
        });
        self.halted = halted.then(|| self.halted.unwrap_or_else(Instant::now));
        self.halted.is_some_and(|since| since.elapsed() >= time)
    }
}

fn how(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("it ended with exit code {code}"),
        None => format!("it was ended by a {status}"),
    }
}
