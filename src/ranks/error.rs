//! Why processes cannot work together.

use crate::files::FileError;
use crate::torch::c10d::C10dError;
use crate::torch::cuda_part::CudaPartError;

/// Why processes cannot start or go on together.
#[derive(Debug, thiserror::Error)]
pub enum RanksError {
    /// A variable of the environment makes no sense.
    #[error("{name} is {found:?}, expected {expected}")]
    Variable {
        name: &'static str,
        found: String,
        expected: String,
    },

    /// A variable that must be there with the others is not.
    #[error("{name} is not set, but {with} is; it is {what}")]
    Missing {
        name: &'static str,
        with: &'static str,
        what: &'static str,
    },

    #[error("the store of the processes at {host}:{port} does not answer: {source}")]
    NoStore {
        host: String,
        port: u16,
        source: C10dError,
    },

    #[error("the store of the processes cannot be held at port {port}: {source}")]
    NoPort { port: u16, source: C10dError },

    /// Processes that did not come.
    #[error("{}", absent(*.count, .missing, .what, *.seconds))]
    Absent {
        what: &'static str,
        count: usize,
        missing: Vec<usize>,
        seconds: u64,
    },

    /// One of them failed, and said why or was found dead.
    #[error("{what} {number} of {count} failed: {cause}")]
    Failed {
        /// `rank` or `node`.
        what: &'static str,
        number: usize,
        count: usize,
        cause: String,
    },

    #[error("the store of the processes is gone: {holder}, which held it, has ended or is halted ({cause})")]
    Lost { holder: &'static str, cause: String },

    #[error("several processes on GPUs need NCCL: {0}")]
    Nccl(#[from] CudaPartError),

    /// Weights that are not the same in all processes, though all made the same steps.
    #[error("the weights of rank {rank} are not those of rank 0 any more at step {step}")]
    Diverged { rank: usize, step: u64 },

    #[error("two launchers say that they are node {0}: each needs a --node-rank of its own")]
    Twice(usize),

    /// An operation of all processes failed, and nobody says why.
    #[error("the processes cannot go on together: {0}")]
    Operation(#[source] C10dError),

    #[error(transparent)]
    File(#[from] FileError),
}

fn absent(count: usize, missing: &[usize], what: &str, seconds: u64) -> String {
    let missing = numbers(missing);
    format!("of {count} {what}s these did not come within {seconds} s: {missing}")
}

/// `0, 2, 3`; the first ten of many.
pub(super) fn numbers(list: &[usize]) -> String {
    const SHOWN: usize = 10;
    let shown = list.iter().take(SHOWN).map(usize::to_string);
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if list.len() > SHOWN {
        text += &format!(" and {} more", list.len() - SHOWN);
    }
    text
}
