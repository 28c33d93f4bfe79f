//! Ranges of the numbers in a run's settings.

use crate::config_error::ConfigError;
use crate::torch::device::Precision;

/// Bound on numbers of steps: far above any run, and exact in the f64 of checkpoints.
pub const MOST_STEPS: u64 = 1_000_000_000_000;
/// Bound on samples that are held in memory together, or made one after the other in a step.
pub const MOST_TOGETHER: u64 = 1 << 20;
/// Bound on the samples of a step, and on other lists of numbers.
pub const MOST_LISTED: u64 = 1 << 22;
/// Bound on the samples of a whole run: what f64 counts exactly.
pub const MOST_SAMPLES: u64 = 1 << 53;

/// What a number x may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Range {
    /// x > 0
    AboveZero,
    /// x ≥ 0
    AtLeastZero,
    /// 0 ≤ x < 1
    BelowOne,
    /// 0 < x < 1
    Fraction,
    /// 0 ≤ x ≤ the setting of this name and value
    UpTo(&'static str, f64),
}

impl Range {
    fn contains(self, x: f64) -> bool {
        x.is_finite()
            && match self {
                Range::AboveZero => x > 0.0,
                Range::AtLeastZero => x >= 0.0,
                Range::BelowOne => (0.0..1.0).contains(&x),
                Range::Fraction => x > 0.0 && x < 1.0,
                Range::UpTo(_, most) => (0.0..=most).contains(&x),
            }
    }

    fn expected(self) -> String {
        match self {
            Range::AboveZero => "above 0".into(),
            Range::AtLeastZero => "at least 0".into(),
            Range::BelowOne => "in 0 to below 1".into(),
            Range::Fraction => "between 0 and 1".into(),
            Range::UpTo(name, most) => format!("0 to {name} ({most})"),
        }
    }
}

/// The first of `numbers` (key, value, range) that is not in its range.
pub fn check_numbers(numbers: &[(&str, f64, Range)]) -> Result<(), ConfigError> {
    match numbers.iter().find(|(_, x, range)| !range.contains(*x)) {
        Some((key, x, range)) => Err(ConfigError::value(*key, x, range.expected())),
        None => Ok(()),
    }
}

/// The first of `counts` (key, value, bound) that is not in 1 to its bound.
pub fn check_counts(counts: &[(&str, u64, u64)]) -> Result<(), ConfigError> {
    match counts.iter().find(|(_, n, most)| !(1..=*most).contains(n)) {
        Some((key, 0, _)) => Err(ConfigError::value(*key, 0, "at least 1")),
        Some((key, n, most)) => Err(ConfigError::value(*key, n, format!("at most {most}"))),
        None => Ok(()),
    }
}

/// The first of `counts` (key, value, bound) that is above its bound; they may be 0.
pub fn check_most(counts: &[(&str, u64, u64)]) -> Result<(), ConfigError> {
    match counts.iter().find(|(_, n, most)| n > most) {
        Some((key, n, most)) => Err(ConfigError::value(*key, n, format!("at most {most}"))),
        None => Ok(()),
    }
}

/// Whether the samples of a step, and those of all steps, can be counted; the problem if not.
/// Every number alone is within its bound.
pub fn check_samples(steps: u64, batch_size: u64, accumulation: u64) -> Result<(), ConfigError> {
    let batch = batch_size * accumulation;
    if batch > MOST_LISTED {
        let problem = format!(
            "{batch_size} times accumulation {accumulation} is {batch} samples a step, expected \
             at most {MOST_LISTED}"
        );
        return Err(ConfigError::contradiction("batch_size", problem));
    }
    let samples = u128::from(steps) * u128::from(batch);
    if samples > u128::from(MOST_SAMPLES) {
        let problem = format!(
            "{steps} of {batch} samples are {samples} samples, expected at most {MOST_SAMPLES}"
        );
        return Err(ConfigError::contradiction("steps", problem));
    }
    Ok(())
}

/// Whether training can compute in this format; the problem if not.
pub fn check_precision(precision: Precision) -> Result<(), ConfigError> {
    match precision {
        Precision::F32 | Precision::Bf16 => Ok(()),
        Precision::F16 => Err(ConfigError::value(
            "precision",
            "f16",
            "f32 or bf16 (f16 would need loss scaling)",
        )),
    }
}
