//! Bounds on the sizes of a configuration.

use crate::config_error::ConfigError;

/// Bound on every size of a configuration: far above any model, and far below what
/// overflows when sizes are multiplied.
pub const LARGEST: i64 = 1 << 20;
/// Bound on repeated parts: blocks, layers.
pub const MOST: i64 = 1 << 10;

/// The first of `sizes` (name, value, bound) that is not in 1 to its bound.
pub fn check_sizes(sizes: &[(&str, i64, i64)]) -> Result<(), ConfigError> {
    match sizes.iter().find(|(_, n, most)| !(1..=*most).contains(n)) {
        Some((name, found, most)) => Err(ConfigError::value(*name, found, format!("1 to {most}"))),
        None => Ok(()),
    }
}
