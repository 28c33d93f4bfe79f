//! Draws from libtorch's generator, which is one for all tests of a process.

use std::sync::{Mutex, PoisonError};

/// What `draw` makes with the generator seeded, whatever tests run beside it. Every draw of
/// a test stands in one.
pub fn drawn<T>(seed: i64, draw: impl FnOnce() -> T) -> T {
    static GENERATOR: Mutex<()> = Mutex::new(());
    // A test that failed while it drew has left nothing that matters.
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed);
    draw()
}
