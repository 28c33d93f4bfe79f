//! Kernel Inception distance: the unbiased squared maximum mean discrepancy under the
//! cubic kernel k(x, y) = (x·y / D + 1)³ (arXiv 1801.01401).

use tch::{Kind, Tensor};

use super::distances::tiles;
use super::error::{check_both, MetricError};

const MEASURE: &str = "KID";

/// Mean and standard deviation over subsets.
#[derive(Clone, Debug, PartialEq)]
pub struct Kid {
    pub mean: f64,
    /// Divided by the number of subsets.
    pub std: f64,
    /// Of each subset.
    pub values: Vec<f64>,
}

/// MMD² of features `[N, D]` and `[M, D]`, pairs of a picture with itself left out.
///
/// # Errors
///
/// Fewer than two pictures, other widths, or values that are not finite.
pub fn mmd(a: &Tensor, b: &Tensor) -> Result<f64, MetricError> {
    check_both(MEASURE, [a, b], 2)?;
    let _no_grad = tch::no_grad_guard();
    let (n, m) = (a.size()[0] as f64, b.size()[0] as f64);
    let within = |x: &Tensor, n: f64| {
        let itself = cubic(
            &x.to_kind(Kind::Double).square().sum_dim_intlist(
                Some([1i64].as_slice()),
                false,
                Kind::Double,
            ),
            x.size()[1],
        );
        (kernel_sum(x, x) - itself.sum(Kind::Double).double_value(&[])) / (n * (n - 1.0))
    };
    Ok(within(a, n) + within(b, m) - 2.0 * kernel_sum(a, b) / (n * m))
}

/// The kernel of inner products of features of width `width`.
fn cubic(inner: &Tensor, width: i64) -> Tensor {
    (inner / width as f64 + 1.0).pow_tensor_scalar(3)
}

/// Σ k(x, y) over all pairs.
fn kernel_sum(a: &Tensor, b: &Tensor) -> f64 {
    let mut sum = 0.0;
    tiles(a, b, |x, y, _| {
        let inner = x.matmul(&y.tr());
        sum += cubic(&inner, a.size()[1])
            .sum(Kind::Double)
            .double_value(&[]);
    });
    sum
}

/// Over subsets of both sides, given by their rows; usual are 100 of 1000 pictures.
///
/// # Errors
///
/// As [`mmd`]; no subset.
pub fn kid(a: &Tensor, b: &Tensor, subsets: &[(Vec<i64>, Vec<i64>)]) -> Result<Kid, MetricError> {
    let rows = |x: &Tensor, rows: &[i64]| {
        x.index_select(0, &Tensor::from_slice(rows).to_device(x.device()))
    };
    let values = subsets
        .iter()
        .map(|(of_a, of_b)| mmd(&rows(a, of_a), &rows(b, of_b)))
        .collect::<Result<Vec<f64>, _>>()?;
    if values.is_empty() {
        return Err(MetricError::TooFew {
            measure: MEASURE,
            what: "subsets",
            found: 0,
            least: 1,
        });
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
    Ok(Kid {
        mean,
        std: variance.sqrt(),
        values,
    })
}
