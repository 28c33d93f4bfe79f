//! The `vqdiffusion` command.

use std::ffi::{c_int, c_void};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: vqdiffusion::cli::ReportingAllocator = vqdiffusion::cli::ReportingAllocator;

fn main() -> ExitCode {
    leave_without_destructors();
    vqdiffusion::torch::runtime::start();
    vqdiffusion::cli::run()
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
