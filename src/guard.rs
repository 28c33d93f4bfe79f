//! A library's panic on what comes from outside is that input's error.

use std::cell::Cell;
use std::panic::{catch_unwind, AssertUnwindSafe};

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// A library panicked on its input. What it said is for its authors: see the debug log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the library that reads it gave up; it is damaged or very unusual")]
pub struct Panicked;

/// The answer of `work`, a call of a library on input from outside.
///
/// What `work` changes through references may be half done after a panic: drop it.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    DEPTH.with(|depth| depth.set(depth.get() + 1));
    let done = catch_unwind(AssertUnwindSafe(work));
    DEPTH.with(|depth| depth.set(depth.get() - 1));
    done.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        log::debug!("a library panicked: {}", text.unwrap_or("no words"));
        Panicked
    })
}

/// Whether a panic of this thread is caught by [`guarded`]: a panic hook need not speak of it.
pub fn is_guarded() -> bool {
    DEPTH.with(|depth| depth.get() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_answer() {
        assert_eq!(guarded(|| 1), Ok(1));
        let inner = guarded(|| {
            assert_eq!(
                guarded(|| -> u32 { panic!("index out of bounds") }),
                Err(Panicked)
            );
            is_guarded()
        });
        assert_eq!(inner, Ok(true));
        assert!(!is_guarded());
    }
}
