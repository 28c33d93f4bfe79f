//! Signals that stop long work.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::ranks;

/// Exit code of work that a signal stopped; what it wrote holds everything so far.
pub const STOPPED: u8 = 3;

/// The signals that stop work. A SIGHUP that was ignored at the start (`nohup`) stays so.
fn stopping() -> impl Iterator<Item = i32> {
    let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    [SIGTERM, SIGINT].into_iter().chain(hangup)
}

/// A flag that SIGTERM, SIGINT and the end of the terminal (SIGHUP) set; when it is set
/// already they end the process. One of several processes goes on to a common end then: a
/// launcher and a scheduler may both send the signal, and a launcher ends them at once if it
/// wants to.
pub fn stop_on_signals() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in stopping() {
        if !ranks::is_joined() {
            flag::register_conditional_shutdown(signal, 128 + signal, stop.clone())?;
        }
        flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

/// How many of these signals have come. The keys that halt a terminal's program (SIGTSTP) do
/// nothing: the processes that a launcher holds the store of would take it for dead.
pub fn count_signals() -> std::io::Result<Arc<AtomicUsize>> {
    let count = Arc::new(AtomicUsize::new(0));
    for signal in stopping() {
        let count = count.clone();
        let one_more = move || {
            count.fetch_add(1, Ordering::Relaxed);
        };
        // SAFETY: what a signal does here is to add to an atomic number.
        unsafe { low_level::register(signal, one_more) }?;
    }
    // SAFETY: changes what one signal does; no handler is installed.
    unsafe { libc::signal(libc::SIGTSTP, libc::SIG_IGN) };
    Ok(count)
}

fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks what is set and changes nothing; all zeros are a valid sigaction.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}
