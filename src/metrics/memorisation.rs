//! Whether generated pictures are copies: the nearest training picture, and AuthPct
//! (arXiv 2102.08921; as in dgm-eval).

use tch::{Kind, Tensor};

use super::distances::{nearest_others, squared, tiles};
use super::error::{check_both, MetricError};

const MEASURE: &str = "nearest training picture";

/// The nearest training picture of every generated one.
pub struct Nearest {
    /// Its row: `[N]` int64.
    pub index: Tensor,
    /// The Euclidean distance of the features: `[N]` f64.
    pub distance: Tensor,
}

/// Of generated features `[N, D]` among training features `[M, D]`.
///
/// # Errors
///
/// No pictures, other widths, or values that are not finite.
pub fn nearest(generated: &Tensor, train: &Tensor) -> Result<Nearest, MetricError> {
    check_both(MEASURE, [generated, train], 1)?;
    let _no_grad = tch::no_grad_guard();
    let device = generated.device();
    let rows = generated.size()[0];
    let best = Tensor::full([rows], f64::INFINITY, (Kind::Double, device));
    let index = Tensor::zeros([rows], (Kind::Int64, device));
    tiles(generated, train, |x, y, [i, j]| {
        let (found, at) = squared(x, y).min_dim(1, false);
        let mut best = best.narrow(0, i, found.size()[0]);
        let mut index = index.narrow(0, i, found.size()[0]);
        let nearer = found.lt_tensor(&best);
        index.copy_(&(at + j).where_self(&nearer, &index));
        best.copy_(&found.where_self(&nearer, &best));
    });
    Ok(Nearest {
        index,
        distance: best.sqrt(),
    })
}

/// Per cent of generated pictures that are authentic: whose nearest training picture has
/// another training picture nearer to it than they are.
///
/// # Errors
///
/// Fewer than two training pictures, and as [`nearest`].
pub fn authpct(generated: &Tensor, train: &Tensor) -> Result<f64, MetricError> {
    check_both("AuthPct", [train, train], 2)?;
    let nearest = nearest(generated, train)?;
    let _no_grad = tch::no_grad_guard();
    let between = nearest_others(train, 1).squeeze_dim(1).sqrt(); // [M]
    let authentic = between
        .index_select(0, &nearest.index)
        .lt_tensor(&nearest.distance);
    Ok(100.0
        * authentic
            .to_kind(Kind::Double)
            .mean(Kind::Double)
            .double_value(&[]))
}
