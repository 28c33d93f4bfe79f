//! Attention and its gradients against the formula in f64, for every way the shapes can lie.

use tch::{Device, Kind, Tensor};
use vqdiffusion::torch::attention::{attend, attend_joined, Mask};

/// softmax(q kᵀ / √d) v head by head, as the formula says.
fn formula(q: &Tensor, k: &Tensor, v: &Tensor, heads: i64, mask: Mask) -> Tensor {
    let width = q.size()[2] / heads;
    let out: Vec<Tensor> = (0..heads)
        .map(|h| {
            let [q, k, v] = [q, k, v].map(|x| x.narrow(2, h * width, width));
            let mut scores = q.matmul(&k.transpose(1, 2)) / (width as f64).sqrt();
            if mask == Mask::Causal {
                let hidden = scores.ones_like().triu(1).to_kind(Kind::Bool);
                scores = scores.masked_fill(&hidden, f64::NEG_INFINITY);
            }
            let weights = (&scores - scores.amax([-1], true)).exp();
            (&weights / weights.sum_dim_intlist([-1].as_slice(), true, None::<Kind>)).matmul(&v)
        })
        .collect();
    Tensor::cat(&out, 2)
}

/// Heads, width of a head, queries, keys.
const SHAPES: [[i64; 4]; 12] = [
    [1, 1, 1, 1],
    [3, 12, 64, 64],
    [2, 17, 63, 65], // odd widths
    [4, 8, 5, 191],
    [2, 32, 16, 192], // whole blocks of keys, and one more or less
    [2, 32, 17, 193],
    [2, 32, 33, 385],
    [1, 64, 130, 77],
    [1, 80, 49, 31],
    [2, 3, 100, 2],
    [1, 129, 66, 97],
    [1, 512, 20, 40],
];

fn randn(shape: &[i64], kind: Kind) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind)
}

/// Largest difference as a share of the largest value of what is expected.
fn difference(found: &Tensor, expected: &Tensor) -> f64 {
    let found = found.to_kind(Kind::Double);
    assert_eq!(found.size(), expected.size());
    assert_eq!(found.isfinite().all().int64_value(&[]), 1);
    let scale = expected.abs().max().double_value(&[]).max(1e-3);
    (found - expected).abs().max().double_value(&[]) / scale
}

fn leaf(x: &Tensor, kind: Kind) -> Tensor {
    x.detach().copy().to_kind(kind).set_requires_grad(true)
}

/// Values and gradients of one call against the formula's.
fn check(inputs: [Tensor; 3], heads: i64, mask: Mask, bound: f64, what: &str) {
    let kind = inputs[0].kind();
    let exact = inputs.each_ref().map(|x| leaf(x, Kind::Double));
    let expected = formula(&exact[0], &exact[1], &exact[2], heads, mask);
    let arriving = randn(&expected.size(), kind);
    (&expected * arriving.to_kind(Kind::Double))
        .sum(Kind::Double)
        .backward();

    let own = inputs.each_ref().map(|x| leaf(x, kind));
    let found = attend(&own[0], &own[1], &own[2], heads, mask);
    let error = difference(&found, &expected);
    assert!(error < bound, "{what}: {error}");
    (&found * &arriving).sum(Kind::Float).backward();
    for (name, own, exact) in [("q", 0), ("k", 1), ("v", 2)].map(|(n, i)| (n, &own[i], &exact[i])) {
        let error = difference(&own.grad(), &exact.grad());
        assert!(error < 2.0 * bound, "{what}: gradient of {name}: {error}");
    }

    // Without a graph the same bits come out.
    let again = tch::no_grad(|| attend(&inputs[0], &inputs[1], &inputs[2], heads, mask));
    assert_eq!(again, found.detach(), "{what}");

    if inputs[0].size() == inputs[1].size() {
        let joined = leaf(&Tensor::cat(&inputs, 2), kind);
        let of_joined = attend_joined(&joined, heads, mask);
        assert_eq!(of_joined, found.detach(), "{what}: joined");
        (&of_joined * &arriving).sum(Kind::Float).backward();
        let apart = own.each_ref().map(|x| x.grad());
        assert_eq!(joined.grad(), Tensor::cat(&apart, 2), "{what}: joined");
    }
}

#[test]
fn attention_and_its_gradients_follow_the_formula() {
    tch::manual_seed(5);
    for [heads, width, queries, keys] in SHAPES {
        for (kind, bound) in [(Kind::Float, 2e-6), (Kind::BFloat16, 1.5e-2)] {
            for mask in [Mask::Nothing, Mask::Causal] {
                if mask == Mask::Causal && queries != keys {
                    continue;
                }
                let rows = |n: i64| randn(&[2, n, heads * width], kind);
                let what =
                    format!("{heads} heads of {width}, {queries} × {keys}, {kind:?}, {mask:?}");
                check(
                    [rows(queries), rows(keys), rows(keys)],
                    heads,
                    mask,
                    bound,
                    &what,
                );
            }
        }
    }
}

/// Scores far from 0 and far from each other: the greatest decides, and nothing overflows.
#[test]
fn large_scores_do_no_harm() {
    tch::manual_seed(6);
    for shift in [-3e4, 0.0, 3e4] {
        let k = randn(&[1, 300, 16], Kind::Float) * 100.0;
        let v = randn(&[1, 300, 16], Kind::Float);
        // A constant added to every score of a query changes nothing.
        let q = randn(&[1, 40, 16], Kind::Float) * 100.0;
        let one = Tensor::full([1, 300, 1], shift, (Kind::Float, Device::Cpu));
        let k = Tensor::cat(&[k.narrow(2, 0, 15), one], 2);
        let q = Tensor::cat(&[q.narrow(2, 0, 15), q.narrow(2, 15, 1).sign()], 2);
        let [a, b, c] = [&q, &k, &v].map(|x| x.to_kind(Kind::Double));
        let error = difference(
            &attend(&q, &k, &v, 1, Mask::Nothing),
            &formula(&a, &b, &c, 1, Mask::Nothing),
        );
        assert!(error < 2e-3, "{shift}: {error}");
    }
}

/// Rows with gaps, repeated batches, and a sample's bits alone and among others.
#[test]
fn layout_and_batch_do_not_matter() {
    tch::manual_seed(7);
    for kind in [Kind::Float, Kind::BFloat16] {
        let wide = randn(&[3, 70, 200], kind);
        let [q, k, v] = [(0, 48), (50, 48), (101, 48)].map(|(at, n)| wide.narrow(2, at, n));
        let found = attend(&q, &k, &v, 4, Mask::Nothing);
        let [a, b, c] = [&q, &k, &v].map(|x| x.contiguous());
        assert_eq!(attend(&a, &b, &c, 4, Mask::Nothing), found);
        for row in 0..3 {
            let [a, b, c] = [&q, &k, &v].map(|x| x.narrow(0, row, 1));
            let alone = attend(&a, &b, &c, 4, Mask::Nothing);
            assert_eq!(alone, found.narrow(0, row, 1));
        }
        let [k, v] = [&k, &v].map(|x| x.narrow(0, 0, 1).expand([3, -1, -1], false));
        let [b, c] = [&k, &v].map(|x| x.contiguous());
        let repeated = attend(&q, &k, &v, 4, Mask::Nothing);
        assert_eq!(repeated, attend(&q, &b, &c, 4, Mask::Nothing));
        // Channels before positions, as a convolution leaves them.
        let turned = a.transpose(1, 2).contiguous().transpose(1, 2);
        let error = difference(
            &attend(&turned, &b, &c, 4, Mask::Nothing),
            &attend(&a, &b, &c, 4, Mask::Nothing).to_kind(Kind::Double),
        );
        assert!(error < 1.5e-2, "{error}");
    }
}
