//! CMMD: 1000 times the squared maximum mean discrepancy of CLIP embeddings under a
//! Gaussian kernel of σ = 10 (arXiv 2401.09603).

use tch::{Kind, Tensor};

use super::distances::{squared, tiles};
use super::error::{check_both, MetricError};

const SIGMA: f64 = 10.0;
const SCALE: f64 = 1000.0;

/// Of unit-norm embeddings `[N, D]` and `[M, D]`; all pairs count, those of a picture with
/// itself too, as in the published code.
///
/// # Errors
///
/// No pictures, other widths, or values that are not finite.
pub fn cmmd(a: &Tensor, b: &Tensor) -> Result<f64, MetricError> {
    check_both("CMMD", [a, b], 1)?;
    let _no_grad = tch::no_grad_guard();
    let mean = |x: &Tensor, y: &Tensor| {
        let mut sum = 0.0;
        tiles(x, y, |x, y, _| {
            let kernel = (squared(x, y) / (-2.0 * SIGMA * SIGMA)).exp();
            sum += kernel.sum(Kind::Double).double_value(&[]);
        });
        sum / (x.size()[0] * y.size()[0]) as f64
    };
    Ok(SCALE * (mean(a, a) + mean(b, b) - 2.0 * mean(a, b)))
}
