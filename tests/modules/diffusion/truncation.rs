//! Truncation by sums and thresholds, against a sort.

use tch::{Kind, Tensor};
use vqdiffusion::diffusion::truncation::Truncation;

use crate::diffusion::enumeration::*;

#[test]
fn truncation_keeps_what_a_sort_keeps() {
    let mut random = Random(9);
    for codes in [4usize, 16, 257] {
        for round in 0..60 {
            // Multiples of 2⁻²⁰ that sum to 1, with many equal ones: exact in f32.
            let levels = if round % 2 == 0 { 7.0 } else { 1e4 };
            let mut p: Vec<f64> = random
                .simplex(codes)
                .iter()
                .map(|p| (p * levels).round().max(1.0))
                .collect();
            let total: f64 = p.iter().sum();
            let unit = (2f64.powi(20) / total).floor();
            p.iter_mut().for_each(|p| *p *= unit / 2f64.powi(20));
            p[codes / 2] += 1.0 - p.iter().sum::<f64>();
            let tensor = Tensor::from_slice(&p).to_kind(Kind::Float).view([1, 1, -1]);
            let mut sorted = p.clone();
            sorted.sort_by(|x, y| y.total_cmp(x));
            let exact = sorted[..codes / 2].iter().sum::<f64>();
            for truncation in [0.05, 0.5, 0.75, 0.86, 0.99, exact, 1.0]
                .map(Truncation::TopP)
                .into_iter()
                .chain([1, 2, codes / 2, codes].map(|k| Truncation::TopK(k as i64)))
            {
                let expected = truncated(&p, truncation);
                assert_eq!(
                    floats(&truncation.apply(&tensor)),
                    expected,
                    "{truncation:?}"
                );
            }
            assert_eq!(floats(&Truncation::Off.apply(&tensor)), p);
        }
    }
}
