//! Which times are trained: importance sampling by the loss history
//! (arXiv 2111.14822 section 4.2, after improved DDPM).

use serde::{Deserialize, Serialize};

/// Weight of the newest loss in the history.
const RATE: f64 = 0.1;
/// How often each time must have been drawn before the history counts.
const WARM: f64 = 10.0;

/// What a time drawn more than once in a step leaves in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duplicates {
    /// The mean of its squared losses.
    Mean,
    /// One of them: the last, as in the original's scatter on the CPU.
    Last,
}

/// p_t ∝ √(E\[L_t²\]) once every time was seen more than ten times, uniform before.
#[derive(Clone, Debug, PartialEq)]
pub struct TimestepSampler {
    /// Moving average of the squared loss of each time (`Lt_history`).
    pub history: Vec<f64>,
    /// How often each time was drawn (`Lt_count`).
    pub count: Vec<f64>,
    duplicates: Duplicates,
}

impl TimestepSampler {
    /// `timesteps` is T.
    pub fn new(timesteps: usize, duplicates: Duplicates) -> Self {
        TimestepSampler {
            history: vec![0.0; timesteps],
            count: vec![0.0; timesteps],
            duplicates,
        }
    }

    /// The probability of each time; they sum to 1.
    pub fn probabilities(&self) -> Vec<f64> {
        let steps = self.history.len();
        if !self.count.iter().all(|&n| n > WARM) {
            return vec![1.0 / steps as f64; steps];
        }
        let mut weights: Vec<f64> = self
            .history
            .iter()
            .map(|h| (h + 1e-10).sqrt() + 1e-4)
            .collect();
        // The decoder term of t = 0 is of another kind and gets its neighbour's weight.
        if steps > 1 {
            weights[0] = weights[1];
        }
        let total: f64 = weights.iter().sum();
        weights.iter().map(|w| w / total).collect()
    }

    /// A time with its probability for each number `u` in [0, 1), by inverse CDF.
    pub fn draw(&self, u: &[f64]) -> (Vec<i64>, Vec<f64>) {
        let p = self.probabilities();
        let cumulative: Vec<f64> = p
            .iter()
            .scan(0.0, |sum, p| {
                *sum += p;
                Some(*sum)
            })
            .collect();
        u.iter()
            .map(|&u| {
                let t = cumulative.partition_point(|&c| c <= u).min(p.len() - 1);
                (t as i64, p[t])
            })
            .unzip()
    }

    /// Records the main losses of the samples at times `t`, undivided by p_t and
    /// without the auxiliary term.
    pub fn update(&mut self, t: &[i64], main: &[f64]) {
        let mut squares: Vec<(f64, f64)> = vec![(0.0, 0.0); self.history.len()];
        for (&t, &loss) in t.iter().zip(main) {
            let (sum, n) = &mut squares[t as usize];
            match self.duplicates {
                Duplicates::Mean => *sum += loss * loss,
                Duplicates::Last => *sum = loss * loss * (*n + 1.0),
            }
            *n += 1.0;
        }
        for (i, (sum, n)) in squares.into_iter().enumerate().filter(|(_, s)| s.1 > 0.0) {
            self.history[i] = (1.0 - RATE) * self.history[i] + RATE * sum / n;
            self.count[i] += n;
        }
    }
}
