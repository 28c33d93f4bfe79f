//! How this process ends where another one or itself has failed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::watch::{self, Member, Watch};
use super::{error_file, RanksError};

/// This process as one of several.
struct ThisProcess {
    watch: Arc<Watch>,
    local_rank: usize,
}

static THIS: OnceLock<ThisProcess> = OnceLock::new();
/// Whether this process has said what it ends of.
static SAID: AtomicBool = AtomicBool::new(false);

/// Says that this process is one of several.
pub(super) fn joined(watch: Arc<Watch>, local_rank: usize) {
    let _ = THIS.set(ThisProcess { watch, local_rank });
}

/// The number of this process on its machine, if it is one of several that have met.
pub fn local_rank() -> Option<usize> {
    THIS.get().map(|this| this.local_rank)
}

/// Whether this process is one of several that have met.
pub fn is_joined() -> bool {
    THIS.get().is_some()
}

/// Tells the other processes, if there are any, that this one ends with an error, and torchrun
/// too. Returns what this process is to print: nothing where another one of its machine says
/// it.
pub fn fail(message: &str) -> Option<String> {
    let Some(this) = THIS.get() else {
        return Some(message.into());
    };
    let says = tell(this, message);
    // Nothing is asked of the store while the process ends.
    this.watch.leave();
    says
}

fn tell(this: &ThisProcess, message: &str) -> Option<String> {
    let Member {
        number,
        count,
        node,
        ..
    } = this.watch.member();
    let mut message = message.to_string();
    if is_of_connection(&message) && this.watch.trouble().is_none() {
        // A backward pass that another process does not come to.
        if let Some(trouble) = this.watch.found_within_word() {
            message = trouble.to_string();
        }
    }
    let first = match this.watch.trouble() {
        // It ends because another one does.
        Some(RanksError::Failed { .. }) | None => this.watch.fail(&message),
        Some(_) => None,
    };
    let Some(first) = first else {
        error_file::write(&message, watch::now() + 1);
        // The store may have gone with the first process of this machine.
        return said(this.local_rank < 2).then_some(message);
    };
    let own = first.number == number;
    error_file::write(&message, first.at + u64::from(!own));
    let speaks = match first.node == node {
        true => first.by == Some(number),
        false => this.local_rank == 0,
    };
    let message = match own {
        true => format!("rank {number} of {count}: {message}"),
        false => message,
    };
    said(speaks).then_some(message)
}

/// Whether an error of libtorch's is about a connection to another process.
fn is_of_connection(message: &str) -> bool {
    let words = [
        "Connection closed by peer",
        "Connection reset by peer",
        "Broken pipe",
        "Timed out waiting",
        "gloo",
        "NCCL",
    ];
    words.iter().any(|words| message.contains(words))
}

/// Whether this process speaks, and has not spoken.
fn said(speaks: bool) -> bool {
    speaks && !SAID.swap(true, Ordering::Relaxed)
}

/// Before this process is ended because of another one.
pub(super) fn end(trouble: &RanksError) {
    if let Some(message) = fail(&trouble.to_string()) {
        eprintln!("error: {message}");
    }
}
