//! Operations on many tensors in a few kernels, which the bindings do not offer.

use std::borrow::Borrow;
use std::ffi::c_char;

use tch::Tensor;
use torch_sys::C_tensor;

use super::shim::{outcome, pointer};

extern "C" {
    fn vqd_foreach_norm(
        tensors: *const *mut C_tensor,
        count: usize,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn vqd_foreach_scale(tensors: *const *mut C_tensor, count: usize, factor: f64) -> *mut c_char;
    fn vqd_foreach_lerp(
        averages: *const *mut C_tensor,
        values: *const *mut C_tensor,
        count: usize,
        weight: f64,
    ) -> *mut c_char;
    fn vqd_forget_gradients(tensors: *const *mut C_tensor, count: usize) -> *mut c_char;
}

fn pointers<T: Borrow<Tensor>>(tensors: &[T]) -> Vec<*mut C_tensor> {
    tensors.iter().map(|t| pointer(t.borrow())).collect()
}

/// Like every operator of the bindings, panics on a contract broken inside this crate,
/// such as shapes that do not fit.
fn done(message: *mut c_char) {
    if let Err(problem) = outcome(message) {
        panic!("foreach: {problem}");
    }
}

// SAFETY of the calls below: the lists hold as many tensors as is said, and these live
// through the call.

/// L2 norm of at least one tensor together, a scalar on their device.
pub fn norm<T: Borrow<Tensor>>(tensors: &[T]) -> Tensor {
    let mut out = std::ptr::null_mut();
    done(unsafe { vqd_foreach_norm(pointers(tensors).as_ptr(), tensors.len(), &mut out) });
    // SAFETY: on success `out` is a tensor that is now ours.
    unsafe { Tensor::from_ptr(out) }
}

/// Multiplies each tensor in place.
pub fn scale<T: Borrow<Tensor>>(tensors: &[T], factor: f64) {
    done(unsafe { vqd_foreach_scale(pointers(tensors).as_ptr(), tensors.len(), factor) });
}

/// averages ← averages + weight · (values − averages), in place, pair by pair.
pub fn lerp<T: Borrow<Tensor>>(averages: &[T], values: &[T], weight: f64) {
    assert_eq!(
        averages.len(),
        values.len(),
        "foreach: lists differ in length"
    );
    let (averages, values) = (pointers(averages), pointers(values));
    done(unsafe { vqd_foreach_lerp(averages.as_ptr(), values.as_ptr(), averages.len(), weight) });
}

/// Leaves the tensors without gradients.
pub fn forget_gradients<T: Borrow<Tensor>>(tensors: &[T]) {
    done(unsafe { vqd_forget_gradients(pointers(tensors).as_ptr(), tensors.len()) });
}
