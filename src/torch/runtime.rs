//! What must be settled once in a process before libtorch computes anything.

use std::sync::OnceLock;

use super::allocator::keep_large_buffers;
use super::cuda::{self, CudaLibrary};

/// What was found when the process started.
struct Runtime {
    cuda: CudaLibrary,
    threads: i32,
}

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

fn runtime() -> &'static Runtime {
    RUNTIME.get_or_init(|| {
        keep_large_buffers();
        Runtime {
            cuda: cuda::load(),
            threads: tch::get_num_threads(),
        }
    })
}

/// Sets the allocator and loads CUDA if it lies beside libtorch; says what became of
/// that. The first call does it, best first thing in `main`; later ones do nothing.
pub fn start() -> &'static CudaLibrary {
    &runtime().cuda
}

/// Threads that libtorch chose for CPU work, whatever was set since.
pub fn threads() -> i32 {
    runtime().threads
}
