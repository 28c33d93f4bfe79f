//! Differences of pairs with their intervals.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::evaluate::mean::sums;
use crate::metrics::bootstrap::ratio_interval;

/// One value of both runs; a hit is 1, a miss 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// The number of its prompt.
    pub prompt: usize,
    pub a: f64,
    pub b: f64,
}

/// A figure of both runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Paired {
    /// Means of the first and the second run.
    pub a: f64,
    pub b: f64,
    /// a − b.
    pub difference: f64,
    /// Its 95 % interval, by the bootstrap over the prompts.
    pub interval: [f64; 2],
    /// a / b of means of numbers that are not negative, where b is not 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Ratio>,
    /// Of a rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcnemar: Option<McNemar>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    pub ratio: f64,
    pub interval: [f64; 2],
}

/// The exact test of McNemar (1947) on the pairs that differ.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct McNemar {
    /// Hits of the first run that the second missed.
    pub only_a: usize,
    pub only_b: usize,
    /// Two-sided: how likely so uneven a split is, were both as good. Pictures of one prompt
    /// count as independent.
    pub p: f64,
}

impl Paired {
    /// Of at least one pair; `index` tells apart the figures of one comparison.
    pub fn new(pairs: &[Pair], is_rate: bool, index: u64) -> Self {
        let mut prompts: BTreeMap<usize, [f64; 3]> = BTreeMap::new();
        for pair in pairs {
            let part = prompts.entry(pair.prompt).or_default();
            *part = [part[0] + pair.a, part[1] + pair.b, part[2] + 1.0];
        }
        let parts = |of: fn(&[f64; 3]) -> [f64; 2]| prompts.values().map(of).collect::<Vec<_>>();
        let mean = |of: fn(&[f64; 3]) -> [f64; 2]| {
            let [above, below] = sums(&parts(of));
            above / below
        };
        let differences = |part: &[f64; 3]| [part[0] - part[1], part[2]];
        let ratios = |part: &[f64; 3]| [part[0], part[1]];
        let (a, b) = (mean(|p| [p[0], p[2]]), mean(|p| [p[1], p[2]]));
        let ratio = Ratio {
            ratio: a / b,
            interval: ratio_interval(&parts(ratios), 0, index),
        };
        let is_known = pairs.iter().all(|pair| pair.a >= 0.0 && pair.b >= 0.0)
            && [ratio.ratio, ratio.interval[0], ratio.interval[1]]
                .iter()
                .all(|number| number.is_finite());
        Paired {
            a,
            b,
            difference: a - b,
            interval: ratio_interval(&parts(differences), 0, index),
            ratio: (!is_rate && is_known).then_some(ratio),
            mcnemar: is_rate.then(|| McNemar::new(pairs)),
        }
    }
}

impl McNemar {
    fn new(pairs: &[Pair]) -> Self {
        let count = |differs: fn(&Pair) -> bool| pairs.iter().filter(|p| differs(p)).count();
        let (only_a, only_b) = (count(|p| p.a > p.b), count(|p| p.a < p.b));
        McNemar {
            only_a,
            only_b,
            p: two_sided(only_a, only_b),
        }
    }
}

/// The chance that of n = a + b fair throws the rarer side has at most min(a, b), doubled and
/// at most 1.
fn two_sided(a: usize, b: usize) -> f64 {
    let (n, least) = (a + b, a.min(b));
    // ln of C(n, k) 2⁻ⁿ, from one k to the next.
    let mut term = -(n as f64) * std::f64::consts::LN_2;
    let mut sum = term.exp();
    for k in 0..least {
        term += ((n - k) as f64).ln() - ((k + 1) as f64).ln();
        sum += term.exp();
    }
    (2.0 * sum).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(values: &[(usize, f64, f64)]) -> Vec<Pair> {
        let pair = |&(prompt, a, b): &(usize, f64, f64)| Pair { prompt, a, b };
        values.iter().map(pair).collect()
    }

    /// 2 Σ_{k ≤ 2} C(12, k) / 2¹² = 2 · 79 / 4096.
    #[test]
    fn the_test_of_mcnemar_is_the_binomial_one() {
        assert!((two_sided(2, 10) - 158.0 / 4096.0).abs() < 1e-12);
        assert_eq!(two_sided(10, 2), two_sided(2, 10));
        assert_eq!(two_sided(0, 0), 1.0);
        assert_eq!(two_sided(5, 5), 1.0);
        assert!((two_sided(0, 7) - 2.0 / 128.0).abs() < 1e-12);
        // No term underflows where the whole does not.
        assert!((two_sided(1000, 1100) - 0.030_6).abs() < 1e-3);
    }

    /// A constant difference is known for sure, however the prompts differ.
    #[test]
    fn what_prompts_have_in_common_cancels() {
        let values: Vec<_> = (0..50)
            .map(|i| (i, (i * i) as f64 + 1.5, (i * i) as f64 + 1.0))
            .collect();
        let found = Paired::new(&pairs(&values), false, 0);
        assert_eq!(found.difference, 0.5);
        assert_eq!(found.interval, [0.5; 2]);
        let ratio = found.ratio.unwrap();
        assert!((ratio.ratio - found.a / found.b).abs() < 1e-12);
        assert!(ratio.interval[0] < ratio.ratio && ratio.ratio < ratio.interval[1]);
    }

    /// Pictures of one prompt are no more than one: repeating them leaves the interval alone.
    #[test]
    fn pictures_of_a_prompt_are_drawn_together() {
        let once: Vec<_> = (0..40)
            .map(|i| (i, (i % 5) as f64, (i % 3) as f64))
            .collect();
        let thrice: Vec<_> = once.iter().flat_map(|&pair| [pair; 3]).collect();
        let [once, thrice] = [&once, &thrice].map(|v| Paired::new(&pairs(v), false, 4));
        assert_eq!(once.interval, thrice.interval);
        // Some may be 0, but not all that is divided by.
        assert_eq!(once.ratio, thrice.ratio);
        assert!(once.ratio.is_some_and(|found| found.ratio > 1.0));
        let none: Vec<_> = (0..40).map(|i| (i, 1.0, 0.0)).collect();
        assert_eq!(Paired::new(&pairs(&none), false, 4).ratio, None);
    }

    #[test]
    fn rates_count_what_only_one_run_hits() {
        let values = [
            (0, 1.0, 0.0),
            (1, 1.0, 1.0),
            (2, 0.0, 0.0),
            (3, 0.0, 1.0),
            (4, 1.0, 0.0),
        ];
        let found = Paired::new(&pairs(&values), true, 0);
        let mcnemar = found.mcnemar.unwrap();
        assert_eq!((mcnemar.only_a, mcnemar.only_b), (2, 1));
        assert!((found.difference - 0.2).abs() < 1e-12);
        assert_eq!(found.ratio, None);
    }
}
