//! Muon against its definition, from singular values.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};
use vqdiffusion::train::diffusion::model::hidden_matrices;
use vqdiffusion::train::engine::muon::orthogonalised;
use vqdiffusion::train::engine::optimizer::{Optimizer, OptimizerConfig, OptimizerKind};
use vqdiffusion::train::Parameters;

use crate::drawn::drawn;

fn random(shape: &[i64], seed: u64) -> Tensor {
    drawn(seed as i64, || {
        Tensor::randn(shape, (Kind::Float, Device::Cpu))
    })
}

/// O of the quintic iteration: U p(p(p(p(p(Σ / ‖Σ‖))))) Vᵀ in f64, with p(s) = 3.4445 s −
/// 4.775 s³ + 2.0315 s⁵.
fn by_singular_values(matrix: &Tensor) -> Tensor {
    let (u, s, v) = matrix.to_kind(Kind::Double).svd(true, true);
    let mut s = &s / s.square().sum(Kind::Double).sqrt();
    for _ in 0..5 {
        s = &s * 3.4445 - s.pow_tensor_scalar(3) * 4.775 + s.pow_tensor_scalar(5) * 2.0315;
    }
    u.matmul(&s.diag(0)).matmul(&v.transpose(0, 1))
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    let difference = a.to_kind(Kind::Double) - b.to_kind(Kind::Double);
    difference.abs().max().double_value(&[])
}

#[test]
fn newton_schulz_is_the_polynomial_of_the_singular_values() {
    for (rows, columns) in [(24, 24), (16, 64), (64, 16), (1, 8)] {
        let matrices = random(&[3, rows, columns], 7);
        let found = orthogonalised(&matrices);
        for n in 0..3 {
            let expected = by_singular_values(&matrices.get(n));
            let error = difference(&found.get(n), &expected);
            assert!(error < 2e-5, "{rows} × {columns}: {error}");
        }
        // Alone or together, whatever their scale.
        let alone = orthogonalised(&(matrices.narrow(0, 1, 1) * 1e-3));
        assert!(difference(&alone.get(0), &found.get(1)) < 2e-5);
        let values = found.svd(true, true).1;
        let [least, most] = [values.min(), values.max()].map(|s| s.double_value(&[]));
        // A square matrix may be nearly singular.
        assert!(
            rows == columns || least > 0.6,
            "{rows} × {columns}: {least}"
        );
        assert!(most < 1.25, "{rows} × {columns}: {most}");
    }
    let nothing = orthogonalised(&Tensor::zeros([1, 4, 6], (Kind::Float, Device::Cpu)));
    assert_eq!(nothing.abs().max().double_value(&[]), 0.0);
}

/// Steps with given gradients: W ← (1 − η λ) W − 0.2 √max(n, m) η O, O of Nesterov's direction
/// (1 − μ) g + μ m, m ← μ m + (1 − μ) g. Query, key and value of a joined tensor are three
/// matrices; a bias, an embedding and the linear layer of a norm are AdamW's.
#[test]
fn updates_follow_the_definition() {
    let (rate, decay, momentum) = (0.02, 0.1, 0.8);
    let config = OptimizerConfig {
        kind: OptimizerKind::Muon,
        momentum: Some(momentum),
        weight_decay: decay,
        ..OptimizerConfig::default()
    };
    let block = "transformer.transformer.blocks.0";
    let resblock = "transformer.condition_emb.transformer.resblocks.1";
    let shapes: [(String, &[i64], i64); 7] = [
        (format!("{block}.attn1.query.weight"), &[12, 12], 1),
        (format!("{block}.mlp.0.weight"), &[48, 12], 1),
        (format!("{block}.mlp.2.weight"), &[12, 48], 1),
        (format!("{resblock}.attn.in_proj_weight"), &[24, 8], 3),
        (format!("{block}.mlp.0.bias"), &[48], 0),
        (format!("{block}.ln1.linear.weight"), &[24, 12], 0),
        (
            "transformer.transformer.content_emb.emb.weight".into(),
            &[9, 12],
            0,
        ),
    ];
    let leaves = || Parameters {
        tensors: shapes
            .iter()
            .zip(0..)
            .map(|((name, shape, _), n)| (name.clone(), random(shape, n).set_requires_grad(true)))
            .collect(),
    };
    let (parameters, others) = (leaves(), leaves());
    let mut optimizer = Optimizer::new(&config, &parameters, hidden_matrices);
    let usual = OptimizerConfig {
        kind: OptimizerKind::Adamw,
        ..config.clone()
    };
    let mut adamw = Optimizer::new(&usual, &others, hidden_matrices);
    let mut expected: BTreeMap<&str, (Tensor, Tensor)> = BTreeMap::new();
    for (name, shape, _) in &shapes {
        let weight = parameters.tensors[name].detach().to_kind(Kind::Double);
        let average = Tensor::zeros(*shape, (Kind::Double, Device::Cpu));
        expected.insert(name, (weight, average));
    }
    for step in 0..3u64 {
        for group in [&parameters, &others] {
            group.clear_gradients();
            let terms = group
                .tensors
                .values()
                .zip(0..)
                .map(|(p, n)| (p * random(&p.size(), 100 + 10 * step + n)).sum(Kind::Float));
            terms.for_each(|term| term.backward());
        }
        optimizer.step(&parameters, rate);
        adamw.step(&others, rate);
        for (name, shape, matrices) in shapes.iter().filter(|(_, _, n)| *n > 0) {
            let gradient = parameters.tensors[name].grad().to_kind(Kind::Double);
            let (weight, average) = expected.get_mut(name.as_str()).expect("a name");
            *average = &*average * momentum + &gradient * (1.0 - momentum);
            let direction = gradient * (1.0 - momentum) + &*average * momentum;
            let parts: Vec<_> = direction
                .chunk(*matrices, 0)
                .iter()
                .map(by_singular_values)
                .collect();
            let longer = (shape[0] / matrices).max(shape[1]) as f64;
            *weight = &*weight * (1.0 - rate * decay)
                - Tensor::cat(&parts, 0) * (rate * 0.2 * longer.sqrt());
        }
    }
    for (name, _, matrices) in &shapes {
        let found = &parameters.tensors[name];
        if *matrices > 0 {
            let (weight, average) = &expected[name.as_str()];
            assert!(difference(found, weight) < 1e-5, "{name}");
            assert!(difference(&optimizer.averages.tensors[name], average) < 1e-5);
        } else {
            assert_eq!(difference(found, &others.tensors[name]), 0.0, "{name}");
        }
        let has_square = optimizer.square_averages.tensors.contains_key(name);
        assert_eq!(has_square, *matrices == 0, "{name}");
    }
}
