//! From what pictures should show to the condition y that the denoiser takes.

use std::fmt;
use std::ops::Range;

use tch::{Device, Kind, Tensor};

use crate::checkpoint::official::{NULL_TEXT, TEXT};
use crate::clip::{ClipTokenizer, TextEncoder, TokenizerError};
use crate::model::{ModelConfig, NullText, TextCondition};
use crate::torch::{Init, Params};
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
}

/// The part of a model that makes the condition.
pub struct Conditioner {
    source: Source,
    device: Device,
}

enum Source {
    Text(Box<TextSource>),
    Class { classes: i64 },
    Nothing,
}

/// Tokenizer and text tower.
struct TextSource {
    tokenizer: ClipTokenizer,
    tower: TextEncoder,
    learned_null: Option<Tensor>, // [1, S, C]
}

impl Conditioner {
    /// Builds it from the weights below `root` (the whole model's).
    ///
    /// # Panics
    ///
    /// Without a `tokenizer` for a model of texts.
    pub fn new(root: &Params, config: &ModelConfig, tokenizer: Option<ClipTokenizer>) -> Self {
        let source = match (config.denoiser.condition, &config.text, tokenizer) {
            (Conditioning::Class { classes, .. }, ..) => Source::Class { classes },
            (_, Some(text), Some(tokenizer)) => {
                Source::Text(Box::new(TextSource::new(root, text, tokenizer)))
            }
            (_, Some(_), None) => panic!("a model of texts needs a tokenizer"),
            (_, None, _) => Source::Nothing,
        };
        let device = root.device();
        Conditioner { source, device }
    }

    /// What the model takes, in words.
    fn takes(&self) -> String {
        match &self.source {
            Source::Text(_) => "a prompt".into(),
            Source::Class { classes } => format!("a class from 0 to {}", classes - 1),
            Source::Nothing => "neither prompt nor class".into(),
        }
    }

    /// The condition y of `subjects`, a row each: text features `[B, S, C]` f32, classes
    /// `[B]` int64, or for an unconditional model just B rows.
    ///
    /// # Errors
    ///
    /// A subject of another kind than the model takes, or a class it does not have.
    pub fn encode<'a>(&self, subjects: &'a [Subject]) -> Result<Tensor, ConditionError> {
        let unfit = |subject: &Subject| ConditionError::Kind {
            takes: self.takes(),
            given: subject.to_string(),
        };
        match &self.source {
            Source::Text(text) => {
                let prompt = |subject: &'a Subject| match subject {
                    Subject::Text(prompt) => Ok(prompt.as_str()),
                    _ => Err(unfit(subject)),
                };
                let prompts: Vec<&str> = subjects.iter().map(prompt).collect::<Result<_, _>>()?;
                Ok(text.encode(&prompts, self.device)?)
            }
            &Source::Class { classes } => {
                let class = |subject: &Subject| match *subject {
                    Subject::Class(class) if (0..classes).contains(&class) => Ok(class),
                    Subject::Class(class) => Err(ConditionError::Class { class, classes }),
                    _ => Err(unfit(subject)),
                };
                let classes: Vec<i64> = subjects.iter().map(class).collect::<Result<_, _>>()?;
                Ok(Tensor::from_slice(&classes).to_device(self.device))
            }
            Source::Nothing => match subjects.iter().find(|s| **s != Subject::Anything) {
                Some(other) => Err(unfit(other)),
                None => {
                    let rows = [subjects.len() as i64];
                    Ok(Tensor::zeros(rows, (Kind::Int64, self.device)))
                }
            },
        }
    }

    /// The words that the network reads for `subject`, each with its text positions;
    /// none of models that read no text.
    pub fn words(&self, subject: &Subject) -> Result<Vec<(String, Range<usize>)>, ConditionError> {
        match (&self.source, subject) {
            (Source::Text(text), Subject::Text(prompt)) => {
                Ok(text.tokenizer.words(&text.tokenizer.encode(prompt)?.ids))
            }
            _ => Ok(Vec::new()),
        }
    }

    /// What stands for "no condition" in guidance: one row of y.
    pub fn null(&self) -> Result<Tensor, ConditionError> {
        match &self.source {
            Source::Text(text) => match &text.learned_null {
                Some(learned) => Ok(learned.shallow_clone()),
                None => Ok(text.encode(&[""], self.device)?),
            },
            Source::Class { classes } => Ok(Tensor::from_slice(&[*classes]).to_device(self.device)),
            Source::Nothing => Err(ConditionError::Guidance),
        }
    }
}

impl TextSource {
    fn new(root: &Params, config: &TextCondition, tokenizer: ClipTokenizer) -> Self {
        let TextCondition { tower, null } = config;
        let encoder = TextEncoder::new(&root.at(TEXT), tower);
        let learned_null = (*null == NullText::Learned).then(|| {
            let shape = [tower.context, tower.width];
            root.get(NULL_TEXT, &shape, Init::Normal(1.0)).unsqueeze(0)
        });
        TextSource {
            tokenizer,
            tower: encoder,
            learned_null,
        }
    }

    /// Text features of `prompts`: `[B, S, C]` f32.
    fn encode(&self, prompts: &[&str], device: Device) -> Result<Tensor, TokenizerError> {
        let mut ids: Vec<i64> = Vec::new();
        for prompt in prompts {
            let encoding = self.tokenizer.encode(prompt)?;
            if encoding.truncated {
                log::warn!("the end of this prompt does not fit the text context: {prompt:?}");
            }
            ids.extend(encoding.ids);
        }
        let ids = Tensor::from_slice(&ids)
            .view([prompts.len() as i64, -1])
            .to_device(device);
        Ok(self.tower.forward(&ids))
    }
}
