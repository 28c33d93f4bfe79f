//! What pictures should show.

use std::fmt;

use crate::clip::TokenizerError;
use crate::transformer::Conditioning;

/// What a picture should show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// What a text says.
    Text(String),
    /// A class by its index.
    Class(i64),
    /// Anything: for unconditional models.
    Anything,
}

impl Subject {
    /// Whether a model conditioned like this can show it.
    ///
    /// # Errors
    ///
    /// A subject of another kind than the model takes, or a class it does not have.
    pub fn check(&self, condition: &Conditioning) -> Result<(), ConditionError> {
        let takes = match (condition, self) {
            (Conditioning::Text { .. }, Subject::Text(_))
            | (Conditioning::Unconditional, Subject::Anything) => return Ok(()),
            (&Conditioning::Class { classes, .. }, &Subject::Class(class)) => {
                return match (0..classes).contains(&class) {
                    true => Ok(()),
                    false => Err(ConditionError::Class { class, classes }),
                };
            }
            (Conditioning::Text { .. }, _) => "a prompt".into(),
            (Conditioning::Class { classes, .. }, _) => {
                format!("a class from 0 to {}", classes - 1)
            }
            (Conditioning::Unconditional, _) => "neither prompt nor class".into(),
        };
        let given = self.to_string();
        Err(ConditionError::Kind { takes, given })
    }
}

impl From<&str> for Subject {
    fn from(prompt: &str) -> Self {
        Subject::Text(prompt.to_string())
    }
}

impl From<String> for Subject {
    fn from(prompt: String) -> Self {
        Subject::Text(prompt)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Text(_) => f.write_str("a prompt"),
            Subject::Class(class) => write!(f, "class {class}"),
            Subject::Anything => f.write_str("neither prompt nor class"),
        }
    }
}

/// Why a model cannot show a subject.
#[derive(Debug, thiserror::Error)]
pub enum ConditionError {
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error("the model takes {takes}, but was given {given}")]
    Kind { takes: String, given: String },
    #[error("class {class} is not one of the model's {classes} classes (0 to {})", classes - 1)]
    Class { class: i64, classes: i64 },
    #[error("an unconditional model has no condition that guidance could strengthen")]
    Guidance,
    #[error(
        "nothing stands for \"no class\" in this model (null_class: absent), so it cannot be guided"
    )]
    NullClass,
}

/// One picture to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub subject: Subject,
    /// Key of all its noise.
    pub seed: u64,
}

impl Request {
    /// `SEED-WORDS-OF-THE-PROMPT.png`, `SEED-class-INDEX.png` or `SEED.png`.
    pub fn file_name(&self) -> String {
        let seed = self.seed;
        match &self.subject {
            Subject::Text(prompt) => format!("{seed}-{}.png", slug(prompt)),
            Subject::Class(class) => format!("{seed}-class-{class}.png"),
            Subject::Anything => format!("{seed}.png"),
        }
    }
}

/// The first words of `text`, joined by hyphens.
fn slug(text: &str) -> String {
    let words: String = text
        .chars()
        .map(|c| {
            if c.is_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                ' '
            }
        })
        .collect();
    let mut slug = words.split_whitespace().collect::<Vec<_>>().join("-");
    if let Some((end, _)) = slug.char_indices().nth(40) {
        slug.truncate(end);
    }
    slug.trim_end_matches('-').to_string()
}
