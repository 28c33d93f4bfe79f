//! Multi-head attention.
//!
//! Letters of the shape comments: B batch, H heads, N queries, M keys, D width.

use tch::{Kind, Tensor};

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
    let [q, k, v] = [q, k, v].map(|x| split_heads(x, heads));
    let is_causal = mask == Mask::Causal;
    Tensor::scaled_dot_product_attention(&q, &k, &v, None::<&Tensor>, 0.0, is_causal, None, false)
        .transpose(1, 2)
        .flatten(2, 3)
}

/// As [`attend`] of the three side by side, `[B, N, 3D]` → `[B, N, D]`.
pub fn attend_joined(qkv: &Tensor, heads: i64, mask: Mask) -> Tensor {
    let [q, k, v] = thirds(qkv);
    attend(&q, &k, &v, heads, mask)
}

/// `[B, N, 3D]` → `[B, N, D]` three times.
pub fn thirds(joined: &Tensor) -> [Tensor; 3] {
    let parts = joined.chunk(3, 2);
    [0, 1, 2].map(|i| parts[i].shallow_clone())
}

/// How much each query attends to each key, the mean over the heads: `q` `[B, N, D]`, `k`
/// `[B, M, D]` → f32 `[B, N, M]`, every row summing to 1.
pub fn mean_weights(q: &Tensor, k: &Tensor, heads: i64) -> Tensor {
    let [q, k] = [q, k].map(|x| split_heads(x, heads));
    let scale = (q.size()[3] as f64).sqrt();
    (q.matmul(&k.transpose(-2, -1)) / scale)
        .softmax(-1, Kind::Float)
        .mean_dim([1i64].as_slice(), false, Kind::Float)
}

/// `[B, N, D]` → `[B, H, N, D / H]`.
fn split_heads(x: &Tensor, heads: i64) -> Tensor {
    x.unflatten(2, [heads, -1]).transpose(1, 2)
}
