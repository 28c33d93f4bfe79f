//! Schedule buffers, posterior, truncation and guidance.

use tch::{Device, Kind, Tensor};
use vqdiffusion::diffusion::compat::{log_prediction, official, LogSchedule};
use vqdiffusion::diffusion::guidance::Prediction;
use vqdiffusion::diffusion::posterior::Posterior;
use vqdiffusion::diffusion::truncation::Truncation;
use vqdiffusion::diffusion::Schedule;
use vqdiffusion::pipeline::Pipeline;
use vqdiffusion::transformer::Denoiser;

use crate::case::{integers, Case};
use crate::condition::{self, empty_prompt, with_null};

/// The truncation that an official name like `top0.86r` or `top10p` means.
pub fn truncation(name: &str) -> Truncation {
    let problem = || -> ! { panic!("unknown truncation {name}") };
    let Some(rest) = name.strip_prefix("top") else {
        problem()
    };
    match (rest.strip_suffix('r'), rest.strip_suffix('p')) {
        (Some(rate), _) => Truncation::TopP(rate.parse().unwrap_or_else(|_| problem())),
        (_, Some(count)) => Truncation::TopK(count.parse().unwrap_or_else(|_| problem())),
        _ => problem(),
    }
}

pub fn run(case: &mut Case, pipeline: &Pipeline) {
    let (x_0, x_t, t) = (
        case.input("input.x_0"),
        case.input("input.x_t"),
        case.input("input.t"),
    );
    let schedule = pipeline.config().schedule();
    let logs = LogSchedule::new(&schedule, Device::Cpu);
    for (name, ours) in [
        ("log_at", &logs.log_at),
        ("log_bt", &logs.log_bt),
        ("log_ct", &logs.log_ct),
        ("log_1_min_ct", &logs.log_1_min_ct),
        ("log_cumprod_at", &logs.log_cumprod_at),
        ("log_cumprod_bt", &logs.log_cumprod_bt),
        ("log_cumprod_ct", &logs.log_cumprod_ct),
        ("log_1_min_cumprod_ct", &logs.log_1_min_cumprod_ct),
    ] {
        case.check(&format!("expected.buffer.{name}"), ours);
    }

    let denoiser = pipeline.denoiser();
    let condition = denoiser.condition(&condition::recorded(case));
    let log_pred = log_prediction(&denoiser.forward(&x_t, &t, &condition, None));
    let (start, now) = (logs.log_one_hot(&x_0), logs.log_one_hot(&x_t));
    for (name, ours) in [
        ("log_pred", &log_pred),
        ("q_pred", &logs.q_pred(&start, &t)),
        ("q_pred_one_timestep", &logs.q_pred_one_timestep(&now, &t)),
        ("q_pred_of_log_pred_tm1", &logs.q_pred(&log_pred, &(&t - 1))),
        ("q_posterior_model", &logs.q_posterior(&log_pred, &x_t, &t)),
        ("q_posterior_true", &logs.q_posterior(&start, &x_t, &t)),
    ] {
        case.check(&format!("expected.{name}"), &ours.transpose(1, 2));
    }
    exact_kernel(case, &schedule, &log_pred, &x_t, &t);

    for name in case.names_below("expected.truncate.") {
        let ours = official::truncation(
            &case.input("input.truncate_in").transpose(1, 2),
            truncation(&name),
        );
        case.check(&format!("expected.truncate.{name}"), &ours.transpose(1, 2));
    }
}

/// The law of the two-stage reverse step (x̂_0, then the three-way choice), which is
/// in exact arithmetic the recorded posterior: probabilities `[B, L, K + 1]`.
fn exact_kernel(case: &mut Case, schedule: &Schedule, log_pred: &Tensor, x_t: &Tensor, t: &Tensor) {
    let name = "expected.q_posterior_model";
    let Some(expected) = case.get(name) else {
        return;
    };
    let codes = schedule.codes();
    let p = log_pred.narrow(-1, 0, codes).softmax(-1, Kind::Double); // [B, L, K]
    for (row, &t) in integers(t).iter().enumerate() {
        let row = row as i64;
        let kernel = Posterior::new(schedule, t - 1, t);
        let (p, x) = (p.get(row), x_t.get(row).unsqueeze(-1)); // [L, K], [L, 1]
        let masked = Tensor::cat(
            &[
                &p * kernel.masked.take + kernel.masked.uniform / codes as f64,
                p.narrow(1, 0, 1).full_like(kernel.masked.stay),
            ],
            1,
        );
        let seen = x.clamp_max(codes - 1);
        let agree = p.gather(1, &seen, false); // p(x̂_0 = x_t) [L, 1]
        let differ = 1.0 - &agree;
        let uniform = &agree * kernel.agrees.uniform + &differ * kernel.differs.uniform;
        let stay = &agree * kernel.agrees.stay + &differ * kernel.differs.stay;
        let others: Tensor = &p * kernel.differs.take + uniform / codes as f64;
        let at_seen = others.gather(1, &seen, false) - &agree * kernel.differs.take + stay;
        let visible = others.scatter(1, &seen, &at_seen);
        let visible = Tensor::cat(&[&visible, &visible.narrow(1, 0, 1).zeros_like()], 1);
        let ours = masked.where_self(&x.eq(codes), &visible);
        let expected = expected.get(row).transpose(0, 1).exp();
        case.also(
            name,
            &format!("exact kernel, sample {row}"),
            &ours,
            &expected,
        );
    }
}

/// The recorded guided predictions of a text model.
pub fn guidance(case: &mut Case, pipeline: &Pipeline) {
    let y = condition::recorded(case);
    let denoiser = pipeline.denoiser();
    if !case.names_below("expected.cfg.zeroshot").is_empty() {
        guided(case, denoiser, "zeroshot", &y, &empty_prompt(pipeline));
    }
    if !case.names_below("expected.cfg.learnable").is_empty() {
        let null = pipeline.conditioner().null();
        guided(
            case,
            denoiser,
            "learnable",
            &y,
            &null.unwrap_or_else(|e| panic!("{e}")),
        );
    }
}

/// The predictions `expected.cfg.{kind}.s*` under `y` and the row `null`, at once and one
/// sample at a time, as the sampler asks.
pub fn guided(case: &mut Case, denoiser: &Denoiser, kind: &str, y: &Tensor, null: &Tensor) {
    let (x_t, t) = (case.input("input.x_t"), case.input("input.t"));
    let predict = |x_t: &Tensor, t: &Tensor, y: &Tensor| {
        let batch = x_t.size()[0];
        let condition = denoiser.condition(&with_null(y, null));
        let logits = denoiser.forward(x_t, t, &condition, None);
        Prediction {
            conditional: logits.narrow(0, 0, batch),
            unconditional: Some(logits.narrow(0, batch, batch)),
        }
    };
    let prediction = predict(&x_t, &t, y);
    for suffix in case.names_below(&format!("expected.cfg.{kind}.s")) {
        let name = format!("expected.cfg.{kind}.s{suffix}");
        let scale: f64 = suffix
            .parse()
            .unwrap_or_else(|_| panic!("no guidance scale in {name}"));
        let ours = official::guidance(&prediction, scale).transpose(1, 2);
        case.check(&name, &ours);
        exact_guidance(case, &name, &prediction, scale);
        let expected = case.input(&name);
        for row in 0..x_t.size()[0] {
            let [x, t, y] = [&x_t, &t, y].map(|input| input.narrow(0, row, 1));
            let alone = predict(&x, &t, &y);
            let ours = official::guidance(&alone, scale).transpose(1, 2);
            let how = format!("sample {row} alone");
            case.also(&name, &how, &ours, &expected.narrow(0, row, 1));
        }
    }
}

/// Guidance of the exact rule, which works on raw logits: the same wherever the
/// official code clamps nothing.
fn exact_guidance(case: &mut Case, name: &str, prediction: &Prediction, scale: f64) {
    let log_p = |logits: &Tensor| logits.log_softmax(-1, Kind::Double);
    let lowest = |x: &Tensor| x.min().double_value(&[]);
    let null = prediction.unconditional.as_ref().map(&log_p);
    let clamped = null.is_some_and(|null| lowest(&null) <= -70.0)
        || lowest(&log_p(&prediction.conditional)) <= -70.0;
    if !clamped {
        let ours = log_p(&prediction.guided(scale)).clamp(-70.0, 0.0);
        let codes = ours.size()[2];
        let expected = case.input(name).narrow(1, 0, codes);
        case.also(name, "exact rule", &ours.transpose(1, 2), &expected);
    }
}
