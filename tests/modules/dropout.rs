//! Masks of dropout: their shares, that they are independent, and gradients through them.

use tch::{Device, Kind, Tensor};
use vqdiffusion::torch::attention::{attend, attend_weighing, Mask};
use vqdiffusion::transformer::dropout::{kept, kept_by_operators, Place};
use vqdiffusion::transformer::{Dropout, DropoutRates};

use crate::drawn::drawn;

const RATES: DropoutRates = DropoutRates {
    attention: 0.1,
    residual: 0.25,
};

const PLACES: [Place; 5] = [
    Place::SelfWeights,
    Place::SelfOutput,
    Place::TextWeights,
    Place::TextOutput,
    Place::FeedForward,
];

/// What is left of ones `[B, 64, 96]` in a layer and place, as residual dropout has it.
fn left(seed: u64, samples: &[u64], layer: usize, place: Place) -> Tensor {
    let dropout = Dropout::new(RATES, seed, samples, 3);
    let size = [samples.len() as i64, 64, 96];
    let options = (Kind::Double, Device::Cpu);
    let (ones, zeros) = (Tensor::ones(size, options), Tensor::zeros(size, options));
    dropout.layer(layer).add(&ones, &zeros, place)
}

fn mean(x: &Tensor) -> f64 {
    x.mean(Kind::Double).double_value(&[])
}

/// Values are 0 or 1 / (1 − p), their mean is 1 and their variance p / (1 − p), to within five
/// standard deviations.
#[test]
fn the_share_of_dropped_values_is_the_rate() {
    let samples: Vec<u64> = (0..32).collect();
    for place in PLACES {
        let x = left(1, &samples, 0, place);
        let n = x.numel() as f64;
        let rate = RATES.residual;
        let scale = 1.0 / (1.0 - rate);
        let dropped = mean(&x.eq(0.0).to_kind(Kind::Double));
        let others = mean(&(&x - scale).abs().lt(1e-12).to_kind(Kind::Double));
        assert!((dropped + others - 1.0).abs() < 1e-12);
        let deviation = (rate * (1.0 - rate) / n).sqrt();
        assert!(
            (dropped - rate).abs() < 5.0 * deviation,
            "{place:?}: {dropped}"
        );
        let variance = mean(&(&x - 1.0).square());
        let bound = 5.0 * deviation * scale * scale;
        assert!((variance - rate / (1.0 - rate)).abs() < bound, "{variance}");
        // Of each channel, each position and each sample, six deviations of so many.
        for dims in [[0i64, 1], [0, 2], [1, 2]] {
            let means = x.mean_dim(dims.as_slice(), false, Kind::Double);
            let each = (rate / (1.0 - rate) / (n / means.numel() as f64)).sqrt();
            let most = (means - 1.0).abs().max().double_value(&[]);
            assert!(most < 6.0 * each, "{place:?}, {dims:?}: {most}");
        }
    }
    for rate in [1e-3, 0.5, 0.97] {
        let keys: Vec<u64> = (0..8u64)
            .map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .collect();
        let share = mean(&kept(&keys, &[8, 50_000], rate, Device::Cpu).to_kind(Kind::Double));
        let deviation = (rate * (1.0 - rate) / 4e5).sqrt();
        assert!(
            (1.0 - rate - share).abs() < 5.0 * deviation,
            "{rate}: {share}"
        );
    }
}

/// Masks of other samples, layers, places and seeds, and neighbours in a mask, are
/// uncorrelated.
#[test]
fn masks_are_independent() {
    let base = left(1, &[7], 0, Place::SelfOutput);
    let mut others = vec![
        left(2, &[7], 0, Place::SelfOutput),
        left(1, &[8], 0, Place::SelfOutput),
        left(1, &[7 + (1 << 32)], 0, Place::SelfOutput),
        left(1, &[7], 1, Place::SelfOutput),
        left(1, &[7], 2, Place::SelfOutput),
    ];
    let elsewhere = PLACES.into_iter().filter(|p| *p != Place::SelfOutput);
    others.extend(elsewhere.map(|place| left(1, &[7], 0, place)));
    others.extend([1, 2, 64, 96, 97, 256, 1024, 4096].map(|shift| base.roll([shift], [])));
    let n = base.numel() as f64;
    for (i, other) in others.iter().enumerate() {
        let correlation = mean(&((&base - 1.0) * (other - 1.0))) / (1.0 / 3.0);
        assert!(correlation.abs() < 5.0 / n.sqrt(), "{i}: {correlation}");
    }
}

/// A sample's masks are the same in whatever batch it is, and on whatever device.
#[test]
fn masks_depend_on_the_sample_alone() {
    let samples = [900, 3, 4, 1 << 40];
    for (layer, place) in [(0, Place::SelfWeights), (2, Place::FeedForward)] {
        let all = left(5, &samples, layer, place);
        for (row, &sample) in samples.iter().enumerate() {
            let alone = left(5, &[sample], layer, place);
            assert_eq!(alone, all.narrow(0, row as i64, 1));
        }
    }
    let keys = [0, u64::MAX, 0x0123_4567_89ab_cdef, 1 << 63];
    for rate in [1e-6, 0.1, 0.5, 0.999] {
        let fast = kept(&keys, &[4, 10_000], rate, Device::Cpu);
        let least = ((rate * 2f64.powi(32)) as i64 - (1 << 31)) as i32;
        assert_eq!(kept_by_operators(&keys, 10_000, least, Device::Cpu), fast);
    }
}

fn doubles(shape: &[i64], seed: i64) -> Tensor {
    drawn(seed, || Tensor::randn(shape, (Kind::Double, Device::Cpu)))
}

/// Attention whose weights pass by unchanged is attention; with masks it is the formula's, and
/// the gradients are those of finite differences with the masks held.
#[test]
fn gradients_through_masks() {
    let (heads, size) = (2, [2i64, 5, 6]);
    let [q, k, v, residual] = [1, 2, 3, 4].map(|n| doubles(&size, n).set_requires_grad(true));
    let plain = attend_weighing([&q, &k, &v], heads, Tensor::shallow_clone);
    let error = (&plain - attend(&q, &k, &v, heads, Mask::Nothing))
        .abs()
        .max();
    assert!(error.double_value(&[]) < 1e-12);

    let dropout = Dropout::new(RATES, 11, &[40, 41], 1);
    let layer = dropout.layer(0);
    let weigh = doubles(&size, 5);
    let loss = |[q, k, v, residual]: [&Tensor; 4]| {
        let y = attend_weighing([q, k, v], heads, |w| layer.weights(w, Place::SelfWeights));
        (layer.add(&y, residual, Place::SelfOutput) * &weigh).sum(Kind::Double)
    };
    loss([&q, &k, &v, &residual]).backward();
    let _no_grad = tch::no_grad_guard();
    // Some of the attention weights are really dropped.
    let ones = Tensor::ones([2, heads, 5, 5], (Kind::Double, Device::Cpu));
    let some = layer.weights(&ones, Place::SelfWeights);
    assert!(some.eq(0.0).any().int64_value(&[]) == 1);
    let step = 1e-6;
    for (n, leaf) in [&q, &k, &v, &residual].into_iter().enumerate() {
        for at in 0..leaf.numel() as i64 {
            let moved = |by: f64| {
                let inputs = [&q, &k, &v, &residual].map(|x| x.detach().copy());
                let flat = inputs[n].view(-1);
                let _ = flat.narrow(0, at, 1).g_add_scalar_(by);
                loss(inputs.each_ref()).double_value(&[])
            };
            let expected = (moved(step) - moved(-step)) / (2.0 * step);
            let found = leaf.grad().view(-1).double_value(&[at]);
            assert!(
                (found - expected).abs() < 1e-7,
                "{n}, {at}: {found}, {expected}"
            );
        }
    }
    // What is dropped of the output has no gradient behind it, and is not in the sum.
    let inputs = [&q, &k, &v];
    let y = attend_weighing(inputs, heads, |w| layer.weights(w, Place::SelfWeights));
    let added = layer.add(&y, &residual, Place::SelfOutput) - &residual;
    let is_dropped = added.eq(0.0);
    let others = (added - y / 0.75).abs().masked_fill(&is_dropped, 0.0).max();
    assert!(others.double_value(&[]) < 1e-12);
    let share = mean(&is_dropped.to_kind(Kind::Double));
    assert!((0.05..0.5).contains(&share), "{share}");
}
