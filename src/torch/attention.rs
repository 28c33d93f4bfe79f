//! Multi-head attention.
//!
//! Letters of the shape comments: B batch, H heads, N queries, M keys, D width.

use std::ffi::c_char;

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use super::shim::{pointer, tensor};

extern "C" {
    fn vqd_has_attention(is_bf16: bool) -> bool;
    fn vqd_attention(
        inputs: *const *mut C_tensor,
        count: usize,
        heads: i64,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// All.
    Nothing,
    /// Those at its own position and before.
    Causal,
}

/// softmax(q kᵀ / √(D/H)) v of every head: `q` `[B, N, D]`, `k` and `v` `[B, M, D]` →
/// `[B, N, D]`; heads are contiguous chunks of the width.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, heads: i64, mask: Mask) -> Tensor {
    match has_kernel(&[q, k, v], mask) {
        true => kernel(&[q, k, v], heads),
        false => scaled_dot_product_attention(q, k, v, heads, mask),
    }
}

/// As [`attend`] of the three side by side, `[B, N, 3D]` → `[B, N, D]`.
pub fn attend_joined(qkv: &Tensor, heads: i64, mask: Mask) -> Tensor {
    if has_kernel(&[qkv], mask) {
        return kernel(&[qkv], heads);
    }
    let [q, k, v] = thirds(qkv);
    scaled_dot_product_attention(&q, &k, &v, heads, mask)
}

/// Whether our own kernel evaluates attention of such tensors (`csrc/attention.h`), which is
/// several times as fast as libtorch's: on CPUs with AVX-512, in f32 and, where the CPU
/// multiplies it, bf16.
fn has_kernel(inputs: &[&Tensor], mask: Mask) -> bool {
    let kind = inputs[0].kind();
    let suits = |x: &&Tensor| {
        x.device() == Device::Cpu && x.kind() == kind && x.stride().last() == Some(&1)
    };
    mask == Mask::Nothing
        && matches!(kind, Kind::Float | Kind::BFloat16)
        && inputs.iter().all(suits)
        && inputs.iter().all(|x| x.numel() > 0)
        // SAFETY: reads facts of the CPU and of libtorch's build.
        && unsafe { vqd_has_attention(kind == Kind::BFloat16) }
}

fn kernel(inputs: &[&Tensor], heads: i64) -> Tensor {
    let list: Vec<_> = inputs.iter().map(|x| pointer(x)).collect();
    // SAFETY: the list holds as many tensors as is said, and they live through the call.
    tensor("attention", |out| unsafe {
        vqd_attention(list.as_ptr(), list.len(), heads, out)
    })
}

fn scaled_dot_product_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: i64,
    mask: Mask,
) -> Tensor {
    let [q, k, v] = [q, k, v].map(|x| split_heads(x, heads));
    let is_causal = mask == Mask::Causal;
    Tensor::scaled_dot_product_attention(&q, &k, &v, None::<&Tensor>, 0.0, is_causal, None, false)
        .transpose(1, 2)
        .flatten(2, 3)
}

/// `[B, N, 3D]` → `[B, N, D]` three times.
pub fn thirds(joined: &Tensor) -> [Tensor; 3] {
    let parts = joined.chunk(3, 2);
    [0, 1, 2].map(|i| parts[i].shallow_clone())
}

/// As [`attend`] of all keys to `q`, `k` and `v`, whose weights `[B, H, N, M]` pass through
/// `change` behind the softmax: by plain products.
pub fn attend_weighing(
    qkv: [&Tensor; 3],
    heads: i64,
    change: impl FnOnce(&Tensor) -> Tensor,
) -> Tensor {
    let [q, k, v] = qkv.map(|x| split_heads(x, heads));
    let weights = scores(&q, &k).softmax(-1, q.kind());
    change(&weights).matmul(&v).transpose(1, 2).flatten(2, 3)
}

/// How much each query attends to each key, the mean over the heads: `q` `[B, N, D]`, `k`
/// `[B, M, D]` → f32 `[B, N, M]`, every row summing to 1.
pub fn mean_weights(q: &Tensor, k: &Tensor, heads: i64) -> Tensor {
    let [q, k] = [q, k].map(|x| split_heads(x, heads));
    scores(&q, &k)
        .softmax(-1, Kind::Float)
        .mean_dim([1i64].as_slice(), false, Kind::Float)
}

/// q kᵀ / √(D/H): `[B, H, N, D / H]` and `[B, H, M, D / H]` → `[B, H, N, M]`.
fn scores(q: &Tensor, k: &Tensor) -> Tensor {
    q.matmul(&k.transpose(-2, -1)) / (q.size()[3] as f64).sqrt()
}

/// `[B, N, D]` → `[B, H, N, D / H]`.
fn split_heads(x: &Tensor, heads: i64) -> Tensor {
    x.unflatten(2, [heads, -1]).transpose(1, 2)
}
