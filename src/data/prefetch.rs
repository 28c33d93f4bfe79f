//! Work done ahead on another thread, in order and bounded.

use std::sync::mpsc::{sync_channel, Receiver};

/// Results of `make(0)`, `make(1)` …, at most `ahead` of them waiting.
///
/// The thread ends when the receiver is dropped or after the first result for which
/// `make` returns nothing.
pub fn prefetch<T: Send + 'static>(
    ahead: usize,
    mut make: impl FnMut(u64) -> Option<T> + Send + 'static,
) -> Receiver<T> {
    let (sender, receiver) = sync_channel(ahead);
    std::thread::spawn(move || {
        for n in 0.. {
            let Some(result) = make(n) else { return };
            if sender.send(result).is_err() {
                return;
            }
        }
    });
    receiver
}
