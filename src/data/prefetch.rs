//! Work done ahead on another thread, in order and bounded.

use std::ops::Range;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::mpsc::{sync_channel, Receiver};
use std::thread;

use super::error::DataError;

/// Results of work on another thread, one for each of `numbers`. A thread that ends
/// before the last one is an error, never the end of the results; its panic goes on in the
/// thread that asks for the result.
pub struct Prefetched<T> {
    numbers: Range<u64>,
    results: Receiver<thread::Result<Result<T, DataError>>>,
}

/// Results of `make` for each of `numbers`, at most `ahead` of them waiting. The thread
/// ends when the results are dropped.
///
/// # Errors
///
/// A thread that cannot be started.
pub fn prefetch<T: Send + 'static>(
    ahead: usize,
    numbers: Range<u64>,
    mut make: impl FnMut(u64) -> Result<T, DataError> + Send + 'static,
) -> Result<Prefetched<T>, DataError> {
    let (sender, results) = sync_channel(ahead);
    let work = numbers.clone();
    thread::Builder::new()
        .spawn(move || {
            for n in work {
                let made = catch_unwind(AssertUnwindSafe(|| make(n)));
                let failed = made.is_err();
                if sender.send(made).is_err() || failed {
                    return;
                }
            }
        })
        .map_err(|e| DataError::Ahead(format!("no thread could be started: {e}")))?;
    Ok(Prefetched { numbers, results })
}

impl<T> Iterator for Prefetched<T> {
    type Item = Result<T, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.numbers.next()?;
        Some(match self.results.recv() {
            Ok(made) => made.unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => Err(DataError::Ahead("its thread has ended".into())),
        })
    }
}
