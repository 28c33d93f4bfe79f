//! Distances between all pictures of two sets, a tile at a time.

use tch::{Kind, Tensor};

/// Rows and columns of a tile: 8 · 4096² bytes = 128 MiB for its f64 distances.
const TILE: i64 = 4096;

/// Calls `each` with the features `[≤ TILE, D]` f64 of both sides of every tile, and the
/// places of the first of each; tiles of one row of tiles come one after the other.
pub fn tiles(a: &Tensor, b: &Tensor, mut each: impl FnMut(&Tensor, &Tensor, [i64; 2])) {
    let parts = |x: &Tensor| x.split(TILE, 0);
    for (i, x) in parts(a).iter().enumerate() {
        let x = x.to_kind(Kind::Double);
        for (j, y) in parts(b).iter().enumerate() {
            let y = y.to_kind(Kind::Double);
            each(&x, &y, [i as i64 * TILE, j as i64 * TILE]);
        }
    }
}

/// Squared Euclidean distances `[n, m]` of features `[n, D]` and `[m, D]`, f64.
pub fn squared(x: &Tensor, y: &Tensor) -> Tensor {
    let squares = |x: &Tensor| {
        x.square()
            .sum_dim_intlist(Some([1i64].as_slice()), true, Kind::Double)
    };
    // In place: the tile is the largest tensor here.
    (x.matmul(&y.tr()) * -2.0)
        .g_add_(&squares(x))
        .g_add_(&squares(y).tr())
        .clamp_min_(0.0)
}

/// Squared distances `[N, k]` of every picture of `features` `[N, D]` to its k nearest
/// others, in increasing order. N is above k.
pub fn nearest_others(features: &Tensor, k: i64) -> Tensor {
    let rows = features.size()[0];
    let mut all = Vec::new();
    let mut row: Option<Tensor> = None; // the nearest so far of the row of tiles
    tiles(features, features, |x, y, [i, j]| {
        let mut found = squared(x, y);
        if i == j {
            let _ = found.fill_diagonal_(f64::INFINITY, false);
        }
        let candidates = match row.take() {
            Some(nearest) => Tensor::cat(&[nearest, smallest(&found, k)], 1),
            None => found,
        };
        let nearest = smallest(&candidates, k);
        match j + y.size()[0] == rows {
            true => all.push(nearest),
            false => row = Some(nearest),
        }
    });
    Tensor::cat(&all, 0)
}

/// The k smallest of each row, or all where there are fewer.
fn smallest(values: &Tensor, k: i64) -> Tensor {
    values.topk(k.min(values.size()[1]), 1, false, true).0
}
