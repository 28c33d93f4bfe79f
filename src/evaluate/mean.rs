//! Means with what is known of them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::metrics::bootstrap::ratio_interval;

/// A mean over pictures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mean {
    pub mean: f64,
    /// 95 %, by the bootstrap over the prompts.
    pub interval: [f64; 2],
}

impl Mean {
    /// Of `values`, each with the place of its prompt. `index` tells apart the means of one
    /// report.
    pub fn new(values: impl IntoIterator<Item = (usize, f64)>, index: u64) -> Self {
        let parts = by_prompt(values);
        let sums = sums(&parts);
        Mean {
            mean: sums[0] / sums[1].max(1.0),
            interval: ratio_interval(&parts, 0, index),
        }
    }
}

impl std::fmt::Display for Mean {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [low, high] = self.interval;
        write!(f, "{:.2} ({low:.2} to {high:.2})", self.mean)
    }
}

/// Sum and count of the `values` of each prompt, in the order of their places.
fn by_prompt(values: impl IntoIterator<Item = (usize, f64)>) -> Vec<[f64; 2]> {
    let mut parts: BTreeMap<usize, [f64; 2]> = BTreeMap::new();
    for (prompt, value) in values {
        let part = parts.entry(prompt).or_default();
        *part = [part[0] + value, part[1] + 1.0];
    }
    parts.into_values().collect()
}

/// Both sums of `parts`.
pub fn sums(parts: &[[f64; 2]]) -> [f64; 2] {
    [0, 1].map(|of| parts.iter().map(|part| part[of]).sum())
}
