//! The originals' log-space evaluation, against enumeration and published numbers.

use tch::{Device, Kind, Tensor};
use vqdiffusion::diffusion::compat::{
    diffusers, gumbel_argmax, log_prediction, official, LogSchedule,
};
use vqdiffusion::diffusion::guidance::Prediction;
use vqdiffusion::diffusion::noise::Draw;
use vqdiffusion::diffusion::truncation::Truncation;
use vqdiffusion::diffusion::{HostNoise, Noise, ReverseRule};

use crate::diffusion::enumeration::*;

#[test]
fn log_buffers_are_the_one_step_matrices() {
    for course in COURSES {
        let (timesteps, codes) = (10, 5);
        let chain = course.chain(timesteps, codes);
        let logs = LogSchedule::new(&course.schedule(timesteps, codes), Device::Cpu);
        let [a, b, c, not_c] = [&logs.log_at, &logs.log_bt, &logs.log_ct, &logs.log_1_min_ct]
            .map(|log| floats(&log.to_kind(Kind::Double).exp()));
        for (t, matrix) in chain.steps.iter().enumerate() {
            let row = &matrix[0];
            assert_close("b", &[b[t]], &[row[1]], 2e-6 * row[1]);
            assert_close("a", &[a[t]], &[row[0] - row[1]], 2e-6);
            assert_close("c", &[c[t]], &[row[codes]], 2e-6);
            assert_close("1 - c", &[not_c[t]], &[1.0 - row[codes]], 2e-6);
        }
    }
}

#[test]
fn log_posterior_is_the_enumerated_one() {
    let mut random = Random(5);
    for course in COURSES {
        let (timesteps, codes) = (10usize, 5usize);
        let chain = course.chain(timesteps, codes);
        let logs = LogSchedule::new(&course.schedule(timesteps, codes), Device::Cpu);
        let states = if course.name == "uniform" {
            codes
        } else {
            codes + 1
        };
        for t in 0..timesteps as i64 {
            for x_t in 0..states {
                let p = random.simplex(codes);
                let logits = Tensor::from_slice(&p).log().view([1, 1, -1]);
                let x = Tensor::full([1, 1], x_t as i64, (Kind::Int64, Device::Cpu));
                let time = Tensor::from_slice(&[t]);
                let found = logs.q_posterior(&log_prediction(&logits), &x, &time);
                let found = floats(&found.to_kind(Kind::Double).exp());
                let expected = chain.mixture(t - 1, t, x_t, &p);
                let what = format!("{} x_{t} = {x_t}", course.name);
                assert_close(&what, &found, &expected, 2e-6);
            }
        }
    }
}

#[test]
fn log_posterior_at_full_size() {
    // O(K²) from the closed-form entries of the matrices, T = 100, K = 2887.
    let (codes, mut random) = (2887usize, Random(6));
    for course in [RELEASED, PAPER] {
        let schedule = course.schedule(100, codes);
        let logs = LogSchedule::new(&schedule, Device::Cpu);
        for t in [0, 1, 2, 10, 50, 97, 98, 99i64] {
            let (now, then) = (schedule.at(t), schedule.at(t - 1));
            let a = now.keep / then.keep;
            let c = 1.0 - (1.0 - now.mask) / (1.0 - then.mask);
            let k = codes as f64;
            let (b, b_then, b_now) = ((1.0 - a - c) / k, then.uniform / k, now.uniform / k);
            let p = random.simplex(codes);
            for x_t in [codes, 17] {
                let mut expected = vec![0.0; codes + 1];
                for (start, p) in p.iter().enumerate() {
                    let is = |x: usize, y: usize| f64::from(u8::from(x == y));
                    let (mask, hit) = (x_t == codes, is(x_t, start));
                    let total = if mask {
                        now.mask
                    } else {
                        now.keep * hit + b_now
                    };
                    for (j, sum) in expected[..codes].iter_mut().enumerate() {
                        let forward = if mask { c } else { a * is(x_t, j) + b };
                        *sum += p * forward * (then.keep * is(j, start) + b_then) / total;
                    }
                    expected[codes] += p * then.mask * f64::from(u8::from(mask)) / total;
                }
                let logits = Tensor::from_slice(&p).log().view([1, 1, -1]);
                let x = Tensor::full([1, 1], x_t as i64, (Kind::Int64, Device::Cpu));
                let log_p = log_prediction(&logits);
                let found = logs.q_posterior(&log_p, &x, &Tensor::from_slice(&[t]));
                let found = floats(&found.to_kind(Kind::Double).exp());
                assert_close(&format!("{} at {t}", course.name), &found, &expected, 2e-6);
            }
        }
    }
}

#[test]
fn golden_posterior_and_divergence() {
    let logs = LogSchedule::new(&RELEASED.schedule(100, 5), Device::Cpu);
    let logits = Tensor::from_slice(&[1.0f32, 0.5, 0.0, -0.5, -1.0]).expand([1, 4, 5], false);
    let log_p = log_prediction(&logits);
    let (x_0, x_t) = (
        Tensor::from_slice(&[0i64, 1, 2, 3]).view([1, 4]),
        Tensor::from_slice(&[5i64, 1, 5, 2]).view([1, 4]),
    );
    let at = |t: i64, log_x0: &Tensor| logs.q_posterior(log_x0, &x_t, &Tensor::from_slice(&[t]));

    let model = at(49, &log_p).exp();
    let masked = [
        0.0087479, 0.0053059, 0.0032182, 0.0019519, 0.0011839, 0.9795922,
    ];
    assert_close("mask", &floats(&model.get(0).get(0)), &masked, 2e-6);
    let visible = [0.0084049, 0.0050978, 0.9834845, 0.0018754, 0.0011375, 0.0];
    assert_close("code 2", &floats(&model.get(0).get(3)), &visible, 2e-6);
    // The published digits themselves, by the matrices.
    let chain = RELEASED.chain(100, 5);
    let p = floats(&logits.get(0).get(0).softmax(-1, Kind::Double));
    assert_close("mask", &chain.mixture(48, 49, 5, &p), &masked, 6e-8);
    assert_close("code 2", &chain.mixture(48, 49, 2, &p), &visible, 6e-8);

    // t | KL per token | decoder −log p(x_{t−1} = x_0)
    for (t, divergences, nll) in [
        (0, [0.847102, 1.347102, 1.847102, 2.347102], 6.388407),
        (49, [0.017287, 0.014616, 0.037695, 0.042933], 16.771440),
        (99, [0.008549, 1.344491, 0.018648, 2.339434], 15.576920),
    ] {
        let (truth, model) = (at(t, &logs.log_one_hot(&x_0)), at(t, &log_p));
        let found = (truth.exp() * (&truth - &model)).sum_dim_intlist(-1, false, Kind::Float);
        assert_close(&format!("KL at {t}"), &floats(&found), &divergences, 4e-6);
        let found = -model
            .gather(-1, &x_0.unsqueeze(-1), false)
            .sum(Kind::Double);
        let found = found.double_value(&[]);
        assert!((found - nll).abs() < 2e-5, "NLL at {t}: {found}");
    }
    let nll = -log_p
        .gather(-1, &x_0.unsqueeze(-1), false)
        .sum(Kind::Double);
    assert!((nll.double_value(&[]) - 6.388407).abs() < 2e-6);
}

#[test]
fn diffusers_posterior_is_the_official_one() {
    let mut random = Random(8);
    for course in [RELEASED, PAPER, STRONG] {
        let codes = 6;
        let logs = LogSchedule::new(&course.schedule(10, codes), Device::Cpu);
        for t in 0..10i64 {
            let mut logits = || {
                let values: Vec<f64> = (0..7 * codes).map(|_| 6.0 * random.next()).collect();
                Tensor::from_slice(&values)
                    .to_kind(Kind::Float)
                    .view([1, 7, -1])
            };
            let prediction = Prediction {
                conditional: logits(),
                unconditional: Some(logits()),
            };
            let x = Tensor::from_slice(&[0i64, 1, 2, 3, 4, 5, 6]).view([1, 7]);
            let time = Tensor::from_slice(&[t]);
            for (scale, truncation) in [
                (1.0, Truncation::Off),
                (3.0, Truncation::Off),
                (5.0, Truncation::TopP(0.86)),
                (2.0, Truncation::TopK(2)),
            ] {
                let official =
                    official::truncation(&official::guidance(&prediction, scale), truncation);
                let diffusers =
                    diffusers::truncation(&diffusers::guidance(&prediction, scale), truncation);
                let found = logs.q_posterior(&diffusers, &x, &time).exp();
                let expected = logs.q_posterior(&official, &x, &time).exp();
                let what = format!("{} at {t}", course.name);
                assert_close(&what, &floats(&found), &floats(&expected), 2e-6);
                if t == 0 {
                    // diffusers takes p̂ itself at time 0.
                    let p = floats(&diffusers.exp());
                    assert_close(&what, &p, &floats(&expected), 2e-6);
                }
            }
        }
    }
}

#[test]
fn published_truncation_examples() {
    let log_p = Tensor::from_slice(&[0.5f32, 0.3, 0.15, 0.05])
        .log()
        .pad([0, 1], "constant", -70.0);
    let kept = |log_p: &Tensor, truncation| {
        let found = floats(&official::truncation(log_p, truncation));
        for (found, was) in found.iter().zip(floats(log_p)) {
            assert!(*found == was || *found == -70.0);
        }
        found.iter().filter(|&&log| log > -70.0).count()
    };
    assert_eq!(kept(&log_p, Truncation::TopP(0.86)), 3);
    assert_eq!(kept(&log_p, Truncation::TopP(0.75)), 2);
    assert_eq!(kept(&log_p, Truncation::TopP(0.8)), 3); // the f32 sum is below .8
    assert_eq!(kept(&log_p, Truncation::TopP(0.3)), 1);
    assert_eq!(kept(&log_p, Truncation::TopK(2)), 2);
    assert_eq!(kept(&log_p, Truncation::Off), 4);
    // Unsorted rows: the same codes are kept wherever they stand.
    let order = Tensor::from_slice(&[3i64, 1, 4, 0, 2]);
    let shuffled = log_p.index_select(0, &order);
    let expected = official::truncation(&log_p, Truncation::TopP(0.75)).index_select(0, &order);
    let found = official::truncation(&shuffled, Truncation::TopP(0.75));
    assert_eq!(floats(&found), floats(&expected));
    // diffusers: the same over the K codes, with the mask row appended.
    let codes = log_p.narrow(0, 0, 4);
    for truncation in [0.3, 0.75, 0.86, 1.0].map(Truncation::TopP) {
        let found = diffusers::truncation(&codes, truncation);
        let expected = official::truncation(&log_p, truncation);
        assert_eq!(floats(&found), floats(&expected));
    }
}

#[test]
fn gumbel_draws_follow_the_probabilities() {
    let p = [0.4, 0.3, 0.2, 0.0, 0.1];
    let log_p = Tensor::from_slice(&p)
        .log()
        .clamp_min(-70.0)
        .to_kind(Kind::Float);
    let u = HostNoise::new(&[4]).uniform(0, Draw::Code, &[1, 100_000, 5]);
    let drawn = gumbel_argmax(
        &log_p.expand([1, 100_000, 5], false),
        &u.to_kind(Kind::Float),
    );
    assert_fits("Gumbel", &integers(&drawn), &p, 3);
    // Gumbel numbers of f32 uniforms lie within −4.235…16.636: a class 20.9 below
    // the best is never drawn, whatever the numbers.
    let log_p = Tensor::from_slice(&[0.0f32, -20.9]).view([1, 2]);
    let best = Tensor::from_slice(&[0.0f64, BELOW_ONE]).view([1, 2]);
    for u in [&best, &best.to_kind(Kind::Float)] {
        assert_eq!(
            integers(&gumbel_argmax(&log_p, &u.to_kind(Kind::Float))),
            [0]
        );
    }
}

#[test]
fn official_and_diffusers_rules_draw_the_same_tokens() {
    let (timesteps, codes) = (8, 3);
    for course in [RELEASED, STRONG] {
        let oracle = Oracle::new(&course.chain(timesteps, codes), 2, &PAIRS);
        let [official, diffusers] = [ReverseRule::Official, ReverseRule::Diffusers].map(|rule| {
            let config = config(rule, timesteps);
            let plan = config
                .plan(&course.schedule(timesteps, codes), [1, 2])
                .unwrap();
            integers(&tokens_of(&plan, &oracle, &seeds(50, 500)))
        });
        // At time 0 one draws over K + 1 classes of either rule's shape.
        assert_eq!(official, diffusers, "{}", course.name);
    }
}
