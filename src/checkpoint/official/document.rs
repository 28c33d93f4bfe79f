//! A YAML document of the original, read by dotted keys.

use serde_yaml::Value;

/// A value that the original's code, or this one, cannot take.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{key} is {found}, expected {expected}")]
pub struct OptionError {
    /// Dotted; numbers are places in lists.
    pub key: String,
    pub found: String,
    pub expected: String,
}

/// A document in which `!!python/tuple` and other tags are left away. A key that is null
/// counts as absent.
#[derive(Clone, Debug)]
pub struct Document(Value);

impl Document {
    pub fn new(root: Value) -> Self {
        Document(untagged(root))
    }

    /// The value at the dotted `key`.
    pub fn at(&self, key: &str) -> Option<&Value> {
        let value = key.split('.').try_fold(&self.0, |at, part| match at {
            Value::Sequence(list) => list.get(part.parse::<usize>().ok()?),
            other => other.get(part),
        })?;
        Some(value).filter(|value| !value.is_null())
    }

    /// The entries' names below `key`; none if it is no mapping.
    pub fn names(&self, key: &str) -> impl Iterator<Item = &str> {
        let mapping = self.at(key).and_then(Value::as_mapping);
        let keys = mapping.into_iter().flat_map(|mapping| mapping.keys());
        keys.filter_map(Value::as_str)
    }

    /// The places of a list at `key`.
    pub fn length(&self, key: &str) -> usize {
        let list = self.at(key).and_then(Value::as_sequence);
        list.map_or(0, Vec::len)
    }

    /// A word.
    ///
    /// # Errors
    ///
    /// A value of another kind, as for the other readers.
    pub fn word(&self, key: &str) -> Result<Option<&str>, OptionError> {
        self.read(key, "a word", Value::as_str)
    }

    /// A number. YAML takes 3e-6 for a word, and so does Python's reader; the original's
    /// configurations write 3.0e-6.
    pub fn number(&self, key: &str) -> Result<Option<f64>, OptionError> {
        self.read(key, "a number", |value| {
            let number = value.as_f64();
            let number = number.or_else(|| value.as_str()?.parse().ok());
            number.filter(|number| number.is_finite())
        })
    }

    /// A whole number.
    pub fn integer(&self, key: &str) -> Result<Option<i64>, OptionError> {
        self.read(key, "a whole number", as_integer)
    }

    /// A whole number that is not negative; the original writes −1 for "none".
    pub fn count(&self, key: &str) -> Result<Option<u64>, OptionError> {
        let number = self.integer(key)?;
        Ok(number.and_then(|number| u64::try_from(number).ok()))
    }

    /// True or false, also as YAML 1.1 writes them.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, OptionError> {
        self.read(key, "true or false", |value| {
            let word = value.as_str().map(str::to_ascii_lowercase);
            match word.as_deref() {
                Some("yes" | "on") => Some(true),
                Some("no" | "off") => Some(false),
                _ => value.as_bool(),
            }
        })
    }

    /// Two whole numbers; one alone stands for both.
    pub fn pair(&self, key: &str) -> Result<Option<[i64; 2]>, OptionError> {
        self.read(key, "two whole numbers", |value| {
            if let Some(side) = as_integer(value) {
                return Some([side; 2]);
            }
            let sides: Option<Vec<i64>> = value.as_sequence()?.iter().map(as_integer).collect();
            sides?.try_into().ok()
        })
    }

    /// The last part of the Python path that `key`.target names.
    pub fn class(&self, key: &str) -> Result<Option<&str>, OptionError> {
        let target = self.word(&format!("{key}.target"))?;
        Ok(target.and_then(|name| name.rsplit('.').next()))
    }

    /// The error for the value at `key`.
    pub fn refused(&self, key: &str, expected: impl Into<String>) -> OptionError {
        OptionError {
            key: key.into(),
            found: self.at(key).map_or_else(|| "absent".into(), shown),
            expected: expected.into(),
        }
    }

    fn read<'a, T>(
        &'a self,
        key: &str,
        kind: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, OptionError> {
        match self.at(key) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(value) => Ok(Some(value)),
                None => Err(self.refused(key, kind)),
            },
        }
    }
}

fn as_integer(value: &Value) -> Option<i64> {
    let whole = |number: f64| (number.fract() == 0.0 && number.abs() < 1e15).then_some(number);
    value
        .as_i64()
        .or_else(|| Some(whole(value.as_f64()?)? as i64))
}

/// A value in a message, on one line and not for long.
pub(super) fn shown(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = match value {
        Value::String(text) => text.clone(),
        other => serde_json::to_string(other).unwrap_or_else(|_| "something else".into()),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn untagged(value: Value) -> Value {
    match value {
        Value::Tagged(tagged) => untagged(tagged.value),
        Value::Sequence(list) => Value::Sequence(list.into_iter().map(untagged).collect()),
        Value::Mapping(mapping) => {
            let entries = mapping.into_iter();
            Value::Mapping(entries.map(|(k, v)| (untagged(k), untagged(v))).collect())
        }
        other => other,
    }
}
