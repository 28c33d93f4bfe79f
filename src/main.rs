//! The `vqdiffusion` command.

use std::ffi::{c_char, c_int, c_void, CStr};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: vqdiffusion::cli::ReportingAllocator = vqdiffusion::cli::ReportingAllocator;

fn main() -> ExitCode {
    leave_without_destructors();
    vqdiffusion::torch::runtime::start();
    vqdiffusion::cli::run()
}

/// As C's function, but for how long threads of libgomp spin where nothing is said: with its
/// own default, milliseconds, two threads take ten times as long as one as soon as another
/// program needs their processor. Spinning about as long as it takes to sleep and wake loses
/// nothing elsewhere. The library reads the variable when it is loaded, before `main`.
///
/// # Safety
///
/// As for C's function.
#[cfg(target_env = "gnu")]
#[no_mangle]
unsafe extern "C" fn getenv(name: *const c_char) -> *const c_char {
    extern "C" {
        static environ: *const *const c_char;
    }
    const SPIN_COUNT: &CStr = c"GOMP_SPINCOUNT";
    const TURNS: &CStr = c"3000";
    // SAFETY: the caller gives a string that ends with a zero; the environment is a list of
    // such strings that ends with a null pointer, or a null pointer itself.
    unsafe {
        let value_of = |name: &CStr| {
            let mut entry = environ;
            while !entry.is_null() && !(*entry).is_null() {
                let text = CStr::from_ptr(*entry).to_bytes();
                let value = text.strip_prefix(name.to_bytes());
                if let Some(value) = value.and_then(|rest| rest.strip_prefix(b"=")) {
                    return value.as_ptr().cast::<c_char>();
                }
                entry = entry.add(1);
            }
            std::ptr::null()
        };
        let name = CStr::from_ptr(name);
        let found = value_of(name);
        let unsaid = || found.is_null() && value_of(c"OMP_WAIT_POLICY").is_null();
        match name == SPIN_COUNT && unsaid() {
            true => TURNS.as_ptr(),
            false => found,
        }
    }
}

#[cfg(target_env = "gnu")]
extern "C" {
    fn on_exit(handler: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
}

/// Ends the process as soon as Rust has flushed what it wrote: libtorch would take a third of
/// the time of its start to tear down tables that the kernel frees anyway. Handlers run last
/// come, first served, so this one stands before libtorch's.
fn leave_without_destructors() {
    #[cfg(target_env = "gnu")]
    {
        extern "C" fn leave(status: c_int, _: *mut c_void) {
            // SAFETY: flushes the streams of C and ends the process.
            unsafe {
                libc::fflush(std::ptr::null_mut());
                libc::_exit(status)
            }
        }
        // SAFETY: the handler needs no argument and is there to the end.
        unsafe { on_exit(leave, std::ptr::null_mut()) };
    }
}
