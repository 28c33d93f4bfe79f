//! Numbers as clients send them: whole ones with a fraction of zero, as text in forms, empty
//! for none.

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A number; none for null and the empty text.
pub fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(None),
        Value::Number(number) => Ok(number.as_f64()),
        Value::String(text) if text.trim().is_empty() => Ok(None),
        Value::String(text) => match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(D::Error::custom(format!("{text:?} is not a number"))),
        },
        other => Err(D::Error::custom(format!("{other} is not a number"))),
    }
}

/// A whole number; none for null and the empty text.
pub fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    let value = Value::deserialize(from)?;
    if let Some(whole) = value.as_i64() {
        return Ok(Some(whole));
    }
    match number(value).map_err(D::Error::custom)? {
        None => Ok(None),
        Some(whole) if whole.fract() == 0.0 && whole.abs() < 2f64.powi(53) => {
            Ok(Some(whole as i64))
        }
        Some(other) => Err(D::Error::custom(format!("{other} is not a whole number"))),
    }
}

/// A seed from 0 to 2^64 − 1; none for null and negative numbers, which ask for a random
/// one.
pub fn seed<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let value = Value::deserialize(from)?;
    let text = value.as_str().and_then(|text| text.trim().parse().ok());
    if let Some(seed) = value.as_u64().or(text) {
        return Ok(Some(seed));
    }
    let whole = whole(value).map_err(D::Error::custom)?;
    Ok(whole.and_then(|whole| u64::try_from(whole).ok()))
}

/// A choice of yes or no; none for null and the empty text.
pub fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<Option<bool>, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(None),
        Value::Bool(flag) => Ok(Some(flag)),
        Value::Number(number) => Ok(Some(number.as_f64() != Some(0.0))),
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "" => Ok(None),
            "true" | "1" | "yes" => Ok(Some(true)),
            "false" | "0" | "no" => Ok(Some(false)),
            _ => Err(D::Error::custom(format!(
                "{text:?} is neither true nor false"
            ))),
        },
        other => Err(D::Error::custom(format!(
            "{other} is neither true nor false"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_come_in_many_shapes() {
        assert_eq!(whole(json!(20.0)).ok(), Some(Some(20)));
        assert_eq!(whole(json!("20")).ok(), Some(Some(20)));
        assert_eq!(whole(json!("")).ok(), Some(None));
        assert!(whole(json!(20.5)).is_err());
        assert!(whole(json!([1])).is_err());
        assert_eq!(number(json!("1.5")).ok(), Some(Some(1.5)));
        assert!(number(json!("nan")).is_err());
        assert_eq!(seed(json!(-1)).ok(), Some(None));
        assert_eq!(seed(json!(u64::MAX)).ok(), Some(Some(u64::MAX)));
        assert_eq!(seed(json!("7")).ok(), Some(Some(7)));
        assert_eq!(flag(json!("true")).ok(), Some(Some(true)));
        assert_eq!(flag(json!(0)).ok(), Some(Some(false)));
        assert!(flag(json!("maybe")).is_err());
    }
}
