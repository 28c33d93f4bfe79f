//! Schedules, kernels and plans against tables of published numbers.

use tch::{Device, Tensor};
use vqdiffusion::diffusion::compat::{official, LogSchedule};
use vqdiffusion::diffusion::posterior::{Choice, Posterior};
use vqdiffusion::diffusion::sampler::{PlannedStep, SamplerError};
use vqdiffusion::diffusion::{ReverseRule, Schedule, Transition};

use crate::diffusion::enumeration::steps as plan;
use crate::diffusion::paper;

const T: usize = 100;
const K: i64 = 2887;

/// `found` is `published` to half a unit of its last digit, and `slack` beyond.
fn check_within(what: &str, found: f64, published: &str, slack: f64) {
    let (mantissa, exponent) = published.split_once('e').unwrap_or((published, "0"));
    let decimals = mantissa.split_once('.').map_or(0, |(_, d)| d.len()) as i32;
    let exponent: i32 = exponent.parse().unwrap();
    let value: f64 = published.parse().unwrap();
    let tolerance = 0.5001 * 10f64.powi(exponent - decimals) + slack;
    assert!(
        (found - value).abs() <= tolerance,
        "{what}: {found:e}, published {published}"
    );
}

fn check(what: &str, found: f64, published: &str) {
    check_within(what, found, published, 0.0);
}

fn values(buffer: &Tensor) -> Vec<f64> {
    assert_eq!(buffer.kind(), tch::Kind::Float);
    Vec::<f32>::try_from(buffer)
        .unwrap()
        .into_iter()
        .map(f64::from)
        .collect()
}

/// t | a, K·b, c | ā, K·b̄, c̄ | log b, log b̄
type Row = (i64, [&'static str; 3], [&'static str; 3], [&'static str; 2]);

/// The released schedule.
const RELEASED: [Row; 6] = [
    (
        0,
        ["0.99999000000", "1.00000e-6", "9.00000e-6"],
        ["0.9999900000", "1.0000000e-6", "9.0000000e-6"],
        ["-21.783484", "-21.783484"],
    ),
    (
        1,
        ["0.9898990808", "1.0101e-8", "0.01010090909"],
        ["0.9898891818", "1.0000000e-6", "0.01010981818"],
        ["-26.378604", "-21.783484"],
    ),
    (
        49,
        ["0.9803924994", "3.80616e-8", "0.01960746251"],
        ["0.5050499091", "1.0000000e-6", "0.4949490909"],
        ["-25.052033", "-21.783484"],
    ),
    (
        50,
        ["0.9800003564", "3.95993e-8", "0.019999604"],
        ["0.4949490909", "1.0000000e-6", "0.5050499091"],
        ["-25.012429", "-21.783484"],
    ),
    (
        98,
        ["0.500222655", "2.47272e-5", "0.4997526178"],
        ["0.01010981818", "1.0000000e-6", "0.9898891818"],
        ["-18.575580", "-21.783484"],
    ),
    (
        99,
        ["0.0008902237249", "9.88159e-5", "0.9990109604"],
        ["9.0000000e-6", "1.0000000e-6", "0.9999900000"],
        ["-17.190225", "-21.783484"],
    ),
];

#[test]
fn released_schedule() {
    let schedule = Schedule::new(&Transition::released(), T, K);
    assert_eq!((schedule.timesteps(), schedule.codes()), (T, K));
    let logs = LogSchedule::new(&schedule, Device::Cpu);
    let (at, bt, ct) = (
        values(&logs.log_at),
        values(&logs.log_bt),
        values(&logs.log_ct),
    );
    let (big_at, big_bt, big_ct) = (
        values(&logs.log_cumprod_at),
        values(&logs.log_cumprod_bt),
        values(&logs.log_cumprod_ct),
    );
    for (t, one_step, cumulative, log_b) in RELEASED {
        let found = schedule.at(t);
        let parts = [found.keep, found.uniform, found.mask];
        for (name, (found, published)) in ["ā", "K·b̄", "c̄"]
            .iter()
            .zip(parts.into_iter().zip(cumulative))
        {
            check(&format!("{name} at {t}"), found, published);
        }
        let then = schedule.at(t - 1);
        let a = found.keep / then.keep;
        let c = 1.0 - (1.0 - found.mask) / (1.0 - then.mask);
        for (name, (found, published)) in ["a", "K·b", "c"]
            .iter()
            .zip([a, 1.0 - a - c, c].into_iter().zip(one_step))
        {
            check(&format!("{name} at {t}"), found, published);
        }
        // The buffers are logs in f32: relative error of the value 2⁻²⁴ · |log|.
        let t = t as usize;
        let k = K as f64;
        for (name, (log, published)) in ["a", "K·b", "c", "ā", "K·b̄", "c̄"].iter().zip(
            [
                at[t],
                bt[t] + k.ln(),
                ct[t],
                big_at[t],
                big_bt[t] + k.ln(),
                big_ct[t],
            ]
            .into_iter()
            .zip(one_step.into_iter().chain(cumulative)),
        ) {
            check_within(
                &format!("exp of the buffer of {name} at {t}"),
                log.exp(),
                published,
                2e-6 * log.exp(),
            );
        }
        check_within(&format!("log b at {t}"), bt[t], log_b[0], 1e-6);
        check_within(&format!("log b̄ at {t}"), big_bt[t], log_b[1], 1e-6);
    }
    check("log a at 99", at[99], "-7.0240");
    check("log c at 99", ct[99], "-9.8953e-4");
    let total: f64 = bt.iter().map(|b| b.exp() * K as f64).sum();
    check("Σ K·b", total, "1.6263e-4");
}

#[test]
fn log_buffers_and_their_clean_entry() {
    for (codes, log_b) in [
        (2887, "-21.783484"),
        (4096, "-22.133277"),
        (974, "-20.696922"),
    ] {
        let schedule = Schedule::new(&Transition::released(), T, codes);
        let logs = LogSchedule::new(&schedule, Device::Cpu);
        for buffer in [&logs.log_at, &logs.log_bt, &logs.log_ct, &logs.log_1_min_ct] {
            assert_eq!(buffer.size(), [T as i64]);
        }
        for (buffer, clean) in [
            (&logs.log_cumprod_at, 0.0),
            (&logs.log_cumprod_bt, f64::NEG_INFINITY),
            (&logs.log_cumprod_ct, f64::NEG_INFINITY),
            (&logs.log_1_min_cumprod_ct, 0.0),
        ] {
            assert_eq!(buffer.size(), [T as i64 + 1]);
            assert_eq!(values(buffer)[T], clean);
        }
        for b in &values(&logs.log_cumprod_bt)[..T] {
            check_within("log b̄", *b, log_b, 1e-6);
        }
        let last = values(&logs.log_1_min_ct)[99];
        check("log(1 − c) at 99", last, "-6.9188");
        let last = values(&logs.log_1_min_cumprod_ct)[99];
        check("log(1 − c̄) at 99", last, "-11.513");
        // 1 − c and 1 − c̄ at 0 are both 0.999991.
        for first in [&logs.log_1_min_ct, &logs.log_1_min_cumprod_ct] {
            check("log(1 − c) at 0", values(first)[0], "-9.00004e-6");
        }
    }
    // 1e-40 keeps the log finite in f64 where c̄ is 1: ln 1e-40 = −92.1034.
    let schedule = Schedule::new(&Transition::MaskOnly { gamma: [0.25, 1.0] }, 4, 3);
    let logs = LogSchedule::new(&schedule, Device::Cpu);
    check(
        "log(1 − c̄) at c̄ = 1",
        values(&logs.log_1_min_cumprod_ct)[3],
        "-92.1034",
    );
}

#[test]
fn other_schedules() {
    // P1: c̄ rises 0 → 0.9 and K·b̄ 0 → 0.1.
    let paper = Schedule::new(&paper(), T, K);
    let (first, last) = (paper.at(0), paper.at(99));
    check("c̄ at 0", first.mask, "0.000009000000");
    check("K·b̄ at 0", first.uniform, "0.000001000000");
    check("c̄ at 99", last.mask, "0.900000000000");
    check("K·b̄ at 99", last.uniform, "0.099991000000");
    check("ā at 99", last.keep, "0.000009000000");

    let masks = Transition::MaskOnly { gamma: [0.0, 0.75] };
    let masks = Schedule::new(&masks, 4, 7);
    for (t, mask) in [0.0, 0.25, 0.5, 0.75].into_iter().enumerate() {
        let found = masks.at(t as i64);
        assert_eq!(
            (found.keep, found.uniform, found.mask),
            (1.0 - mask, 0.0, mask)
        );
    }
    let uniform = Transition::Uniform { alpha: [1.0, 0.25] };
    let uniform = Schedule::new(&uniform, 4, 7);
    for (t, keep) in [1.0, 0.75, 0.5, 0.25].into_iter().enumerate() {
        let found = uniform.at(t as i64);
        assert_eq!(
            (found.keep, found.uniform, found.mask),
            (keep, 1.0 - keep, 0.0)
        );
    }
    for schedule in [&paper, &masks, &uniform] {
        let clean = schedule.at(-1);
        assert_eq!((clean.keep, clean.uniform, clean.mask), (1.0, 0.0, 0.0));
        for t in 0..schedule.timesteps() as i64 {
            let at = schedule.at(t);
            assert!((at.keep + at.uniform + at.mask - 1.0).abs() < 1e-15);
        }
    }
    // Mask-and-replace whose ᾱ and γ̄ sum to 1 is mask-only: rounding of 1 − ᾱ − γ̄
    // must not pass for replacement.
    let all_masks = Transition::MaskAndReplace {
        alpha: [0.9, 0.00001],
        gamma: [0.1, 0.99999],
    };
    let all_masks = Schedule::new(&all_masks, T, K);
    for t in 0..T as i64 {
        assert_eq!(all_masks.at(t).uniform, 0.0, "time {t}");
        let kernel = Posterior::new(&all_masks, t - 1, t);
        assert_eq!((kernel.differs.stay, kernel.agrees.stay), (1.0, 1.0));
    }
    // One step only.
    let single = Schedule::new(&Transition::released(), 1, K);
    assert_eq!((single.at(0).keep, single.at(0).mask), (0.99999, 0.000009));
}

fn check_choice(what: &str, found: Choice, published: [&str; 3]) {
    check(&format!("{what}: stay"), found.stay, published[0]);
    check(&format!("{what}: x̂_0"), found.take, published[1]);
    check(&format!("{what}: uniform"), found.uniform, published[2]);
}

#[test]
fn kernel_numbers() {
    let released = Schedule::new(&Transition::released(), T, K);
    let paper = Schedule::new(&paper(), T, K);
    let table = [
        (
            &released,
            0,
            ["0.0000000", "1.0000000", "0.00000000"],
            ["0.0000000", "1.0000000", "0.00000000"],
            "1.000000000",
        ),
        (
            &released,
            1,
            ["0.000890224", "0.999109", "1.0e-6"],
            ["0.989899", "0.0101009", "1.0e-8"],
            "1.000000000",
        ),
        (
            &released,
            49,
            ["0.979592", "0.0204078", "4.0e-8"],
            ["0.980392", "0.0196075", "3.8e-8"],
            "1.000000000",
        ),
        (
            &released,
            99,
            ["0.989899", "0.0100999", "1.0e-6"],
            ["0.000890", "0.999011", "9.9e-5"],
            "0.999999996",
        ),
        (
            &paper,
            49,
            ["0.979592", "0.0186524", "0.00176"],
            ["0.960385", "0.0362076", "0.00341"],
            "0.999999884",
        ),
        (
            &paper,
            99,
            ["0.989899", "0.000936", "0.00916"],
            ["0.000881", "0.0925917", "0.907"],
            "0.280450",
        ),
    ];
    for (schedule, t, masked, differs, keep) in table {
        let kernel = Posterior::new(schedule, t - 1, t);
        check_choice(&format!("masked at {t}"), kernel.masked, masked);
        check_choice(&format!("differs at {t}"), kernel.differs, differs);
        check(&format!("agrees at {t}"), kernel.agrees.stay, keep);
        assert_eq!(kernel.agrees.take, 0.0);
    }
}

fn networks(steps: &[PlannedStep]) -> Vec<i64> {
    steps.iter().map(|step| step.network).collect()
}

#[test]
fn official_plans() {
    // timeX: X, network calls, last indices
    for (x, calls, last) in [
        (2, 51, [3, 1, 0]),
        (3, 34, [6, 3, 0]),
        (4, 26, [7, 3, 0]),
        (5, 21, [9, 4, 0]),
        (10, 11, [19, 9, 0]),
    ] {
        let steps = plan(ReverseRule::Official, calls, T).unwrap();
        assert_eq!(steps, official::times(x - 1, T as i64));
        assert_eq!(steps.len(), calls);
        let times = networks(&steps);
        assert_eq!(times[0], 99);
        assert_eq!(times[calls - 3..], last);
        for pair in times[..calls - 1].windows(2) {
            assert_eq!(pair[0] - pair[1], x);
        }
        for step in &steps {
            let skip = x - 1;
            let from = if step.network > skip {
                step.network - skip
            } else {
                step.network
            };
            assert_eq!((step.from, step.to), (from, from - 1));
        }
        assert_eq!(steps[calls - 1].to, -1);
    }
    let full = plan(ReverseRule::Official, T, T).unwrap();
    let (time, expected): (Vec<_>, Vec<_>) = full
        .iter()
        .zip((0..T as i64).rev())
        .map(|(s, t)| ((s.network, s.from, s.to), (t, t, t - 1)))
        .unzip();
    assert_eq!(time, expected);
}

#[test]
fn even_plans() {
    for timesteps in [1usize, 2, 7, 100] {
        for n in
            (1..=timesteps).filter(|n| timesteps < 10 || [1, 2, 3, 7, 33, 50, 99, 100].contains(n))
        {
            let steps = plan(ReverseRule::Exact, n, timesteps).unwrap();
            assert_eq!(steps.len(), n);
            for (i, step) in steps.iter().enumerate() {
                let time = |i: usize| {
                    (timesteps as f64 * (n - i) as f64 / n as f64 - 1e-9).ceil() as i64 - 1
                };
                assert_eq!((step.network, step.from), (time(i), time(i)));
                assert_eq!(step.to, if i + 1 < n { time(i + 1) } else { -1 });
                assert!(step.to < step.from);
            }
            assert_eq!(steps[0].from, timesteps as i64 - 1);
            assert_eq!(steps[n - 1].to, -1);
        }
    }
    let times = networks(&plan(ReverseRule::Exact, 4, 100).unwrap());
    assert_eq!(times, [99, 74, 49, 24]);
    let times = networks(&plan(ReverseRule::Exact, 3, 10).unwrap());
    assert_eq!(times, [9, 6, 3]);
    assert_eq!(networks(&plan(ReverseRule::Exact, 1, 100).unwrap()), [99]);
    // diffusers: the last n times, not strided
    let steps = plan(ReverseRule::Diffusers, 3, 100).unwrap();
    let times: Vec<_> = steps.iter().map(|s| (s.network, s.from, s.to)).collect();
    assert_eq!(times, [(2, 2, 1), (1, 1, 0), (0, 0, -1)]);
}

#[test]
fn impossible_plans() {
    for rule in [
        ReverseRule::Exact,
        ReverseRule::Official,
        ReverseRule::Diffusers,
    ] {
        for steps in [0, 101] {
            let error = plan(rule, steps, T).unwrap_err();
            let expected = SamplerError::Steps {
                steps,
                timesteps: T,
            };
            assert_eq!(error, expected);
            assert_eq!(
                error.to_string(),
                format!("steps is {steps}, expected 1 to 100")
            );
        }
    }
    for steps in [1, 13, 50, 99] {
        let error = plan(ReverseRule::Official, steps, T).unwrap_err();
        let SamplerError::NotOfficial { allowed, .. } = &error else {
            panic!("{error}")
        };
        // ⌈99 / X⌉ + 1 for X = 1, 2, …, 99
        let lengths = "100, 51, 34, 26, 21, 18, 16, 14, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2";
        assert_eq!(allowed, lengths);
        let message = error.to_string();
        assert!(message.contains(&format!("steps is {steps}")) && message.contains(lengths));
    }
}
