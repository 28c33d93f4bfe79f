//! Mean and covariance of features, added in fixed blocks.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::error::{check_features, MetricError};

/// Pictures of a block; the last one of a set may hold fewer.
pub const BLOCK: i64 = 1024;

const MEASURE: &str = "mean and covariance";

/// A Gaussian by its mean `[D]` and covariance `[D, D]`, f64.
#[derive(Debug)]
pub struct Gaussian {
    pub mean: Tensor,
    covariance: Option<Tensor>,
    /// Σ = F Fᵀ.
    factor: OnceCell<Tensor>,
}

impl Gaussian {
    /// Of features `[N, D]`, N at least 2; the covariance is divided by N − 1.
    ///
    /// # Errors
    ///
    /// Too few rows, or values that are not finite.
    pub fn of(features: &Tensor) -> Result<Self, MetricError> {
        check_features(MEASURE, features, 2)?;
        let _no_grad = tch::no_grad_guard();
        let (rows, width) = (features.size()[0], features.size()[1]);
        if rows <= width {
            // Singular: the centred features are a factor that nothing rounded.
            let features = features.to_kind(Kind::Double);
            let mean = features.mean_dim(Some([0i64].as_slice()), false, Kind::Double);
            let factor = (features - &mean).tr() / ((rows - 1) as f64).sqrt();
            return Ok(Gaussian {
                mean,
                covariance: None,
                factor: OnceCell::from(factor),
            });
        }
        let mut moments = Moments::default();
        for (block, rows) in features.split(BLOCK, 0).iter().enumerate() {
            moments.add(block as u64, rows);
        }
        moments.gaussian()
    }

    /// From a mean `[D]` and a covariance `[D, D]`, both f64.
    pub fn new(mean: Tensor, covariance: Tensor) -> Self {
        Gaussian {
            mean,
            covariance: Some(covariance),
            factor: OnceCell::new(),
        }
    }

    /// Features D.
    pub fn width(&self) -> i64 {
        self.mean.size()[0]
    }

    /// Σ `[D, D]`.
    pub fn covariance(&self) -> Tensor {
        match &self.covariance {
            Some(covariance) => covariance.shallow_clone(),
            None => self.factor().matmul(&self.factor().tr()),
        }
    }

    /// tr Σ.
    pub fn trace(&self) -> f64 {
        let trace = match &self.covariance {
            Some(covariance) => covariance.trace(),
            None => self.factor().square().sum(Kind::Double),
        };
        trace.double_value(&[])
    }

    /// F `[D, R]` with F Fᵀ = Σ. Eigenvalues that rounding made negative count as zero.
    pub fn factor(&self) -> &Tensor {
        self.factor.get_or_init(|| {
            let _no_grad = tch::no_grad_guard();
            let (values, vectors) = self.covariance().linalg_eigh("L"); // [D], columns
            vectors * values.clamp_min(0.0).sqrt()
        })
    }
}

/// The moments of a part of the pictures: of whole blocks, by their place in the set.
///
/// Blocks are joined as the nodes of one binary tree over all blocks, whose shape the
/// number of pictures decides. So the result is the same to the last bit whoever adds
/// which block when, and however many processes' moments are merged; kept are a few nodes
/// where blocks come in order.
#[derive(Default)]
pub struct Moments {
    /// By height in the tree and place in the row of that height.
    nodes: BTreeMap<(u32, u64), Node>,
}

struct Node {
    rows: f64,
    mean: Tensor,    // [D]
    scatter: Tensor, // [D, D]: Σ (x − mean)(x − mean)ᵀ
}

impl Node {
    fn of(rows: &Tensor) -> Self {
        let rows = rows.to_kind(Kind::Double);
        let mean = rows.mean_dim(Some([0i64].as_slice()), false, Kind::Double);
        let centred = &rows - &mean;
        Node {
            rows: rows.size()[0] as f64,
            scatter: centred.tr().matmul(&centred),
            mean,
        }
    }

    /// The moments of both (Chan, Golub and LeVeque 1979).
    fn join(&self, right: &Node) -> Node {
        let rows = self.rows + right.rows;
        let gap = &right.mean - &self.mean;
        Node {
            rows,
            mean: &self.mean + &gap * (right.rows / rows),
            scatter: &self.scatter
                + &right.scatter
                + gap.outer(&gap) * (self.rows * right.rows / rows),
        }
    }
}

impl Moments {
    /// Adds `rows` `[1…BLOCK, D]`, the pictures from `block` · [`BLOCK`] on. Every block
    /// is added once; all but the last of the set are whole.
    pub fn add(&mut self, block: u64, rows: &Tensor) {
        let _no_grad = tch::no_grad_guard();
        self.insert(0, block, Node::of(rows));
    }

    /// Takes over the blocks of `other`, none of which are here.
    pub fn merge(&mut self, other: Moments) {
        for ((height, place), node) in other.nodes {
            self.insert(height, place, node);
        }
    }

    fn insert(&mut self, height: u32, place: u64, node: Node) {
        let Some(sibling) = self.nodes.remove(&(height, place ^ 1)) else {
            self.nodes.insert((height, place), node);
            return;
        };
        let joined = match place & 1 {
            0 => node.join(&sibling),
            _ => sibling.join(&node),
        };
        self.insert(height + 1, place >> 1, joined);
    }

    /// # Errors
    ///
    /// Fewer than two pictures, or values that are not finite.
    pub fn gaussian(&self) -> Result<Gaussian, MetricError> {
        let mut left: Vec<_> = self.nodes.iter().collect();
        left.sort_by_key(|((height, place), _)| place << height);
        let joined =
            left.into_iter()
                .map(|(_, node)| node)
                .fold(None, |so_far: Option<Node>, node| match so_far {
                    Some(so_far) => Some(so_far.join(node)),
                    None => Some(Node {
                        rows: node.rows,
                        mean: node.mean.shallow_clone(),
                        scatter: node.scatter.shallow_clone(),
                    }),
                });
        let rows = joined.as_ref().map_or(0.0, |node| node.rows);
        let Some(node) = joined.filter(|node| node.rows >= 2.0) else {
            return Err(MetricError::TooFew {
                measure: MEASURE,
                what: "pictures",
                found: rows as i64,
                least: 2,
            });
        };
        let covariance = node.scatter / (rows - 1.0);
        let finite = covariance.isfinite().all().int64_value(&[]) != 0;
        if !finite {
            return Err(MetricError::NotFinite { measure: MEASURE });
        }
        Ok(Gaussian::new(node.mean, covariance))
    }
}
