//! Muon (Jordan et al. 2024, <https://kellerjordan.github.io/posts/muon/>): momentum whose
//! update of a matrix is made nearly orthogonal, in the size that AdamW's updates have
//! (Liu et al., arXiv 2502.16982), so that one learning rate serves both.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

/// Says of a parameter's name how many hidden weight matrices lie one below the other in
/// its tensor; none for embeddings, heads, norms and whatever else is no such matrix.
pub type HiddenMatrices = fn(&str) -> Option<i64>;

/// a, b and c of a Newton–Schulz iteration X ← a X + (b A + c A²) X with A = X Xᵀ. It takes
/// singular values of 0.001 to 1 to about 0.7 to 1.2 in five iterations.
const COEFFICIENTS: [f64; 3] = [3.4445, -4.775, 2.0315];
const ITERATIONS: usize = 5;
/// RMS of AdamW's updates, about.
const RMS: f64 = 0.2;
/// Values that are made orthogonal together, at most.
const TOGETHER: i64 = 1 << 25;

/// The constants of Muon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MuonConstants {
    /// μ of the average m ← μ m + (1 − μ) g.
    pub momentum: f64,
    pub weight_decay: f64,
}

/// A parameter of one or several matrices with what belongs to it.
pub struct HiddenSlot<'a> {
    pub parameter: &'a Tensor,
    pub gradient: &'a Tensor,
    /// The running average of its gradients.
    pub average: &'a Tensor,
    /// Matrices that lie in it, one below the other.
    pub matrices: i64,
}

impl HiddenSlot<'_> {
    /// Rows and columns of each matrix.
    fn shape(&self) -> (i64, i64) {
        let size = self.parameter.size();
        (size[0] / self.matrices, size[1])
    }

    /// Nesterov's direction (1 − μ) g + μ m `[matrices, rows, columns]` after m has learnt g.
    fn direction(&self, momentum: f64) -> Tensor {
        let (rows, columns) = self.shape();
        let _ = self
            .average
            .shallow_clone()
            .lerp_(self.gradient, 1.0 - momentum);
        let direction = self.gradient.lerp(self.average, momentum);
        direction.reshape([self.matrices, rows, columns])
    }
}

/// Updates all parameters and averages in place at this learning rate: W ← (1 − η λ) W −
/// 0.2 √max(rows, columns) η O, where O is the direction of each matrix, orthogonalised.
pub fn muon(slots: &[HiddenSlot], rate: f64, constants: &MuonConstants) {
    let _no_grad = tch::no_grad_guard();
    let mut groups: BTreeMap<(i64, i64), Vec<&HiddenSlot>> = BTreeMap::new();
    for slot in slots {
        groups.entry(slot.shape()).or_default().push(slot);
    }
    for ((rows, columns), group) in groups {
        let most = (TOGETHER / (rows * columns)).max(1) as usize;
        for some in group.chunks(most) {
            let directions: Vec<_> = some
                .iter()
                .map(|slot| slot.direction(constants.momentum))
                .collect();
            let updates = orthogonalised(&Tensor::cat(&directions, 0));
            let updates = updates * (-rate * RMS * (rows.max(columns) as f64).sqrt());
            let mut first = 0;
            for slot in some {
                let update = updates.narrow(0, first, slot.matrices);
                let mut parameter = slot.parameter.shallow_clone();
                let _ = parameter.g_mul_scalar_(1.0 - rate * constants.weight_decay);
                let _ = parameter.g_add_(&update.reshape(parameter.size()));
                first += slot.matrices;
            }
        }
    }
}

/// What Newton–Schulz makes of each of `matrices` `[n, rows, columns]` f32: the same singular
/// vectors, singular values near 1. On GPUs the products are bf16, elsewhere f32.
pub fn orthogonalised(matrices: &Tensor) -> Tensor {
    let is_tall = matrices.size()[1] > matrices.size()[2];
    let wide = match is_tall {
        true => matrices.transpose(1, 2),
        false => matrices.shallow_clone(),
    };
    let norm = wide.norm_scalaropt_dim(2, [1i64, 2].as_slice(), true);
    let kind = match matrices.device() {
        Device::Cuda(_) => Kind::BFloat16,
        _ => Kind::Float,
    };
    let [a, b, c] = COEFFICIENTS;
    let mut x = (wide / norm.clamp_min(1e-7)).to_kind(kind);
    for _ in 0..ITERATIONS {
        let gram = x.bmm(&x.transpose(1, 2)); // [n, rows, rows]
        let polynomial = gram.baddbmm(&gram, &gram, b, c);
        x = x.baddbmm(&polynomial, &x, a, 1.0);
    }
    let x = x.to_kind(Kind::Float);
    match is_tall {
        true => x.transpose(1, 2),
        false => x,
    }
}
