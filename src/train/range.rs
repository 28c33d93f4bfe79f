//! Ranges of the numbers in a run's settings.

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
pub fn check_numbers(numbers: &[(&str, f64, Range)]) -> Result<(), String> {
    match numbers.iter().find(|(_, x, range)| !range.contains(*x)) {
        Some((key, x, range)) => Err(format!("{key} is {x}, expected {}", range.expected())),
        None => Ok(()),
    }
}

/// The first of `counts` (key, value) that is 0.
pub fn check_counts(counts: &[(&str, u64)]) -> Result<(), String> {
    match counts.iter().find(|(_, count)| *count == 0) {
        Some((key, _)) => Err(format!("{key} is 0, expected at least 1")),
        None => Ok(()),
    }
}
