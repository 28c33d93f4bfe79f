//! Answers of the C++ shim: values and errors.

use std::ffi::{c_char, CStr};

use tch::Tensor;
use torch_sys::C_tensor;

extern "C" {
    fn vqd_free(message: *mut c_char);
}

/// What a C++ exception says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ShimError(String);

/// The C++ tensor behind `tensor`.
pub fn pointer(tensor: &Tensor) -> *mut C_tensor {
    tensor.as_ptr().cast_mut()
}

/// Takes a shim function's return value: null is success, else what went wrong.
pub fn outcome(message: *mut c_char) -> Result<(), ShimError> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim returns a NUL-terminated string that is ours to free.
    let text = unsafe { CStr::from_ptr(message) }
        .to_string_lossy()
        .into_owned();
    // SAFETY: as above; nothing borrows from it any more.
    unsafe { vqd_free(message) };
    Err(ShimError(text))
}

/// Frees a string that the shim made.
///
/// # Safety
///
/// It must be one, and not be used afterwards.
pub unsafe fn free(text: *mut c_char) {
    // SAFETY: the caller vouches for it.
    unsafe { vqd_free(text) }
}

/// As [`outcome`] for an operator that fails only on a contract broken inside this crate,
/// such as shapes that do not fit: panics then like every operator of the bindings, naming
/// `what`.
pub fn done(what: &str, message: *mut c_char) {
    if let Err(problem) = outcome(message) {
        panic!("{what}: {problem}");
    }
}

/// The tensor that such an operator writes to the place it is given.
pub fn tensor(what: &str, call: impl FnOnce(*mut *mut C_tensor) -> *mut c_char) -> Tensor {
    let mut out = std::ptr::null_mut();
    done(what, call(&mut out));
    // SAFETY: on success `out` is a tensor that is now ours.
    unsafe { Tensor::from_ptr(out) }
}
