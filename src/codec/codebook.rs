//! A codebook that follows the encoder by exponential averages (van den Oord et al.,
//! arXiv 1711.00937, appendix A.1; the original's `EMAVectorQuantizer`), its start by
//! k-means, and the revival of codes that nothing uses.
//!
//! Letters: P vectors, N entries, E width.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Kind, Tensor};

/// The next number in [0, 1) of the run's generator.
pub type Uniform<'a> = &'a mut dyn FnMut() -> f64;

/// Vectors whose distances to all entries are in memory together.
const CHUNK: i64 = 16_384;

/// The nearest entry of `table` `[N, E]` by Euclidean distance: `z` `[P, E]` → `[P]` int64.
pub fn nearest(z: &Tensor, table: &Tensor) -> Tensor {
    let _no_grad = tch::no_grad_guard();
    let half = table.square().sum_dim_intlist(-1, false, Kind::Float) * 0.5; // [N]
    let transposed = table.transpose(0, 1);
    let parts: Vec<Tensor> = z
        .split(CHUNK, 0)
        .iter()
        .map(|z| (z.matmul(&transposed) - &half).argmax(-1, false))
        .collect();
    Tensor::cat(&parts, 0)
}

/// Counts `[N]` and sums `[N, E]` of the vectors of each code; over processes they add up.
pub struct CodeStatistics {
    pub counts: Tensor,
    pub sums: Tensor,
}

impl CodeStatistics {
    /// Of the vectors `z` `[P, E]` with the codes `[P]`, for N entries.
    pub fn new(z: &Tensor, codes: &Tensor, entries: i64) -> Self {
        let _no_grad = tch::no_grad_guard();
        let options = (Kind::Float, z.device());
        let ones = Tensor::ones(codes.size(), options);
        CodeStatistics {
            counts: Tensor::zeros([entries], options).index_add(0, codes, &ones),
            sums: Tensor::zeros([entries, z.size()[1]], options).index_add(0, codes, &z.detach()),
        }
    }
}

/// The codebook with its running statistics, updated in place.
pub struct EmaCodebook {
    /// The entries e, `[N, E]`.
    pub embedding: Tensor,
    /// Running counts n, `[N]`.
    pub cluster_size: Tensor,
    /// Running sums s, `[N, E]`.
    pub embedding_avg: Tensor,
}

impl EmaCodebook {
    /// The original's start: sums equal to `embedding` `[N, E]`, counts 0.
    pub fn new(embedding: Tensor) -> Self {
        EmaCodebook {
            cluster_size: Tensor::zeros(
                [embedding.size()[0]],
                (embedding.kind(), embedding.device()),
            ),
            embedding_avg: embedding.copy(),
            embedding,
        }
    }

    /// Goes on with the running counts `[N]` and sums `[N, E]` of a codebook with these
    /// entries.
    pub fn continue_with(&mut self, counts: &Tensor, sums: &Tensor) {
        let _no_grad = tch::no_grad_guard();
        self.cluster_size.copy_(counts);
        self.embedding_avg.copy_(sums);
    }

    /// Goes on as if each entry had been used by its share of `batch` vectors for long.
    pub fn continue_with_equal(&mut self, batch: f64) {
        let counts = self.cluster_size.full_like(batch / self.entries() as f64); // [N]
        let sums = &self.embedding * counts.unsqueeze(1); // [N, E]
        self.continue_with(&counts, &sums);
    }

    /// Whether any vector was ever counted.
    pub fn is_started(&self) -> bool {
        self.cluster_size.sum(Kind::Float).double_value(&[]) > 0.0
    }

    pub fn entries(&self) -> i64 {
        self.embedding.size()[0]
    }

    /// n ← d·n + (1 − d)·counts, s ← d·s + (1 − d)·sums, e_k = s_k / ñ_k, where
    /// ñ_k = (n_k + ε) / (n + N·ε) · n with n = Σ n_k (Laplace smoothing).
    pub fn update(&mut self, statistics: &CodeStatistics, decay: f64, epsilon: f64) {
        let _no_grad = tch::no_grad_guard();
        let CodeStatistics { counts, sums } = statistics;
        let mut size = self.cluster_size.g_mul_scalar_(decay);
        let _ = size.g_add_(&(counts * (1.0 - decay)));
        let mut average = self.embedding_avg.g_mul_scalar_(decay);
        let _ = average.g_add_(&(sums * (1.0 - decay)));
        let total = self.cluster_size.sum(Kind::Float);
        let smoothed =
            (&self.cluster_size + epsilon) / (&total + self.entries() as f64 * epsilon) * &total; // [N]
        self.embedding
            .copy_(&(&self.embedding_avg / smoothed.unsqueeze(1)));
    }

    /// Starts from k-means over `z` `[P, E]`, as if each entry had been used by its share
    /// of `batch` vectors for long. A break says that `stop` was set meanwhile, and nothing
    /// has changed.
    pub fn start_from(
        &mut self,
        z: &Tensor,
        batch: f64,
        uniform: Uniform,
        stop: &AtomicBool,
    ) -> ControlFlow<()> {
        let _no_grad = tch::no_grad_guard();
        let Some((centers, counts)) = k_means(z, self.entries(), uniform, stop) else {
            return ControlFlow::Break(());
        };
        let sizes = counts * (batch / z.size()[0] as f64); // [N]
        self.continue_with(&sizes, &(&centers * sizes.unsqueeze(1)));
        self.embedding.copy_(&centers);
        ControlFlow::Continue(())
    }

    /// The entries whose running count is below `share` of the mean, `[D]`.
    fn dead(&self, share: f64) -> Tensor {
        let mean = self.cluster_size.mean(Kind::Float);
        let dead = self.cluster_size.lt_tensor(&(mean * share));
        dead.nonzero().squeeze_dim(1)
    }

    /// Whether [`revive`](Self::revive) would move any entry.
    pub fn has_dead(&self, share: f64) -> bool {
        let _no_grad = tch::no_grad_guard();
        self.dead(share).size()[0] > 0
    }

    /// Moves every entry whose running count is below `share` of the mean to a vector of
    /// `z` `[P, E]`, with a mean count. The vectors are drawn like the start's, far from all
    /// entries: drawn evenly they would mostly come from where there are entries enough (plain
    /// background), and split its codes further. Returns how many moved.
    pub fn revive(&mut self, z: &Tensor, share: f64, uniform: Uniform) -> i64 {
        let _no_grad = tch::no_grad_guard();
        let mean = self.cluster_size.mean(Kind::Float); // scalar
        let dead = self.dead(share);
        let count = dead.size()[0];
        if count == 0 {
            return 0;
        }
        let z = z.detach();
        let distance = &z
            - self
                .embedding
                .index_select(0, &nearest(&z, &self.embedding));
        let distance = distance.square().sum_dim_intlist(-1, false, Kind::Float); // [P]
        let Some(vectors) = spread(&z, count, Some(distance), uniform, &AtomicBool::new(false))
        else {
            return 0; // nothing stops it
        }; // [D, E]
        let sizes = mean.expand([count], false);
        let _ = self.cluster_size.index_copy_(0, &dead, &sizes);
        let sums = &vectors * &mean;
        let _ = self.embedding_avg.index_copy_(0, &dead, &sums);
        let _ = self.embedding.index_copy_(0, &dead, &vectors);
        count
    }
}

/// Lloyd iterations of the start.
const ITERATIONS: usize = 10;

/// Centres `[K, E]` and the counts `[K]` of their vectors, after ten Lloyd iterations
/// from vectors drawn by k-means++ among `z` `[P, E]`. A centre that loses all its vectors
/// stays where it is. None when `stop` is set meanwhile.
pub fn k_means(
    z: &Tensor,
    clusters: i64,
    uniform: Uniform,
    stop: &AtomicBool,
) -> Option<(Tensor, Tensor)> {
    let _no_grad = tch::no_grad_guard();
    let mut centers = spread(z, clusters, None, uniform, stop)?; // [K, E]
    for _ in 0..ITERATIONS {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        let found = CodeStatistics::new(z, &nearest(z, &centers), clusters);
        let counts = found.counts.unsqueeze(1); // [K, 1]
        let means = found.sums / counts.clamp_min(1.0);
        centers = means.where_self(&counts.gt(0.0), &centers);
    }
    let counts = CodeStatistics::new(z, &nearest(z, &centers), clusters).counts;
    Some((centers, counts))
}

/// `count` vectors of `z` `[P, E]` by the rule of k-means++ (Arthur and Vassilvitskii, 2007):
/// each is drawn with probability in proportion to the squared distance from the nearest one
/// so far. `distance` `[P]` is that from vectors that are there already; without any the
/// first is drawn evenly. None when `stop` is set meanwhile.
fn spread(
    z: &Tensor,
    count: i64,
    distance: Option<Tensor>,
    uniform: Uniform,
    stop: &AtomicBool,
) -> Option<Tensor> {
    let rows = z.size()[0];
    let mut distance = distance;
    let mut chosen = Vec::new();
    for _ in 0..count {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        let row = match &distance {
            None => Tensor::from_slice(&[(uniform() * rows as f64) as i64]).to_device(z.device()),
            Some(distance) => {
                let cumulated = distance.cumsum(0, Kind::Double);
                let target = cumulated.get(-1) * uniform();
                target
                    .unsqueeze(0)
                    .searchsorted(&cumulated, false, true, "right", None::<&Tensor>)
                    .clamp_max(rows - 1)
            }
        };
        let from_row = z - z.index_select(0, &row); // [P, E]
        let from_row = from_row.square().sum_dim_intlist(-1, false, Kind::Float);
        distance = Some(match distance {
            Some(distance) => distance.minimum(&from_row),
            None => from_row,
        });
        chosen.push(row);
    }
    Some(z.index_select(0, &Tensor::cat(&chosen, 0)))
}
