//! Numbers that are written and read again are the same, to the bit.

use vqdiffusion::diffusion::truncation::Truncation;
use vqdiffusion::diffusion::{RevealOrder, ReverseRule, SamplerConfig, Times};
use vqdiffusion::train::TrainConfig;

/// Finite numbers of every size, from a linear congruential sequence of bit patterns.
fn numbers() -> impl Iterator<Item = f64> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let patterns = std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state
    });
    // One that a careless parser reads one unit off, and the edges.
    let known = [
        0.12139409114079269,
        f64::MIN_POSITIVE,
        5e-324,
        f64::MAX,
        -0.0,
    ];
    let drawn = patterns.map(f64::from_bits).filter(|x| x.is_finite());
    known.into_iter().chain(drawn.take(20_000))
}

#[test]
fn json_and_yaml_keep_every_bit() {
    for x in numbers() {
        let json = serde_json::to_string(&x).unwrap();
        let read: f64 = serde_json::from_str(&json).unwrap();
        assert_eq!(read.to_bits(), x.to_bits(), "{json}");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            value.as_f64().map(f64::to_bits),
            Some(x.to_bits()),
            "{json}"
        );
        let yaml = serde_yaml::to_string(&x).unwrap();
        let read: f64 = serde_yaml::from_str(&yaml).unwrap();
        assert_eq!(read.to_bits(), x.to_bits(), "{yaml}");
    }
}

/// The settings in a PNG, and the configuration of a run.
#[test]
fn settings_keep_every_bit() {
    let share = |x: f64| x.to_bits() as f64 / u64::MAX as f64;
    for x in numbers().take(1000) {
        let settings = SamplerConfig {
            steps: 7,
            guidance: 1.0 + share(x),
            truncation: Truncation::TopP(share(x)),
            times: Times::Even,
            order: RevealOrder::Independent,
            guidance_span: Some([share(x), 1.0]),
            local_steps: 3,
            revealing: None,
            rule: ReverseRule::Exact,
        };
        let json = serde_json::to_string(&settings).unwrap();
        let read: SamplerConfig = serde_json::from_str(&json).unwrap();
        assert_eq!(read, settings, "{json}");
        let mut config = TrainConfig::default();
        config.learning_rate.peak = share(x);
        let yaml = serde_yaml::to_string(&config).unwrap();
        let read: TrainConfig = serde_yaml::from_str(&yaml).unwrap();
        assert_eq!(
            read.learning_rate.peak.to_bits(),
            share(x).to_bits(),
            "{yaml}"
        );
    }
}
