//! What the linked libtorch says of itself.

use std::ffi::{c_char, CStr};

use super::cuda::CudaLibrary;
use super::{graph, nccl};

extern "C" {
    fn vqd_torch_version() -> *const c_char;
    fn vqd_cpu_capability() -> *const c_char;
    fn vqd_has_gloo() -> bool;
    fn vqd_has_onednn() -> bool;
}

/// Version of libtorch, such as `2.11.0`.
pub fn libtorch() -> String {
    // SAFETY: returns a static NUL-terminated string.
    text(unsafe { vqd_torch_version() })
}

/// The vector instructions libtorch's own kernels use, such as `AVX2`.
pub fn cpu_capability() -> String {
    // SAFETY: returns a static NUL-terminated string.
    text(unsafe { vqd_cpu_capability() })
}

/// Whether oneDNN kernels are in this libtorch.
pub fn has_onednn() -> bool {
    // SAFETY: takes and touches nothing.
    unsafe { vqd_has_onednn() }
}

/// The distributed back ends in this libtorch.
pub fn c10d(cuda: &CudaLibrary) -> String {
    // SAFETY: takes and touches nothing.
    let gloo = if unsafe { vqd_has_gloo() } {
        "gloo (CPU)"
    } else {
        "no gloo"
    };
    let nccl = match (cuda, nccl::load()) {
        (CudaLibrary::Loaded(_), Ok(found)) => format!("nccl (GPUs), {}", found.path.display()),
        (CudaLibrary::Loaded(_), Err(why)) => format!("no nccl: {why}"),
        _ => "no nccl (needs a CUDA libtorch)".into(),
    };
    format!("{gloo}; {nccl}")
}

/// Whether sampling steps can be recorded as CUDA graphs.
pub fn graphs(cuda: &CudaLibrary) -> String {
    match (cuda, graph::library()) {
        (CudaLibrary::Loaded(_), Ok(path)) => path.display().to_string(),
        (CudaLibrary::Loaded(_), Err(why)) => format!("none: {why}"),
        _ => "none (needs a CUDA libtorch)".into(),
    }
}

fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return "unknown".into();
    }
    // SAFETY: not null; the shim's strings are static and NUL-terminated.
    unsafe { CStr::from_ptr(pointer) }
        .to_string_lossy()
        .into_owned()
}
