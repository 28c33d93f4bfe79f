//! C++ exceptions that nobody catches.

use std::ffi::{c_char, CStr};

extern "C" {
    fn vqd_on_terminate(report: extern "C" fn(*const c_char));
}

/// Has `report` told what a C++ exception says that nobody catches, before the process ends
/// with exit code 2. It must not allocate: memory may have run out.
pub fn on_terminate(report: fn(&CStr)) {
    static REPORT: std::sync::OnceLock<fn(&CStr)> = std::sync::OnceLock::new();
    extern "C" fn forward(message: *const c_char) {
        if let Some(report) = REPORT.get() {
            // SAFETY: the shim's messages are NUL-terminated and outlive the call.
            report(unsafe { CStr::from_ptr(message) });
        }
    }
    if REPORT.set(report).is_ok() {
        // SAFETY: `forward` stays for as long as the process.
        unsafe { vqd_on_terminate(forward) };
    }
}
