//! The whole model's shape: everything that must be known besides the weights.

use serde::{Deserialize, Serialize};

use crate::clip::TextConfig;
use crate::codec::CodecConfig;
use crate::config_error::ConfigError;
use crate::diffusion::{RevealOrder, Schedule, Times, Transition};
use crate::transformer::{Conditioning, DenoiserConfig, NullClass};

/// Guidance scales above this are taken for a mistake.
const MOST_GUIDANCE: f64 = 100.0;

/// What stands for "no text" in guidance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NullText {
    /// A learned embedding in place of the text features (`learnable_cf`).
    Learned,
    /// The features of the empty string.
    EmptyPrompt,
}

/// How a text becomes the condition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextCondition {
    pub tower: TextConfig,
    // `null` as a YAML key would be the null value.
    #[serde(rename = "null_text")]
    pub null: NullText,
}

/// How a model is sampled where nothing else is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsualSampling {
    /// Network evaluations, 1 to T.
    pub steps: usize,
    /// Guidance scale, at least 1 (none).
    pub guidance: f64,
    /// Share of the probability to keep (truncation rate), above 0 to 1.
    pub truncation: f64,
    /// Which times the evaluations are for.
    #[serde(default, skip_serializing_if = "Times::is_even")]
    pub times: Times,
    /// Which masked tokens are revealed together.
    #[serde(default, skip_serializing_if = "RevealOrder::is_independent")]
    pub order: RevealOrder,
    /// Visible shares, from 0 to 1, between which guidance is applied; throughout if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance_span: Option<[f64; 2]>,
}

/// Shape of a model: denoiser with its noise, codec, and a text tower if it is
/// conditioned on text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    pub denoiser: DenoiserConfig,
    pub transition: Transition,
    /// There if and only if `denoiser.condition` is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextCondition>,
    pub codec: CodecConfig,
    /// What suits this model, where it is known; the original's instructions if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<UsualSampling>,
}

impl ModelConfig {
    /// Whether such a model can be built: the parts by themselves, and whether they fit
    /// each other; the problem if not.
    pub fn check(&self) -> Result<(), ConfigError> {
        let within = |part: &'static str| move |e: ConfigError| e.within(part);
        self.denoiser.check().map_err(within("denoiser"))?;
        self.transition.check().map_err(within("transition"))?;
        self.codec.check().map_err(within("codec"))?;
        if let Some(text) = &self.text {
            text.tower.check().map_err(within("text.tower"))?;
        }
        if let Some(usual) = self.sampling {
            self.check_sampling(usual)?;
        }
        match (self.denoiser.condition, &self.text) {
            (Conditioning::Text { positions, width }, Some(text)) => {
                let tower = text.tower.features();
                if tower != [positions, width] {
                    let problem = format!(
                        "makes {tower:?} features (context, width), but denoiser.condition takes \
                         {:?}",
                        [positions, width]
                    );
                    return Err(ConfigError::contradiction("text.tower", problem));
                }
            }
            (Conditioning::Text { .. }, None) => {
                let problem = "is text, but there is no text tower ('text')";
                return Err(ConfigError::contradiction("denoiser.condition", problem));
            }
            (_, Some(_)) => {
                let problem = "is a text tower, but denoiser.condition is not text";
                return Err(ConfigError::contradiction("'text'", problem));
            }
            (_, None) => {}
        }
        Ok(())
    }

    fn check_sampling(&self, usual: UsualSampling) -> Result<(), ConfigError> {
        let UsualSampling {
            steps,
            guidance,
            truncation,
            times: _,
            order,
            guidance_span,
        } = usual;
        let timesteps = self.denoiser.timesteps;
        if steps == 0 || steps as i64 > timesteps {
            let expected = format!("1 to {timesteps}");
            return Err(ConfigError::value("sampling.steps", steps, expected));
        }
        if !(1.0..=MOST_GUIDANCE).contains(&guidance) {
            let expected = format!("1 to {MOST_GUIDANCE}");
            return Err(ConfigError::value("sampling.guidance", guidance, expected));
        }
        if !(truncation > 0.0 && truncation <= 1.0) {
            let expected = "above 0 to 1";
            return Err(ConfigError::value(
                "sampling.truncation",
                truncation,
                expected,
            ));
        }
        if !order.is_independent() && !self.schedule().masks() {
            let found = format!("{order:?}").to_lowercase();
            let expected = "independent, since the transition masks no tokens";
            return Err(ConfigError::value("sampling.order", found, expected));
        }
        if let Some([from, to]) = guidance_span {
            if !((0.0..=1.0).contains(&from) && (from..=1.0).contains(&to)) {
                return Err(ConfigError::value(
                    "sampling.guidance_span",
                    format!("[{from}, {to}]"),
                    "two shares from 0 to 1, the first not above the second",
                ));
            }
        }
        Ok(())
    }

    /// Network evaluations to sample with where nothing else is asked for: the model's
    /// own choice, else all T.
    pub fn usual_steps(&self) -> usize {
        let all = self.denoiser.timesteps as usize;
        self.sampling.map_or(all, |usual| usual.steps)
    }

    /// Times to sample with where nothing else is asked for: the model's own choice, else
    /// even ones.
    pub fn usual_times(&self) -> Times {
        self.sampling.map_or(Times::Even, |usual| usual.times)
    }

    /// Which masked tokens are revealed together where nothing else is asked for: the model's
    /// own choice, else each by itself.
    pub fn usual_order(&self) -> RevealOrder {
        self.sampling
            .map_or(RevealOrder::Independent, |usual| usual.order)
    }

    /// Visible shares between which guidance is applied where nothing else is asked for: the
    /// model's own choice, else throughout.
    pub fn usual_guidance_span(&self) -> Option<[f64; 2]> {
        self.sampling.and_then(|usual| usual.guidance_span)
    }

    /// Guidance scale to sample with where nothing else is asked for: the model's own
    /// choice, else as in the original's instructions 5 with a learned null text, 1.5
    /// with a learned null class, and 1 (none).
    pub fn usual_guidance(&self) -> f64 {
        if let Some(usual) = self.sampling {
            return usual.guidance;
        }
        match (self.denoiser.condition, &self.text) {
            (_, Some(text)) if text.null == NullText::Learned => 5.0,
            (
                Conditioning::Class {
                    null: NullClass::Learned,
                    ..
                },
                _,
            ) => 1.5,
            _ => 1.0,
        }
    }

    /// Share of the probability to keep (truncation rate) that goes with a `guidance`
    /// scale: the model's own choice, else that of the original's instructions: 0.86 without guidance, with it 0.94 for
    /// classes. Models with a learned null text keep all.
    pub fn usual_truncation(&self, guidance: f64) -> f64 {
        if let Some(usual) = self.sampling {
            return usual.truncation;
        }
        match (self.denoiser.condition, &self.text) {
            (_, Some(text)) if text.null == NullText::Learned => 1.0,
            (Conditioning::Class { .. }, _) if guidance != 1.0 => 0.94,
            _ => 0.86,
        }
    }

    /// Whether the model uses a subset of the codec's codes, so that it needs the
    /// mapping between the two.
    pub fn needs_code_mapping(&self) -> bool {
        self.denoiser.codes != self.codec.codebook
    }

    pub fn schedule(&self) -> Schedule {
        Schedule::new(
            &self.transition,
            self.denoiser.timesteps as usize,
            self.denoiser.codes,
        )
    }

    /// Height and width of a picture in pixels.
    pub fn picture_size(&self) -> [i64; 2] {
        self.denoiser.grid.map(|side| side * self.codec.factor())
    }
}
