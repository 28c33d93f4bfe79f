//! Operations on many tensors in a few kernels, which the bindings do not offer.

use std::borrow::Borrow;
use std::ffi::c_char;

use tch::Tensor;
use torch_sys::C_tensor;

use super::shim::{done, pointer, tensor};

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

/// L2 norm of at least one tensor together, a scalar on their device.
pub fn norm<T: Borrow<Tensor>>(tensors: &[T]) -> Tensor {
    let list = pointers(tensors);
    // SAFETY: the list holds as many tensors as is said, and they live through the call.
    tensor("norm", |out| unsafe {
        vqd_foreach_norm(list.as_ptr(), list.len(), out)
    })
}

/// Multiplies each tensor in place.
pub fn scale<T: Borrow<Tensor>>(tensors: &[T], factor: f64) {
    let list = pointers(tensors);
    // SAFETY: the list holds as many tensors as is said, and they live through the call.
    done("scale", unsafe {
        vqd_foreach_scale(list.as_ptr(), list.len(), factor)
    });
}

/// averages ← averages + weight · (values − averages), in place, pair by pair.
pub fn lerp<T: Borrow<Tensor>>(averages: &[T], values: &[T], weight: f64) {
    assert_eq!(
        averages.len(),
        values.len(),
        "foreach: lists differ in length"
    );
    let (averages, values) = (pointers(averages), pointers(values));
    // SAFETY: both lists hold as many tensors as is said, and they live through the call.
    done("lerp", unsafe {
        vqd_foreach_lerp(averages.as_ptr(), values.as_ptr(), averages.len(), weight)
    });
}

/// Leaves the tensors without gradients.
pub fn forget_gradients<T: Borrow<Tensor>>(tensors: &[T]) {
    let list = pointers(tensors);
    // SAFETY: the list holds as many tensors as is said, and they live through the call.
    done("forget_gradients", unsafe {
        vqd_forget_gradients(list.as_ptr(), list.len())
    });
}
