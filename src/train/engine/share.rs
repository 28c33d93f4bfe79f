//! What each of several processes does of a step.

use super::settings::Settings;
use crate::train::TrainError;

/// What one process does of every step: batches of `batch_size` samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub batch_size: usize,
    pub accumulation: usize,
}

impl Share {
    /// What each of `count` processes does of a step: accumulation shrinks first, then the
    /// batch.
    ///
    /// # Errors
    ///
    /// Steps that cannot be divided, with the nearest that can.
    pub fn of(settings: &Settings, count: usize) -> Result<Self, TrainError> {
        let Settings {
            batch_size,
            accumulation,
            ..
        } = *settings;
        let common = greatest_common_divisor(accumulation, count);
        let rest = count / common;
        if !batch_size.is_multiple_of(rest) {
            return Err(indivisible(settings, count as u64));
        }
        Ok(Share {
            batch_size: batch_size / rest,
            accumulation: accumulation / common,
        })
    }
}

/// `count` processes cannot have equal parts of a step: says which numbers can, of processes
/// and of samples.
fn indivisible(settings: &Settings, count: u64) -> TrainError {
    let samples = settings.effective_batch();
    let either = |below: Option<u64>, above: Option<u64>| {
        let found = below.into_iter().chain(above).map(|n| n.to_string());
        found.collect::<Vec<_>>().join(" or ")
    };
    let whole = samples / count * count;
    let fitting = either(Some(whole).filter(|&n| n > 0), Some(whole + count));
    let divides = |n: &u64| samples.is_multiple_of(*n);
    let others = either(
        (1..count).rev().find(divides),
        (count + 1..=samples).find(divides),
    );
    TrainError::Value {
        key: "train.batch_size",
        found: format!(
            "{} with accumulation {}, {samples} samples a step",
            settings.batch_size, settings.accumulation
        ),
        expected: format!(
            "a step that the {count} processes can divide into equal parts: {fitting} samples, or \
             {others} processes"
        ),
    }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    match b {
        0 => a,
        b => greatest_common_divisor(b, a % b),
    }
}
