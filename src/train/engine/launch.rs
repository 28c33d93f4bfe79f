//! Several processes of one run on this machine, with torchrun's contract: each finds its
//! place in the environment, and the launcher holds the store that they meet in.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::files::FileError;
use crate::torch::c10d::Store;
use crate::train::TrainError;

/// How often the processes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a process may take to end when another one has failed.
const END_WITHIN: Duration = Duration::from_secs(10);
/// How long a process may be halted, which keeps the others waiting.
const HALTED_FOR: Duration = Duration::from_secs(5);
const STORE_TIMEOUT: Duration = Duration::from_secs(300);

/// Runs `count` processes of `command` until all have ended, and returns the exit code of the
/// first that failed: 0 if none did. `stopped` is the code of a process that a signal stopped,
/// which is no failure; when `stop` is set, all are asked to stop. When one fails, the others
/// are ended.
///
/// # Errors
///
/// Processes that cannot be started, and no port for the store.
pub fn launch(
    command: impl Fn() -> Command,
    count: usize,
    stopped: u8,
    stop: &AtomicBool,
) -> Result<u8, TrainError> {
    let (store, port) = Store::host(STORE_TIMEOUT).map_err(TrainError::Ranks)?;
    let mut running = Vec::new();
    for rank in 0..count {
        let mut command = command();
        place(&mut command, rank, count, port);
        let path = command.get_program().to_os_string();
        match command.spawn() {
            Ok(child) => running.push((rank, child)),
            Err(error) => {
                end(&mut running);
                return Err(FileError::reading(path.as_ref())(error).into());
            }
        }
    }
    let mut told = false;
    let mut halted = vec![None; count];
    let mut code = 0;
    while !running.is_empty() {
        std::thread::sleep(LOOK_EVERY);
        if stop.load(Ordering::Relaxed) && !told {
            told = true;
            running
                .iter()
                .for_each(|(_, child)| signal(child, libc::SIGTERM));
        }
        let mut left = Vec::new();
        let mut failed = false;
        for (rank, mut child) in running {
            let ended = child.try_wait().ok().flatten();
            let Some(status) = ended else {
                let since: &mut Option<Instant> = &mut halted[rank];
                *since = is_halted(&child).then(|| since.unwrap_or_else(Instant::now));
                if since.is_some_and(|since| since.elapsed() > HALTED_FOR) {
                    log::warn!("process {rank} of {count} is halted (SIGSTOP) and is ended");
                    let _ = child.kill();
                }
                left.push((rank, child));
                continue;
            };
            match status.code() {
                Some(0) => {}
                Some(ended) if ended == i32::from(stopped) && [0, stopped].contains(&code) => {
                    code = stopped;
                }
                ended => {
                    if !failed && [0, stopped].contains(&code) {
                        log::warn!(
                            "process {rank} of {count} ended ({status}); the others end too"
                        );
                        code = ended.and_then(|code| u8::try_from(code).ok()).unwrap_or(2);
                    }
                    failed = true;
                }
            }
        }
        running = left;
        if failed {
            end(&mut running);
        }
    }
    drop(store);
    Ok(code)
}

/// Tells the process that it is this rank of so many.
fn place(command: &mut Command, rank: usize, count: usize, port: u16) {
    let number = |n: usize| n.to_string();
    for (name, value) in [
        ("RANK", number(rank)),
        ("LOCAL_RANK", number(rank)),
        ("WORLD_SIZE", number(count)),
        ("LOCAL_WORLD_SIZE", number(count)),
        ("GROUP_RANK", number(0)),
        ("GROUP_WORLD_SIZE", number(1)),
        ("ROLE_RANK", number(rank)),
        ("ROLE_WORLD_SIZE", number(count)),
        ("ROLE_NAME", "default".into()),
        ("MASTER_ADDR", "127.0.0.1".into()),
        ("MASTER_PORT", port.to_string()),
        ("TORCHELASTIC_RESTART_COUNT", number(0)),
        ("TORCHELASTIC_MAX_RESTARTS", number(0)),
        ("TORCHELASTIC_RUN_ID", "none".into()),
        ("TORCHELASTIC_USE_AGENT_STORE", "True".into()),
    ] {
        command.env(name, value);
    }
    if count > 1 && std::env::var_os("OMP_NUM_THREADS").is_none() {
        command.env("OMP_NUM_THREADS", "1");
    }
    // A group of its own: the terminal's signals come by way of the launcher, once.
    command.process_group(0);
    // SAFETY: a system call that is allowed between fork and exec; it sets a flag of the child.
    unsafe {
        command.pre_exec(|| {
            // Without its launcher it stops, with a checkpoint.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
}

/// Whether the process was halted by a signal.
fn is_halted(child: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/stat", child.id()));
    // The state follows the name in brackets.
    status.is_ok_and(|status| {
        let state = status.rsplit(") ").next();
        state.is_some_and(|state| state.starts_with(['T', 't']))
    })
}

fn signal(child: &Child, signal: libc::c_int) {
    // SAFETY: sends a signal to a process that is ours and not waited for yet.
    unsafe { libc::kill(child.id() as libc::pid_t, signal) };
}

/// Ends the processes: those that do not end by themselves within a while are killed.
fn end(running: &mut Vec<(usize, Child)>) {
    running
        .iter()
        .for_each(|(_, child)| signal(child, libc::SIGTERM));
    let since = Instant::now();
    while !running.is_empty() {
        if since.elapsed() > END_WITHIN {
            for (_, child) in running.iter_mut() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        running.retain_mut(|(_, child)| matches!(child.try_wait(), Ok(None)));
        std::thread::sleep(LOOK_EVERY);
    }
}
