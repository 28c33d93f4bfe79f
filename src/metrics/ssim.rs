//! Structural similarity (Wang et al. 2004): Gaussian window of σ = 1.5 over 11 × 11
//! pixels, K₁ = 0.01, K₂ = 0.03.

use tch::{Kind, Tensor};

use super::error::MetricError;
use crate::picture::Picture;

const SIGMA: f64 = 1.5;
const RADIUS: i64 = 5;

/// Mean over pixels and channels of two 8-bit pictures of one size; windows that reach
/// over the edge do not count (as scikit-image computes it with `gaussian_weights`).
///
/// # Errors
///
/// Pictures of different sizes, or with a side below 11 pixels.
pub fn ssim(a: &Picture, b: &Picture) -> Result<f64, MetricError> {
    const MEASURE: &str = "SSIM";
    if (a.width, a.height) != (b.width, b.height) {
        let pixels = |p: &Picture| i64::from(p.width) * i64::from(p.height);
        return Err(MetricError::Pairs {
            measure: MEASURE,
            left: pixels(a),
            right: pixels(b),
        });
    }
    let side = i64::from(a.width.min(a.height));
    if side < 2 * RADIUS + 1 {
        return Err(MetricError::TooFew {
            measure: MEASURE,
            what: "pixels a side",
            found: side,
            least: 2 * RADIUS + 1,
        });
    }
    let _no_grad = tch::no_grad_guard();
    let planes = |p: &Picture| p.to_tensor().to_kind(Kind::Double).unsqueeze(1); // [3, 1, H, W]
    let (x, y) = (planes(a), planes(b));
    let window = window();
    let mean = |planes: &Tensor| {
        planes
            .conv2d(
                &window.view([1, 1, -1, 1]),
                None::<Tensor>,
                [1, 1],
                [0, 0],
                [1, 1],
                1,
            )
            .conv2d(
                &window.view([1, 1, 1, -1]),
                None::<Tensor>,
                [1, 1],
                [0, 0],
                [1, 1],
                1,
            )
    };
    let (mean_x, mean_y) = (mean(&x), mean(&y));
    let variance_x = mean(&x.square()) - mean_x.square();
    let variance_y = mean(&y.square()) - mean_y.square();
    let covariance = mean(&(&x * &y)) - &mean_x * &mean_y;
    let (c1, c2) = ((0.01f64 * 255.0).powi(2), (0.03f64 * 255.0).powi(2));
    let likeness = (&mean_x * &mean_y * 2.0 + c1) * (covariance * 2.0 + c2)
        / ((mean_x.square() + mean_y.square() + c1) * (variance_x + variance_y + c2));
    Ok(likeness.mean(Kind::Double).double_value(&[]))
}

/// The weights of a line of the window `[11]`, which add to 1.
fn window() -> Tensor {
    let at = Tensor::arange_start(-RADIUS, RADIUS + 1, (Kind::Double, tch::Device::Cpu));
    let weights = (at.square() / (-2.0 * SIGMA * SIGMA)).exp();
    &weights / weights.sum(Kind::Double)
}
