//! What is wrong with a configuration, by its key.

use std::fmt::Display;

/// A configuration says what cannot be. Keys are as in the file, their parts joined by dots.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// One value is outside of what is possible.
    #[error("{key} is {found}, expected {expected}")]
    Value {
        key: String,
        found: String,
        expected: String,
    },

    /// A value contradicts that of another key; `problem` begins with what was found.
    #[error("{key} {problem}")]
    Contradiction { key: String, problem: String },

    /// What a key asks for cannot be done.
    #[error("{key}: {problem}")]
    Impossible { key: String, problem: String },

    /// Something in the part `part`, which has keys of its own.
    #[error("{part}: {source}")]
    Part {
        part: String,
        source: Box<ConfigError>,
    },
}

impl ConfigError {
    pub fn value(key: impl Into<String>, found: impl Display, expected: impl Into<String>) -> Self {
        ConfigError::Value {
            key: key.into(),
            found: found.to_string(),
            expected: expected.into(),
        }
    }

    pub fn contradiction(key: impl Into<String>, problem: impl Into<String>) -> Self {
        ConfigError::Contradiction {
            key: key.into(),
            problem: problem.into(),
        }
    }

    pub fn impossible(key: impl Into<String>, problem: impl Into<String>) -> Self {
        ConfigError::Impossible {
            key: key.into(),
            problem: problem.into(),
        }
    }

    /// The dotted key.
    pub fn key(&self) -> String {
        match self {
            ConfigError::Value { key, .. }
            | ConfigError::Contradiction { key, .. }
            | ConfigError::Impossible { key, .. } => key.clone(),
            ConfigError::Part { part, source } => format!("{part}.{}", source.key()),
        }
    }

    /// As seen from the configuration that holds this one under the key `outer`.
    pub fn within(mut self, outer: &str) -> Self {
        let (ConfigError::Value { key, .. }
        | ConfigError::Contradiction { key, .. }
        | ConfigError::Impossible { key, .. }
        | ConfigError::Part { part: key, .. }) = &mut self;
        *key = format!("{outer}.{key}");
        self
    }

    /// The same, said of the named part of a file.
    pub fn of_part(self, part: impl Into<String>) -> Self {
        ConfigError::Part {
            part: part.into(),
            source: Box::new(self),
        }
    }
}
