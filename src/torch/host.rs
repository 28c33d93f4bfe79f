//! Copies of tensors in the host's memory.

use tch::kind::Element;
use tch::{Device, Tensor};

/// The values of `x`, of any device, kind and layout, row by row as `T`.
pub fn values<T: Element>(x: &Tensor) -> Vec<T> {
    let x = x.to_device(Device::Cpu).to_kind(T::KIND).contiguous();
    let mut values = vec![T::ZERO; x.numel()];
    x.copy_data(&mut values, x.numel());
    values
}

/// The bytes of `x`, of any device and layout, row by row in the machine's order.
pub fn bytes(x: &Tensor) -> Vec<u8> {
    let x = x.to_device(Device::Cpu).contiguous();
    let mut bytes = vec![0; x.numel() * x.kind().elt_size_in_bytes()];
    x.copy_data_u8(&mut bytes, x.numel());
    bytes
}
