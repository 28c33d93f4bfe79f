//! Moments of features: the same bits whoever adds which block when.

use tch::{Device, Kind, Tensor};
use vqdiffusion::metrics::moments::BLOCK;
use vqdiffusion::metrics::{Gaussian, Moments};

const WIDTH: i64 = 3;
/// Six whole blocks and a part of one: a tree that is not full.
const ROWS: i64 = 6 * BLOCK + 77;

/// Numbers far from their mean's zero, so that another order of sums shows.
fn features() -> Tensor {
    let n = Tensor::arange(ROWS * WIDTH, (Kind::Double, Device::Cpu));
    let x = (&n * 0.7311).sin() * 3.0 + (&n * n.sin()).cos() * 0.01 + 17.3;
    x.view([ROWS, WIDTH]).to_kind(Kind::Float)
}

/// Moments of the blocks `places`, added in that order.
fn part(features: &Tensor, places: &[u64]) -> Moments {
    let blocks = features.split(BLOCK, 0);
    let mut moments = Moments::default();
    for &place in places {
        moments.add(place, &blocks[place as usize]);
    }
    moments
}

fn bits(gaussian: &Gaussian) -> Vec<u64> {
    let all = Tensor::cat(
        &[gaussian.mean.view([-1]), gaussian.covariance().view([-1])],
        0,
    );
    let all: Vec<f64> = all.try_into().expect("numbers");
    all.iter().map(|x| x.to_bits()).collect()
}

/// The moments of `parts`, merged in that order.
fn merged(features: &Tensor, parts: &[&[u64]]) -> Vec<u64> {
    let mut moments = Moments::default();
    for places in parts {
        moments.merge(part(features, places));
    }
    bits(&moments.gaussian().expect("moments"))
}

#[test]
fn order_and_grouping_change_no_bit() {
    let features = features();
    let in_order = part(&features, &[0, 1, 2, 3, 4, 5, 6]);
    let expected = bits(&in_order.gaussian().expect("moments"));
    let groupings: [&[&[u64]]; 7] = [
        &[&[0, 1, 2, 3, 4, 5, 6]],
        &[&[6, 5, 4, 3, 2, 1, 0]],
        &[&[0, 2, 4, 6], &[1, 3, 5]],
        &[&[1, 3, 5], &[0, 2, 4, 6]],
        &[&[6, 0], &[5, 1], &[4, 2], &[3]],
        &[&[3], &[0], &[6], &[2], &[5], &[1], &[4]],
        &[&[], &[1, 2, 3, 4, 5, 6], &[], &[0]],
    ];
    for parts in groupings {
        assert!(merged(&features, parts) == expected, "{parts:?}");
    }
}

#[test]
fn they_are_mean_and_covariance() {
    let features = features();
    let gaussian = part(&features, &[4, 0, 6, 1, 5, 3, 2])
        .gaussian()
        .expect("moments");
    let rows = features.to_kind(Kind::Double);
    let mean = rows.mean_dim(Some([0i64].as_slice()), false, Kind::Double);
    let covariance = rows.tr().cov(1, None::<Tensor>, None::<Tensor>);
    for (found, expected) in [
        (gaussian.mean.shallow_clone(), mean),
        (gaussian.covariance(), covariance),
    ] {
        let gap = (found - &expected).abs().max().double_value(&[]);
        let size = expected.abs().max().double_value(&[]);
        assert!(gap < 1e-12 * size, "{gap} of {size}");
    }
}
