//! Fréchet distance of two Gaussians (FID, sFID, FD-DINOv2; arXiv 1706.08500, eq. 6).

use tch::{Kind, Tensor};

use super::error::{check_width, MetricError};
use super::moments::Gaussian;

/// |μ_a − μ_b|² + tr Σ_a + tr Σ_b − 2 tr (Σ_a Σ_b)^½.
///
/// With Σ = F Fᵀ the eigenvalues of Σ_a Σ_b are the squared singular values of F_aᵀ F_b,
/// so that the last trace is their sum: it stays finite and exact where covariances are
/// singular (fewer pictures than features), which a matrix root of the product does not.
///
/// # Errors
///
/// Different numbers of features.
pub fn frechet_distance(a: &Gaussian, b: &Gaussian) -> Result<f64, MetricError> {
    let _no_grad = tch::no_grad_guard();
    check_width("Fréchet distance", a.width(), b.width())?;
    let sum = |x: &Tensor| x.sum(Kind::Double).double_value(&[]);
    let gap = sum(&(&a.mean - &b.mean).square());
    let product = a.factor().tr().matmul(b.factor());
    let (_, values, _) = product.svd(true, false); // without vectors
    Ok(gap + a.trace() + b.trace() - 2.0 * sum(&values))
}
