//! Vendi score: the number of pictures as different as can be that are as varied
//! (arXiv 2210.02410).

use tch::{Kind, Tensor};

use super::error::{check_features, MetricError};

/// exp of the entropy of the eigenvalues of X Xᵀ / N, the rows X of `features` `[N, D]`
/// scaled to unit length.
///
/// # Errors
///
/// No pictures, or values that are not finite.
pub fn vendi(features: &Tensor) -> Result<f64, MetricError> {
    check_features("Vendi score", features, 1)?;
    let _no_grad = tch::no_grad_guard();
    let rows = features.to_kind(Kind::Double);
    let rows = &rows
        / rows
            .norm_scalaropt_dim(2.0, [1], true)
            .clamp_min(f64::MIN_POSITIVE);
    let (n, d) = (rows.size()[0], rows.size()[1]);
    // Both products have the same eigenvalues other than zero.
    let gram = match n <= d {
        true => rows.matmul(&rows.tr()),
        false => rows.tr().matmul(&rows),
    };
    let values = (gram / n as f64).linalg_eigvalsh("L").clamp_min(0.0);
    let entropy = values.xlogy(&values).sum(Kind::Double).neg();
    Ok(entropy.exp().double_value(&[]))
}
