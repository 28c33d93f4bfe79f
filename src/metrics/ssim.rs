//! Structural similarity (Wang et al. 2004) with K₁ = 0.01, K₂ = 0.03.

use tch::{Kind, Tensor};

use super::error::MetricError;
use crate::picture::Picture;

/// What is averaged around a pixel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SsimWindow {
    /// The paper's: Gaussian weights of σ = 1.5 over 11 × 11 pixels (scikit-image's
    /// `gaussian_weights` without `use_sample_covariance`).
    #[default]
    Gaussian,
    /// What scikit-image takes unasked: 7 × 7 pixels alike, variances divided by 49 − 1.
    Uniform7,
}

impl SsimWindow {
    /// The weights of a line, which add to 1.
    fn line(self) -> Tensor {
        const SIGMA: f64 = 1.5;
        let of = (Kind::Double, tch::Device::Cpu);
        let weights = match self {
            SsimWindow::Gaussian => {
                let at = Tensor::arange_start(-5, 6, of);
                (at.square() / (-2.0 * SIGMA * SIGMA)).exp()
            }
            SsimWindow::Uniform7 => Tensor::ones([7], of),
        };
        &weights / weights.sum(Kind::Double)
    }

    /// What a variance is multiplied with.
    fn sample(self) -> f64 {
        match self {
            SsimWindow::Gaussian => 1.0,
            SsimWindow::Uniform7 => 49.0 / 48.0,
        }
    }
}

/// Mean over pixels and channels of two 8-bit pictures of one size; windows that reach
/// over the edge do not count (as in scikit-image).
///
/// # Errors
///
/// Pictures of different sizes, or with a side below that of the window.
pub fn ssim(a: &Picture, b: &Picture, window: SsimWindow) -> Result<f64, MetricError> {
    const MEASURE: &str = "SSIM";
    if (a.width, a.height) != (b.width, b.height) {
        let pixels = |p: &Picture| i64::from(p.width) * i64::from(p.height);
        return Err(MetricError::Pairs {
            measure: MEASURE,
            left: pixels(a),
            right: pixels(b),
        });
    }
    let line = window.line();
    let least = line.size()[0];
    let side = i64::from(a.width.min(a.height));
    if side < least {
        return Err(MetricError::TooFew {
            measure: MEASURE,
            what: "pixels a side",
            found: side,
            least,
        });
    }
    let _no_grad = tch::no_grad_guard();
    let planes = |p: &Picture| p.to_tensor().to_kind(Kind::Double).unsqueeze(1); // [3, 1, H, W]
    let (x, y) = (planes(a), planes(b));
    let mean = |planes: &Tensor| {
        planes
            .conv2d(
                &line.view([1, 1, -1, 1]),
                None::<Tensor>,
                [1, 1],
                [0, 0],
                [1, 1],
                1,
            )
            .conv2d(
                &line.view([1, 1, 1, -1]),
                None::<Tensor>,
                [1, 1],
                [0, 0],
                [1, 1],
                1,
            )
    };
    let (mean_x, mean_y) = (mean(&x), mean(&y));
    let sample = window.sample();
    let variance_x = (mean(&x.square()) - mean_x.square()) * sample;
    let variance_y = (mean(&y.square()) - mean_y.square()) * sample;
    let covariance = (mean(&(&x * &y)) - &mean_x * &mean_y) * sample;
    let (c1, c2) = ((0.01f64 * 255.0).powi(2), (0.03f64 * 255.0).powi(2));
    let likeness = (&mean_x * &mean_y * 2.0 + c1) * (covariance * 2.0 + c2)
        / ((mean_x.square() + mean_y.square() + c1) * (variance_x + variance_y + c2));
    Ok(likeness.mean(Kind::Double).double_value(&[]))
}
