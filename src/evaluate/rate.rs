//! Shares of successes with what is known of them.

use serde::Serialize;

/// Successes among trials.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rate {
    pub hits: usize,
    pub of: usize,
    /// hits / of, in 0…1.
    pub rate: f64,
    /// 95 % interval of the underlying probability (Wilson's score interval).
    pub interval: [f64; 2],
}

impl Rate {
    /// How many of `trials` are true; all of nothing is 0, within 0…1.
    pub fn new(trials: impl IntoIterator<Item = bool>) -> Self {
        let (mut hits, mut of) = (0, 0);
        for hit in trials {
            hits += usize::from(hit);
            of += 1;
        }
        Rate {
            hits,
            of,
            rate: hits as f64 / of.max(1) as f64,
            interval: wilson(hits as f64, of as f64),
        }
    }

    /// The same with an interval as if there had been so many `independent` trials, each of
    /// which stands for several that may be alike.
    pub fn of_independent(self, independent: usize) -> Self {
        let independent = independent.min(self.of) as f64;
        Rate {
            interval: wilson(self.rate * independent, independent),
            ..self
        }
    }
}

/// E. B. Wilson 1927: the p whose normal test does not reject hits / n.
fn wilson(hits: f64, n: f64) -> [f64; 2] {
    if n == 0.0 {
        return [0.0, 1.0];
    }
    const Z: f64 = 1.959_963_984_540_054;
    let p = hits / n;
    let shrink = 1.0 + Z * Z / n;
    let centre = (p + Z * Z / (2.0 * n)) / shrink;
    let half = Z / shrink * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    [(centre - half).max(0.0), (centre + half).min(1.0)]
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [low, high] = self.interval.map(|p| 100.0 * p);
        write!(f, "{:.1} % ({low:.1} to {high:.1})", 100.0 * self.rate)
    }
}
