//! The exact reverse step: draw x̂_0 by inverse CDF, then the three-way choice of
//! [`ReverseKernel`], at just those positions that the choice lets change.
//!
//! Whether a position stays is decided by one uniform number against a threshold
//! that depends only on whether it is masked, and a masked position leaves the
//! mask exactly when it does not stay. So the positions to redraw at every step
//! are known before the network runs ([`Activity`]), and the network's last block
//! and head are needed at those alone.

use tch::{Device, Kind, Tensor};

use super::kernel::ReverseKernel;

/// Index of the code where the cumulated probability passes u:
/// `p` `[B, A, K]` (not necessarily normalised), `uniform` f64 `[B, A]` in [0, 1)
/// → int64 `[B, A]`. A code of probability 0 is never drawn.
pub fn inverse_cdf(p: &Tensor, uniform: &Tensor) -> Tensor {
    let cdf = p.cumsum(-1, Kind::Double); // [B, A, K]
    let total = cdf.slice(-1, -1, None, 1); // [B, A, 1]
    let target = uniform.unsqueeze(-1) * total; // [B, A, 1]
    let codes = cdf.size()[2];
    target
        .searchsorted(&cdf, false, true, "right", None::<&Tensor>)
        .clamp_max(codes - 1)
        .squeeze_dim(-1)
}

/// The uniform numbers of one step at the positions it redraws: f64 `[B, A]` each.
pub struct StepNoise {
    pub code: Tensor,
    pub choice: Tensor,
    pub replacement: Tensor,
}

/// x_s ~ q(x_s | x_t, x̂_0 ~ p) position by position: `p` `[B, A, K]` the guided and
/// truncated p(x̂_0), `x_t` int64 `[B, A]` with mask K → int64 `[B, A]`.
pub fn reverse_step(kernel: &ReverseKernel, p: &Tensor, x_t: &Tensor, noise: &StepNoise) -> Tensor {
    let codes = p.size()[2];
    let start = inverse_cdf(p, &noise.code); // x̂_0 [B, A]
    let replacement = (&noise.replacement * codes as f64).to_kind(Kind::Int64);
    let choose = |stay: f64, take: f64| {
        // stay | x̂_0 | replacement, in this order along the unit interval
        let moved = start.where_self(&noise.choice.lt(stay + take), &replacement);
        x_t.where_self(&noise.choice.lt(stay), &moved)
    };
    let masked = choose(kernel.masked.stay, kernel.masked.take);
    let differs = choose(kernel.differs.stay, kernel.differs.take);
    let agrees = choose(kernel.agrees.stay, kernel.agrees.take);
    let visible = agrees.where_self(&start.eq_tensor(x_t), &differs);
    masked.where_self(&x_t.eq(codes), &visible)
}

/// Which positions each step redraws, found from the noise alone.
pub struct Activity {
    /// For each step the positions `[B, A]` int64, or none if no token changes.
    /// Rows with fewer than A such positions are filled with positions that stay.
    steps: Vec<Option<Tensor>>,
}

impl Activity {
    /// `masked` `[B][L]`: where x_T is the mask; `choice[step]` f64 `[B · L]`: the
    /// numbers of [`StepNoise::choice`] at all positions.
    pub fn new(
        kernels: &[ReverseKernel],
        mut masked: Vec<Vec<bool>>,
        choice: &[Vec<f64>],
        device: Device,
    ) -> Self {
        let mut steps = Vec::with_capacity(kernels.len());
        for (kernel, choice) in kernels.iter().zip(choice) {
            let mut numbers = choice.iter();
            let mut rows: Vec<Vec<i64>> = Vec::with_capacity(masked.len());
            for image in &mut masked {
                let mut active = Vec::new();
                for (position, (masked, &u)) in image.iter_mut().zip(&mut numbers).enumerate() {
                    let kind = if *masked {
                        kernel.masked
                    } else {
                        kernel.differs
                    };
                    if u >= kind.stay {
                        *masked = false;
                        active.push(position as i64);
                    }
                }
                rows.push(active);
            }
            steps.push(pad_rows(&rows).map(|t| t.to_device(device)));
        }
        Activity { steps }
    }

    /// The positions `[B, A]` that step `i` redraws; `None` if there are none.
    pub fn at(&self, i: usize) -> Option<&Tensor> {
        self.steps[i].as_ref()
    }

    /// Steps that redraw anything: the network evaluations of the run.
    pub fn evaluations(&self) -> usize {
        self.steps.iter().flatten().count()
    }
}

/// Rows of equal length, filled up with the row's first entry (position 0 if it has
/// none): redrawing a position twice with the same numbers gives the same token.
fn pad_rows(rows: &[Vec<i64>]) -> Option<Tensor> {
    let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
    if longest == 0 {
        return None;
    }
    let padded: Vec<i64> = rows
        .iter()
        .flat_map(|row| {
            let filler = row.first().copied().unwrap_or(0);
            let fill = std::iter::repeat_n(filler, longest - row.len());
            row.iter().copied().chain(fill)
        })
        .collect();
    Some(Tensor::from_slice(&padded).view([rows.len() as i64, longest as i64]))
}
