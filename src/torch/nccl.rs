//! The part of this program that speaks NCCL.

use std::ffi::{c_char, c_int, c_void};
use std::path::PathBuf;
use std::sync::OnceLock;

use super::cuda_part::{CudaPart, CudaPartError};

/// `vqd_nccl_attach` of `csrc/cuda/vqd_nccl.cpp`: group, store, rank, count, device, timeout
/// in milliseconds.
pub(super) type Attach =
    unsafe extern "C" fn(*mut c_void, *mut c_void, c_int, c_int, c_int, i64) -> *mut c_char;

/// NCCL, loaded.
#[derive(Clone, Debug)]
pub struct Nccl {
    pub path: PathBuf,
    pub(super) attach: Attach,
}

/// Loads the part, once.
///
/// # Errors
///
/// As for [`CudaPart::load`].
pub fn load() -> Result<&'static Nccl, CudaPartError> {
    static NCCL: OnceLock<Result<Nccl, CudaPartError>> = OnceLock::new();
    NCCL.get_or_init(find).as_ref().map_err(Clone::clone)
}

fn find() -> Result<Nccl, CudaPartError> {
    let part = CudaPart::load("nccl")?;
    // SAFETY: the type is that of its source.
    let attach = unsafe { part.function(c"vqd_nccl_attach") }?;
    Ok(Nccl {
        path: part.path,
        attach,
    })
}
