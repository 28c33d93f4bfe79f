//! AdamW over many tensors in one kernel, which the bindings do not offer.

use std::ffi::c_char;

use tch::Tensor;
use torch_sys::C_tensor;

use super::shim::{done, pointer};

extern "C" {
    fn vqd_fused_adamw(
        parameters: *const *mut C_tensor,
        gradients: *const *mut C_tensor,
        averages: *const *mut C_tensor,
        square_averages: *const *mut C_tensor,
        steps: *const *mut C_tensor,
        count: usize,
        rate: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        epsilon: f64,
    ) -> *mut c_char;
}

/// The constants of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConstants {
    pub betas: [f64; 2],
    pub weight_decay: f64,
    pub epsilon: f64,
}

/// One parameter with what belongs to it.
pub struct Slot<'a> {
    pub parameter: &'a Tensor,
    pub gradient: &'a Tensor,
    /// First moment.
    pub average: &'a Tensor,
    /// Second moment.
    pub square_average: &'a Tensor,
}

/// Updates all parameters and moments in place. `step` is an f32 scalar on their
/// device that counts the updates, this one included.
///
/// # Panics
///
/// If the tensors of a slot differ in shape or kind.
pub fn fused_adamw(slots: &[Slot], step: &Tensor, rate: f64, constants: &AdamWConstants) {
    let list = |f: &dyn Fn(&Slot) -> *mut C_tensor| slots.iter().map(f).collect::<Vec<_>>();
    let parameters = list(&|s| pointer(s.parameter));
    let gradients = list(&|s| pointer(s.gradient));
    let averages = list(&|s| pointer(s.average));
    let square_averages = list(&|s| pointer(s.square_average));
    let steps = list(&|_| pointer(step));
    let message = unsafe {
        // SAFETY: every list holds `slots.len()` tensors that live through the call.
        vqd_fused_adamw(
            parameters.as_ptr(),
            gradients.as_ptr(),
            averages.as_ptr(),
            square_averages.as_ptr(),
            steps.as_ptr(),
            slots.len(),
            rate,
            constants.betas[0],
            constants.betas[1],
            constants.weight_decay,
            constants.epsilon,
        )
    };
    done("AdamW", message);
}
