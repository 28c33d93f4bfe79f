//! What a failure says to the user: what happened, during which work, and what to do.
//!
//! The bindings panic where an operator of libtorch fails, C++ ends the process where nobody
//! catches its exception, and so does Rust where a small piece of memory cannot be had. All
//! of them end here, as one line and exit code 2.

use std::alloc::{GlobalAlloc, Layout, System};
use std::any::Any;
use std::error::Error;
use std::ffi::CStr;
use std::fmt::{self, Write};
use std::io::{self, ErrorKind};
use std::panic::PanicHookInfo;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use crate::guard::is_guarded;
use crate::torch::fault::{first_line, Fault};

/// What the process is at.
#[derive(Clone, Copy)]
struct Work {
    /// As in "while sampling".
    what: &'static str,
    unit: &'static str,
    done: u64,
    /// 0 where nothing is counted.
    total: u64,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Work {
            what,
            unit,
            done,
            total,
        } = self;
        write!(f, "while {what}")?;
        match total {
            0 => Ok(()),
            _ => write!(f, " ({done} of {total} {unit} done)"),
        }
    }
}

/// How a command takes less memory; nothing where there is no way.
#[derive(Clone, Copy)]
struct Remedy(&'static str);

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            remedy => write!(f, "; {remedy}"),
        }
    }
}

struct State {
    work: Work,
    remedy: Remedy,
    /// Where the last panic was: file and line.
    panicked_at: Option<(String, u32)>,
}

static STATE: Mutex<State> = Mutex::new(State {
    work: Work {
        what: "starting",
        unit: "",
        done: 0,
        total: 0,
    },
    remedy: Remedy(""),
    panicked_at: None,
});

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on failures are told for a command that needs less memory by `remedy`.
pub fn command(what: &'static str, remedy: &'static str) {
    let mut state = state();
    state.work = Work {
        what,
        unit: "",
        done: 0,
        total: 0,
    };
    state.remedy = Remedy(remedy);
}

/// The process is at this work, of `total` pieces.
pub fn working(what: &'static str, unit: &'static str, total: u64) {
    state().work = Work {
        what,
        unit,
        done: 0,
        total,
    };
}

/// So many pieces of the work are done.
pub fn done(pieces: u64) {
    state().work.done = pieces;
}

/// The panic hook: the place is remembered for [`of_panic`], and nothing is printed, as a
/// panic may be caught by those who expect it.
pub fn remember(panic: &PanicHookInfo) {
    if is_guarded() {
        return;
    }
    if std::env::var_os("RUST_BACKTRACE").is_some_and(|wanted| wanted != "0") {
        let trace = std::backtrace::Backtrace::force_capture();
        let _ = io::Write::write_fmt(&mut io::stderr(), format_args!("{panic}\n{trace}\n"));
    }
    let place = panic
        .location()
        .map(|at| (at.file().to_string(), at.line()));
    state().panicked_at = place;
}

/// What the panic that ended the command says.
pub fn of_panic(payload: &(dyn Any + Send)) -> String {
    let state = state();
    let State { work, remedy, .. } = *state;
    let text = match Fault::of(payload) {
        Fault::Memory(asked) => return out_of_memory(&asked, work, remedy),
        Fault::Torch(text) => return format!("{work}: libtorch: {text}"),
        Fault::Program(text) => text,
    };
    let place = match &state.panicked_at {
        Some((file, line)) => format!("{file}:{line}"),
        None => "an unknown place".into(),
    };
    format!("{work}: {text}; this is a fault of the program, at {place}")
}

fn out_of_memory(asked: &str, work: Work, remedy: Remedy) -> String {
    format!("not enough memory {work}: {asked}{remedy}")
}

/// The text of an error without the C++ stack that libtorch puts behind it.
pub fn plain(text: &str) -> String {
    let ends = ["\nException raised", "\nframe #"];
    let end = ends.iter().filter_map(|end| text.find(end)).min();
    text[..end.unwrap_or(text.len())].trim_end().to_string()
}

/// Whether a reader that went away is the cause of `error`, at any depth.
pub fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let kind = match error.downcast_ref::<serde_json::Error>() {
            Some(json) => json.io_error_kind(),
            None => error.downcast_ref::<io::Error>().map(io::Error::kind),
        };
        if kind == Some(ErrorKind::BrokenPipe) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Has a C++ exception that nobody catches reported.
pub fn on_terminate(message: &CStr) {
    let text = message.to_str().unwrap_or("a C++ exception");
    end(|out, work, remedy| match text {
        "std::bad_alloc" => write!(out, "not enough memory {work}{remedy}"),
        _ => write!(out, "{work}: libtorch: {}", first_line(text)),
    });
}

/// The system's allocator; memory that cannot be had ends the process with a report.
///
/// A piece above `CLAIM` may be what a damaged file claims to hold: whoever asks for one
/// is told.
pub struct ReportingAllocator;

const CLAIM: usize = 1 << 30;

impl ReportingAllocator {
    fn checked(pointer: *mut u8, size: usize) -> *mut u8 {
        if pointer.is_null() && size <= CLAIM {
            end(|out, work, remedy| {
                write!(
                    out,
                    "not enough memory {work}: {size} bytes more were asked for{remedy}"
                )
            });
        }
        pointer
    }
}

// SAFETY: the system's allocator does the work; a process that ends returns nothing.
unsafe impl GlobalAlloc for ReportingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the same, here and below.
        Self::checked(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        Self::checked(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        Self::checked(unsafe { System.realloc(pointer, layout, size) }, size)
    }
}

/// Standard error without a buffer or memory of its own.
struct Stderr;

impl Write for Stderr {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: the bytes of a string that lives until the call is over.
        unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
        Ok(())
    }
}

/// Ends the process with exit code 2 and a message, without asking for memory.
fn end(message: impl FnOnce(&mut Stderr, Work, Remedy) -> fmt::Result) -> ! {
    let (work, remedy) = match STATE.try_lock() {
        Ok(state) => (state.work, state.remedy),
        Err(TryLockError::Poisoned(state)) => (state.get_ref().work, state.get_ref().remedy),
        Err(TryLockError::WouldBlock) => {
            let work = Work {
                what: "working",
                unit: "",
                done: 0,
                total: 0,
            };
            (work, Remedy(""))
        }
    };
    let out = &mut Stderr;
    let _ = out.write_str("error: ");
    let _ = message(out, work, remedy);
    let _ = out.write_str("\n");
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(2) }
}
