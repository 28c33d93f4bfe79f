//! Which masked tokens leave the mask together.
//!
//! Seen by itself, a masked token leaves the mask when the share that is still masked falls
//! below a number v, uniform in [0, 1): then every step leaves it masked with the exact
//! posterior's probability. The exact process draws the numbers of a picture's tokens
//! independently. Drawn together they can keep apart the tokens that are drawn in one step,
//! which know nothing of each other.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::diffusion::noise::{Draw, Noise};
use crate::diffusion::posterior::Posterior;
use crate::torch::host::values;

/// How the numbers of a picture's tokens are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevealOrder {
    /// Each by itself: the exact process.
    #[default]
    Independent,
    /// Along a Halton sequence over the token grid (arXiv 2503.17076), from a random offset:
    /// the tokens of a step lie far from each other, and their count is nearly fixed. Every
    /// token's number is uniform as before.
    Halton,
}

impl RevealOrder {
    /// Whether this is the usual order, which records do not name.
    pub fn is_independent(&self) -> bool {
        *self == RevealOrder::Independent
    }

    /// The numbers of `batch` pictures over `grid` (rows, columns); none where every step
    /// decides for each token by itself.
    pub fn reveal(self, grid: [i64; 2], batch: i64, noise: &mut dyn Noise) -> Option<Reveal> {
        match self {
            RevealOrder::Independent => None,
            RevealOrder::Halton => Some(Reveal::halton(grid, batch, noise)),
        }
    }
}

/// When the masked tokens of a run leave the mask.
pub struct Reveal {
    /// v of every token, `[B · L]`.
    at: Vec<f64>,
    /// Share of the tokens masked at first that the steps so far leave masked.
    remaining: f64,
}

/// Below every threshold: the token stays.
pub(super) const STAYS: f64 = -1.0;

impl Reveal {
    /// v = (L − 1 − rank + u) / L: the ranks of [`halton`] shifted on the torus by one offset,
    /// and one u in [0, 1), for each picture. The first of the sequence leave first.
    fn halton(grid: [i64; 2], batch: i64, noise: &mut dyn Noise) -> Self {
        let [rows, columns] = grid.map(|side| side as usize);
        let length = rows * columns;
        let mut ranks = vec![0; length];
        for (rank, cell) in halton(rows, columns).into_iter().enumerate() {
            ranks[cell] = rank;
        }
        let drawn = values::<f64>(&noise.uniform(0, Draw::Order, &[batch, 3]));
        let at = drawn.chunks(3).flat_map(|drawn| {
            let down = (drawn[0] * rows as f64) as usize;
            let right = (drawn[1] * columns as f64) as usize;
            let part = drawn[2];
            let ranks = &ranks;
            (0..length).map(move |token| {
                let row = (token / columns + down) % rows;
                let column = (token % columns + right) % columns;
                let after = length - 1 - ranks[row * columns + column];
                (after as f64 + part) / length as f64
            })
        });
        Reveal {
            at: at.collect(),
            remaining: 1.0,
        }
    }

    /// The numbers `choice` `[B, L]` of the next step so that of the `masked` `[B · L]` tokens
    /// those leave the mask whose time has come. What they become remains `choice`'s decision.
    pub fn choose(&mut self, posterior: &Posterior, masked: &[bool], choice: &Tensor) -> Tensor {
        let stay = posterior.masked.stay;
        self.remaining *= stay;
        let tokens = values::<f64>(choice).into_iter().zip(masked).zip(&self.at);
        let chosen: Vec<f64> = tokens
            .map(|((u, masked), v)| match masked {
                false => u,
                true if *v < self.remaining => STAYS,
                true => (stay + (1.0 - stay) * u).min(BELOW_ONE),
            })
            .collect();
        Tensor::from_slice(&chosen).view_as(choice)
    }
}

const BELOW_ONE: f64 = 1.0 - f64::EPSILON / 2.0;

/// The cells of a grid, row by row, in the order in which the points (Φ_2(i), Φ_3(i)), i = 0,
/// 1, …, first visit them; Φ_b is the radical inverse in base b.
pub fn halton(rows: usize, columns: usize) -> Vec<usize> {
    let mut seen = vec![false; rows * columns];
    (0..)
        .map(|i| part_of(rows, i, 2) * columns + part_of(columns, i, 3))
        .filter(|&cell| !std::mem::replace(&mut seen[cell], true))
        .take(rows * columns)
        .collect()
}

/// ⌊`parts` · Φ_`base`(`i`)⌋, exactly.
fn part_of(parts: usize, mut i: usize, base: usize) -> usize {
    let (mut numerator, mut denominator) = (0, 1);
    while i > 0 {
        numerator = numerator * base + i % base;
        denominator *= base;
        i /= base;
    }
    parts * numerator / denominator
}
