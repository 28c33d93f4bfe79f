//! Linear layer y = x Wᵀ + b, with the operator behind it fused at inference.

use std::ffi::c_char;

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use super::device::cpu_has_bf16;
use super::params::{Init, Params};
use super::shim::{pointer as ptr, tensor};
use super::version::has_onednn;

/// The slope inside [`gelu2`].
const SLOPE: f64 = 1.702;

/// GELU2(x) = x·σ(1.702 x), the activation of every released model (CLIP's QuickGELU).
pub fn gelu2(x: &Tensor) -> Tensor {
    (x * SLOPE).sigmoid_() * x
}

extern "C" {
    fn vqd_pack_weight(weight: *mut C_tensor, rows: i64, out: *mut *mut C_tensor) -> *mut c_char;
    fn vqd_linear(
        x: *mut C_tensor,
        weight: *mut C_tensor,
        bias: *mut C_tensor,
        swish: bool,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn vqd_linear_add(
        x: *mut C_tensor,
        residual: *mut C_tensor,
        weight: *mut C_tensor,
        bias: *mut C_tensor,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// A dense layer with bias; weight `[outputs, inputs]`, bias `[outputs]`.
pub struct Linear {
    weight: Weight,
    bias: Tensor,
}

enum Weight {
    Plain(Tensor),
    /// In oneDNN's own layout, whose operators with fused epilogue take over:
    /// inference on the CPU. The plain weight is gone.
    Packed(Tensor),
}

/// Rows of the products that the packed layout is chosen for.
const PACKED_FOR: i64 = 2048;

impl Linear {
    /// Reads `weight` and `bias` below `p`; original initialisation N(0, 0.02²), bias 0.
    pub fn new(p: &Params, inputs: i64, outputs: i64) -> Self {
        Linear::from_tensors(
            p.get("weight", &[outputs, inputs], Init::Normal(0.02)),
            p.get("bias", &[outputs], Init::Zeros),
        )
    }

    pub fn from_tensors(weight: Tensor, bias: Tensor) -> Self {
        Linear {
            weight: Weight::Plain(weight),
            bias,
        }
    }

    /// The layers side by side: outputs concatenated in order. Packed layers cannot be
    /// joined any more.
    pub fn joined(layers: &[&Linear]) -> Self {
        let weights: Vec<_> = layers.iter().map(|l| l.plain()).collect();
        let biases: Vec<_> = layers.iter().map(|l| &l.bias).collect();
        Linear::from_tensors(Tensor::cat(&weights, 0), Tensor::cat(&biases, 0))
    }

    /// Makes the layer ready for inference.
    pub fn pack(&mut self) {
        let Weight::Plain(weight) = &self.weight else {
            return;
        };
        let native = match weight.kind() {
            Kind::Float => true,
            Kind::BFloat16 => cpu_has_bf16(),
            _ => false,
        };
        if native && weight.device() == Device::Cpu && has_onednn() {
            self.weight = Weight::Packed(shim(|out| unsafe {
                // SAFETY: the pointer is a live tensor for the duration of the call.
                vqd_pack_weight(ptr(weight), PACKED_FOR, out)
            }));
        }
    }

    /// The layer with weight and bias multiplied. Not for packed layers.
    pub fn scaled(&self, weight: f64, bias: f64) -> Self {
        Linear::from_tensors(self.plain() * weight, &self.bias * bias)
    }

    /// Whether [`pack`](Self::pack) has changed the layout.
    pub fn is_packed(&self) -> bool {
        matches!(self.weight, Weight::Packed(_))
    }

    fn plain(&self) -> &Tensor {
        match &self.weight {
            Weight::Plain(weight) => weight,
            Weight::Packed(_) => panic!("linear: the weight is packed already"),
        }
    }

    /// `x` `[…, inputs]` → `[…, outputs]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        match &self.weight {
            Weight::Plain(weight) => x.linear(weight, Some(&self.bias)),
            Weight::Packed(weight) => shim(|out| unsafe {
                // SAFETY: the pointers are live tensors for the duration of the call.
                vqd_linear(ptr(x), ptr(weight), ptr(&self.bias), false, out)
            }),
        }
    }

    /// SiLU of the output.
    pub fn forward_silu(&self, x: &Tensor) -> Tensor {
        match &self.weight {
            Weight::Plain(_) => self.forward(x).silu(),
            Weight::Packed(weight) => shim(|out| unsafe {
                // SAFETY: as above.
                vqd_linear(ptr(x), ptr(weight), ptr(&self.bias), true, out)
            }),
        }
    }

    /// The output added to `residual`, which has its shape.
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        match &self.weight {
            Weight::Plain(_) => self.forward(x) + residual,
            Weight::Packed(weight) => shim(|out| unsafe {
                // SAFETY: as above.
                vqd_linear_add(ptr(x), ptr(residual), ptr(weight), ptr(&self.bias), out)
            }),
        }
    }
}

/// Two dense layers with GELU2 between: `hidden` then `out`.
///
/// SiLU(1.702 x) = 1.702·GELU2(x), so the slope moves into the weights and the
/// activation is a plain SiLU: one kernel, or part of the layer's at inference.
pub struct Gelu2Mlp {
    hidden: Linear,
    out: Linear,
    folded: bool,
}

impl Gelu2Mlp {
    pub fn new(hidden: Linear, out: Linear) -> Self {
        Gelu2Mlp {
            hidden,
            out,
            folded: false,
        }
    }

    /// The two layers around a SiLU.
    fn around_silu(&self) -> [Linear; 2] {
        [
            self.hidden.scaled(SLOPE, SLOPE),
            self.out.scaled(1.0 / SLOPE, 1.0),
        ]
    }

    /// Makes the layers ready for inference.
    pub fn pack(&mut self) {
        if !self.folded {
            [self.hidden, self.out] = self.around_silu();
            self.folded = true;
        }
        self.hidden.pack();
        self.out.pack();
    }

    /// out(GELU2(hidden(x))): `[…, D]` → `[…, D]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        if self.folded {
            return self.out.forward(&self.hidden.forward_silu(x));
        }
        let [hidden, out] = self.around_silu();
        out.forward(&hidden.forward_silu(x))
    }

    /// residual + out(GELU2(hidden(x))): `[…, D]` both → `[…, D]`.
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Tensor {
        if self.folded {
            return self.out.forward_add(&self.hidden.forward_silu(x), residual);
        }
        let [hidden, out] = self.around_silu();
        out.forward_add(&hidden.forward_silu(x), residual)
    }
}

fn shim(call: impl FnOnce(*mut *mut C_tensor) -> *mut c_char) -> Tensor {
    tensor("linear", call)
}
