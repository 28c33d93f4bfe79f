//! Learning rates, clipping and averages in closed form, and where the corrected recipe
//! differs from the original's.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};
use vqdiffusion::train::engine::ema::EmaConfig;
use vqdiffusion::train::engine::learning_rate::{
    Course, LearningRate, LearningRateConfig, ThresholdMode,
};
use vqdiffusion::train::engine::optimizer::{
    clip, gradient_norm, GradientClipping, Optimizer, OptimizerConfig,
};
use vqdiffusion::train::{Parameters, Recipe};

fn config(warmup: u64, course: Course) -> LearningRateConfig {
    LearningRateConfig {
        start: 1e-5,
        peak: 1e-3,
        warmup,
        course,
    }
}

/// Rates of steps 1 … `steps` + 1.
fn rates(config: &LearningRateConfig, official: bool, steps: usize, loss: f64) -> Vec<f64> {
    let mut rate = LearningRate::new(config, official);
    let mut rates = vec![rate.rate];
    for _ in 0..steps {
        rate.step(loss);
        rates.push(rate.rate);
    }
    rates
}

#[test]
fn warm_up_is_a_line_to_the_peak() {
    let rates = rates(&config(10, Course::Constant), false, 20, 1.0);
    for (n, &rate) in rates.iter().enumerate() {
        let expected = 1e-5 + (1e-3 - 1e-5) * (n.min(10) as f64 / 10.0);
        assert!((rate - expected).abs() < 1e-15, "step {n}: {rate}");
    }
    let without = self::rates(&config(0, Course::Constant), false, 1, 1.0);
    assert_eq!(without, [1e-3, 1e-3]);
}

#[test]
fn the_cosine_goes_from_the_peak_to_its_minimum() {
    let course = Course::Cosine {
        total: 110,
        minimum: 1e-6,
    };
    let corrected = rates(&config(10, course.clone()), false, 200, 1.0);
    let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
    assert!(near(corrected[10], 1e-3), "{}", corrected[10]);
    assert!(near(corrected[60], 0.5e-3), "{}", corrected[60]);
    assert!(corrected[110..].iter().all(|&rate| near(rate, 1e-6)));
    // The original's counter starts late: a step more of warm-up, past the peak.
    let official = rates(&config(10, course), true, 11, 1.0);
    assert!(official[11] > 1e-3 && near(official[11], 1e-3 + (1e-3 - 1e-5) / 10.0));
}

#[test]
fn a_lucky_step_does_not_make_a_plateau() {
    let course = |window, patience| Course::Plateau {
        factor: 0.5,
        patience,
        threshold: 0.01,
        mode: ThresholdMode::Relative,
        cooldown: 0,
        minimum: 1e-6,
        window,
    };
    // A loss that falls slowly, but for one step far below.
    let loss = |n: usize| 2.0 - 0.002 * n as f64 - if n == 3 { 0.5 } else { 0.0 };
    let last = |window| {
        let mut rate = LearningRate::new(&config(0, course(window, 80)), false);
        (0..400).for_each(|n| rate.step(loss(n)));
        rate.rate
    };
    assert_eq!(last(10), 1e-3);
    assert!(last(1) < 1e-3);
    // A loss that stays is halved after the patience: the first window is the best, and
    // in those after it 50 steps pass before more than 40 are bad.
    let mut rate = LearningRate::new(&config(0, course(10, 40)), false);
    let rates: Vec<f64> = (0..120)
        .map(|_| {
            rate.step(1.0);
            rate.rate
        })
        .collect();
    assert_eq!(rates.iter().position(|&r| r < 1e-3), Some(59));
    assert_eq!(rates[119], 0.25e-3);
}

#[test]
fn clipping_ends_where_it_is_told_to() {
    let window = GradientClipping {
        norm: 0.5,
        start: 2,
        end: Some(5),
    };
    let applied = |recipe| {
        (0..8)
            .map(|n| window.applies(n, recipe))
            .collect::<Vec<_>>()
    };
    let corrected = [false, false, true, true, true, false, false, false];
    assert_eq!(applied(Recipe::Corrected), corrected);
    assert_eq!(applied(Recipe::Official), [true; 8]);
}

fn parameters(values: &[f32]) -> Parameters {
    let leaf = Tensor::from_slice(values).set_requires_grad(true);
    Parameters {
        tensors: BTreeMap::from([("w".to_string(), leaf)]),
    }
}

#[test]
fn one_step_of_adamw_in_closed_form() {
    let parameters = parameters(&[1.0, -2.0]);
    let w = &parameters.tensors["w"];
    (w * Tensor::from_slice(&[3f32, -4.0]))
        .sum(Kind::Float)
        .backward();
    assert!((gradient_norm(&parameters) - 5.0).abs() < 1e-6);
    clip(&parameters, 5.0, 0.5);
    assert!((gradient_norm(&parameters) - 0.5).abs() < 1e-6);
    let config = OptimizerConfig::default();
    let mut optimizer = Optimizer::new(&config, &parameters, |_| None);
    optimizer.step(&parameters, 0.1);
    // The first step moves by the rate against the gradient's sign, after the decay.
    let decayed = [1.0 - 0.1 * 0.045, -2.0 + 0.2 * 0.045];
    for (i, expected) in [decayed[0] - 0.1, decayed[1] + 0.1].into_iter().enumerate() {
        let found = w.double_value(&[i as i64]);
        assert!(
            (found - expected).abs() < 1e-6,
            "{found}, expected {expected}"
        );
    }
}

/// As PyTorch's optimizers have it.
#[test]
fn a_weight_without_a_gradient_stays() {
    let mut parameters = parameters(&[1.0, -2.0]);
    let idle = Tensor::from_slice(&[7f32]).set_requires_grad(true);
    parameters.tensors.insert("idle".into(), idle);
    let sum = |p: &Parameters| (&p.tensors["w"] * 3.0).sum(Kind::Float);
    sum(&parameters).backward();
    let norm = gradient_norm(&parameters);
    assert!((norm - 18f64.sqrt()).abs() < 1e-6, "{norm}");
    let mut optimizer = Optimizer::new(&OptimizerConfig::default(), &parameters, |_| None);
    optimizer.step(&parameters, 0.1);
    assert_eq!(parameters.tensors["idle"].double_value(&[0]), 7.0);
    assert_ne!(parameters.tensors["w"].double_value(&[0]), 1.0);
    // Forgotten, not added to.
    parameters.clear_gradients();
    assert!(parameters.gradients().is_empty());
    sum(&parameters).backward();
    assert!((gradient_norm(&parameters) - norm).abs() < 1e-6);
}

#[test]
fn the_average_follows_its_interval() {
    let weights = parameters(&[1.0]);
    let average = Parameters {
        tensors: BTreeMap::from([(
            "w".to_string(),
            Tensor::zeros([1], (Kind::Float, Device::Cpu)),
        )]),
    };
    let rule = EmaConfig {
        decay: 0.75,
        every: 3,
    };
    let mut values = Vec::new();
    for steps in 1..=6 {
        rule.update(&average, &weights, steps);
        values.push(average.tensors["w"].double_value(&[0]));
    }
    assert_eq!(values, [0.0, 0.0, 0.25, 0.25, 0.25, 0.4375]);
}
