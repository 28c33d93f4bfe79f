//! What keeps a measure from being computed.

use tch::{Kind, Tensor};

/// Why a measure has no value.
#[derive(Debug, thiserror::Error)]
pub enum MetricError {
    #[error("{measure}: {found} {what}, expected at least {least}")]
    TooFew {
        measure: &'static str,
        what: &'static str,
        found: i64,
        least: i64,
    },

    #[error("{measure}: {left} features a picture on one side and {right} on the other")]
    Width {
        measure: &'static str,
        left: i64,
        right: i64,
    },

    #[error("{measure}: {left} on one side and {right} on the other, expected pairs")]
    Pairs {
        measure: &'static str,
        left: i64,
        right: i64,
    },

    #[error("{measure}: features hold NaN or infinite values")]
    NotFinite { measure: &'static str },
}

/// Refuses features `[N, D]` of fewer than `least` pictures, or that are not finite.
pub(super) fn check_features(
    measure: &'static str,
    features: &Tensor,
    least: i64,
) -> Result<(), MetricError> {
    let found = features.size()[0];
    if found < least {
        return Err(MetricError::TooFew {
            measure,
            what: "pictures",
            found,
            least,
        });
    }
    // A sum is finite only if all are, and takes no memory of their size.
    let sum = features.abs().sum(Kind::Double).double_value(&[]);
    match sum.is_finite() {
        true => Ok(()),
        false => Err(MetricError::NotFinite { measure }),
    }
}

/// Refuses features `[N, D]` and `[M, D]` of different widths, or that
/// [`check_features`] refuses.
pub(super) fn check_both(
    measure: &'static str,
    [left, right]: [&Tensor; 2],
    least: i64,
) -> Result<(), MetricError> {
    check_features(measure, left, least)?;
    check_features(measure, right, least)?;
    check_width(measure, left.size()[1], right.size()[1])
}

pub(super) fn check_width(measure: &'static str, left: i64, right: i64) -> Result<(), MetricError> {
    match left == right {
        true => Ok(()),
        false => Err(MetricError::Width {
            measure,
            left,
            right,
        }),
    }
}
