//! From what pictures should show to the condition y that the denoiser takes.

use std::ops::Range;

use tch::{Device, Tensor};

use super::subject::{ConditionError, Subject};
use crate::checkpoint::official::{NULL_TEXT, TEXT};
use crate::clip::{ClipTokenizer, TextEncoder, TokenizerError};
use crate::model::{ModelConfig, NullText, TextCondition};
use crate::torch::{Init, Params};
use crate::transformer::Conditioning;

/// The part of a model that makes the condition.
pub struct Conditioner {
    condition: Conditioning,
    /// Where texts go, if the model takes them.
    text: Option<TextSource>,
    device: Device,
}

/// What stands for "no text" (arXiv 2205.16007, section 3.1) where it is learned:
/// `[1, S, C]`, among the weights below `root` (the whole model's).
pub fn learned_null(root: &Params, config: &TextCondition) -> Option<Tensor> {
    let TextCondition { tower, null } = config;
    (*null == NullText::Learned).then(|| {
        let shape = tower.features();
        root.get(NULL_TEXT, &shape, Init::Normal(1.0)).unsqueeze(0)
    })
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
        let text = config.text.as_ref().map(|text| match tokenizer {
            Some(tokenizer) => TextSource::new(root, text, tokenizer),
            None => panic!("a model of texts needs a tokenizer"),
        });
        Conditioner {
            condition: config.denoiser.condition,
            text,
            device: root.device(),
        }
    }

    /// The condition y of `subjects`, a row each: text features `[B, S, C]` f32, classes
    /// `[B]` int64, or for an unconditional model just B rows.
    ///
    /// # Errors
    ///
    /// A subject that the model cannot show ([`Subject::check`]).
    pub fn encode(&self, subjects: &[Subject]) -> Result<Tensor, ConditionError> {
        let mut prompts: Vec<&str> = Vec::new();
        let mut classes: Vec<i64> = Vec::new();
        for subject in subjects {
            subject.check(&self.condition)?;
            match subject {
                Subject::Text(prompt) => prompts.push(prompt),
                Subject::Class(class) => classes.push(*class),
                Subject::Anything => classes.push(0),
            }
        }
        match &self.text {
            Some(text) => Ok(text.encode(&prompts, self.device)?),
            None => Ok(Tensor::from_slice(&classes).to_device(self.device)),
        }
    }

    /// The words that the network reads for `subject`, each with its text positions;
    /// none of models that read no text.
    pub fn words(&self, subject: &Subject) -> Result<Vec<(String, Range<usize>)>, ConditionError> {
        match (&self.text, subject) {
            (Some(text), Subject::Text(prompt)) => {
                Ok(text.tokenizer.words(&text.tokenizer.encode(prompt)?.ids))
            }
            _ => Ok(Vec::new()),
        }
    }

    /// What stands for "no condition" in guidance: one row of y.
    pub fn null(&self) -> Result<Tensor, ConditionError> {
        if let Some(text) = &self.text {
            return match &text.learned_null {
                Some(learned) => Ok(learned.shallow_clone()),
                None => Ok(text.encode(&[""], self.device)?),
            };
        }
        match (self.condition, self.condition.null_class()) {
            (_, Some(class)) => Ok(Tensor::from_slice(&[class]).to_device(self.device)),
            (Conditioning::Class { .. }, None) => Err(ConditionError::NullClass),
            (_, None) => Err(ConditionError::Guidance),
        }
    }
}

/// How many characters of a prompt a warning shows.
const SHOWN: usize = 80;

impl TextSource {
    fn new(root: &Params, config: &TextCondition, tokenizer: ClipTokenizer) -> Self {
        let encoder = TextEncoder::new(&root.at(TEXT), &config.tower);
        TextSource {
            tokenizer,
            tower: encoder,
            learned_null: learned_null(root, config),
        }
    }

    /// Text features of `prompts`: `[B, S, C]` f32.
    fn encode(&self, prompts: &[&str], device: Device) -> Result<Tensor, TokenizerError> {
        let mut ids: Vec<i64> = Vec::new();
        for prompt in prompts {
            let encoding = self.tokenizer.encode(prompt)?;
            if encoding.truncated {
                let start: String = prompt.chars().take(SHOWN).collect();
                let more = if start.len() < prompt.len() {
                    "…"
                } else {
                    ""
                };
                log::warn!(
                    "the end of this prompt does not fit the text context of {} positions: \
                     {start:?}{more}",
                    self.tokenizer.context_length()
                );
            }
            ids.extend(encoding.ids);
        }
        let ids = Tensor::from_slice(&ids)
            .view([prompts.len() as i64, -1])
            .to_device(device);
        Ok(self.tower.forward(&ids))
    }
}
