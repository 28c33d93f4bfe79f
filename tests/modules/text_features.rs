//! What the network reads of a text tower, against what the tower holds behind its last
//! norm: `normalize: false`, and the doubled width of `embed_dim: 1024` over a tower of 512.

use tch::{Device, Kind, Tensor};
use vqdiffusion::clip::text::FeatureConfig;
use vqdiffusion::clip::{TextConfig, TextEncoder};
use vqdiffusion::torch::params::RandomWeights;
use vqdiffusion::torch::Params;

use crate::drawn::drawn;

/// A tower's features of the same two texts of five tokens, `[2, 5, C]`; the weights are
/// always the same.
fn features(normalized: bool, doubled: bool) -> Tensor {
    let config = TextConfig {
        vocabulary: 20,
        merges: Default::default(),
        context: 5,
        width: 64,
        layers: 2,
        heads: 1,
        hidden: 96,
        tokens: Default::default(),
        features: FeatureConfig {
            normalized,
            doubled,
        },
    };
    assert_eq!(config.features(), [5, if doubled { 128 } else { 64 }]);
    let _no_grad = tch::no_grad_guard();
    let params = Params::new(&RandomWeights, Device::Cpu, Kind::Float);
    let tower = drawn(6, || TextEncoder::new(&params, &config));
    let tokens = Tensor::from_slice(&[18i64, 3, 4, 19, 0, 18, 7, 19, 0, 0]).view([2, 5]);
    tower.forward(&tokens)
}

fn norms(x: &Tensor) -> Tensor {
    x.square()
        .sum_dim_intlist([-1i64].as_slice(), true, Kind::Double)
        .sqrt()
}

#[track_caller]
fn near(found: &Tensor, expected: &Tensor) {
    assert_eq!(found.size(), expected.size());
    let gap = (found - expected).abs().max().double_value(&[]);
    let size = expected.abs().max().double_value(&[]);
    assert!(gap <= 1e-6 * size, "{gap} of {size}");
}

#[test]
fn normalized_features_are_the_others_over_their_norm() {
    let plain = features(false, false);
    let lengths = norms(&plain);
    // Behind a norm without gains every position is √C long: dividing does something.
    assert!(lengths.min().double_value(&[]) > 2.0, "{lengths}");
    near(&features(true, false), &(&plain / lengths));
}

#[test]
fn doubled_features_stand_twice_side_by_side() {
    let plain = features(false, false);
    let doubled = features(false, true);
    for half in [0, 64] {
        assert_eq!(doubled.narrow(-1, half, 64), plain);
    }
    // Doubled first, then divided: every half is 1/√2 long.
    let both = features(true, true);
    let half = features(true, false) / 2f64.sqrt();
    near(&both, &Tensor::cat(&[&half, &half], -1));
    let ones = Tensor::ones([2, 5, 1], (Kind::Double, Device::Cpu));
    near(&norms(&both), &ones);
}
