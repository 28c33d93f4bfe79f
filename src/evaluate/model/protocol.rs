//! The protocol: a YAML file that says which pictures a model is asked for, which real ones
//! they are compared with, and how.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::ModelError;
use crate::config_error::ConfigError;
use crate::data::Split;
use crate::diffusion::purity::Revealing;
use crate::diffusion::truncation::Truncation;
use crate::diffusion::{RevealOrder, ReverseRule, Times};
use crate::evaluate::pictures::measure::LEAST;
use crate::files;
use crate::metrics::networks::dinov2::PositionTable;
use crate::metrics::preparation::{ClipCrop, DinoResize, InceptionResize};
use crate::picture::Pillow;
use crate::pipeline::{PictureOptions, PictureSettings, Ranking};
use crate::yaml;

/// How a model is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelProtocol {
    /// For the header of the table.
    pub name: String,
    pub reals: RealsProtocol,
    pub samples: SamplesProtocol,
    #[serde(default)]
    pub measures: MeasuresProtocol,
    /// Rows of other models, to print beside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<PublishedRow>,
}

/// The real pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealsProtocol {
    /// A data set of any layout; or for models that read no text an `.npz` of pictures or of
    /// their statistics, as ADM's evaluator reads it.
    #[serde(default)]
    pub data: PathBuf,
    /// Part of a data set that has parts.
    #[serde(default)]
    pub split: Split,
    /// So many are drawn; all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pictures: Option<usize>,
    /// The number that the drawn ones count as in Fréchet distances, by repetition in turn,
    /// as published figures of small sets were made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_as: Option<usize>,
    /// Pixels a side: each is scaled to cover such a square, its centre cut out.
    pub crop: u32,
    /// SHA-256 of the list of real pictures (reals.txt of a run). Not checked where absent; a
    /// run writes the protocol with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list_sha256: Option<String>,
}

/// The pictures that the model is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplesProtocol {
    pub pictures: usize,
    /// Captions of each real picture that are asked for, at most, of models that read text;
    /// where a picture has fewer, again from its first.
    #[serde(default = "one")]
    pub captions_a_picture: usize,
    /// Seed of the first picture; picture n has this + n, the runs behind the first those
    /// that follow.
    #[serde(default)]
    pub first_seed: u64,
    #[serde(default)]
    pub sampler: SamplerProtocol,
    /// Candidates for each picture that is kept.
    #[serde(default = "one")]
    pub best_of: usize,
    /// What ranks candidates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerank: Option<Ranking>,
}

fn one() -> usize {
    1
}

/// How pictures are sampled; what suits the model where absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplerProtocol {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<Times>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<RevealOrder>,
    /// Guidance scale; 1 is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance: Option<f64>,
    /// Rate in (0, 1]; 1 keeps all codes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncation: Option<f64>,
    /// Weight of the purity prior, which reveals fixed numbers of tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purity: Option<f64>,
    /// Tokens revealed by an evaluation of the network, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_step: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<ReverseRule>,
}

impl SamplerProtocol {
    /// `options` with what is said here.
    pub fn apply(&self, mut options: PictureOptions) -> PictureOptions {
        if let Some(rule) = self.rule {
            options = options.rule(rule);
        }
        if let Some(revealing) = Revealing::asked(self.purity, self.tokens_per_step) {
            options = options.revealing(revealing);
        }
        options.steps = self.steps.unwrap_or(options.steps);
        options.times = self.times.unwrap_or(options.times);
        options.order = self.order.unwrap_or(options.order);
        options.guidance = self.guidance.unwrap_or(options.guidance);
        if let Some(rate) = self.truncation {
            options.truncation = Some(Truncation::TopP(rate));
        }
        options
    }
}

/// How networks see pictures, and the seed of what is drawn in measures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeasuresProtocol {
    pub inception_resize: InceptionResize,
    pub dinov2_resize: DinoResize,
    pub dinov2_positions: PositionTable,
    pub clip_crop: ClipCrop,
    pub pillow: Pillow,
    pub seed: u64,
}

impl Default for MeasuresProtocol {
    fn default() -> Self {
        MeasuresProtocol {
            inception_resize: InceptionResize::default(),
            dinov2_resize: DinoResize::default(),
            dinov2_positions: PositionTable::default(),
            clip_crop: ClipCrop::default(),
            pillow: Pillow::default(),
            seed: 2020,
        }
    }
}

/// What was published of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedRow {
    pub model: String,
    /// Figures by the names of a report's summary, such as `fid`.
    pub figures: BTreeMap<String, f64>,
    /// Where the figures stand.
    pub source: String,
    /// In what it is unlike this protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlike: Option<String>,
}

impl ModelProtocol {
    /// # Errors
    ///
    /// A file that is no YAML, has unknown keys or impossible values.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let text = yaml::read(path)?;
        let protocol: Self = serde_yaml::from_str(&text).map_err(|e| ModelError::Format {
            path: path.to_path_buf(),
            problem: e.to_string(),
        })?;
        let mut protocol = protocol;
        protocol.reals.data = files::expand_home(&protocol.reals.data)?;
        protocol.check().map_err(|source| ModelError::Config {
            path: path.to_path_buf(),
            source,
        })?;
        Ok(protocol)
    }

    /// Whether the values are possible; the first that is not, by its key.
    ///
    /// # Errors
    ///
    /// See above.
    pub fn check(&self) -> Result<(), ConfigError> {
        let at_least = |key: &str, value: usize, least: usize| match value < least {
            true => Err(ConfigError::value(key, value, format!("at least {least}"))),
            false => Ok(()),
        };
        let reals = &self.reals;
        at_least("samples.pictures", self.samples.pictures, LEAST)?;
        at_least(
            "samples.captions_a_picture",
            self.samples.captions_a_picture,
            1,
        )?;
        at_least("samples.best_of", self.samples.best_of, 1)?;
        if let Some(pictures) = reals.pictures {
            at_least("reals.pictures", pictures, LEAST)?;
        }
        if let Some(counted) = reals.counted_as {
            at_least("reals.counted_as", counted, reals.pictures.unwrap_or(LEAST))?;
        }
        if !(8..=4096).contains(&reals.crop) {
            return Err(ConfigError::value("reals.crop", reals.crop, "8 to 4096"));
        }
        match (self.samples.best_of, self.samples.rerank) {
            (1, Some(_)) => Err(ConfigError::value(
                "samples.best_of",
                1,
                "at least 2 with samples.rerank",
            )),
            (n, None) if n > 1 => Err(ConfigError::contradiction(
                "samples.best_of",
                format!("is {n}, but samples.rerank does not say what ranks"),
            )),
            _ => Ok(()),
        }
    }

    /// SHA-256 of all that decides the figures, besides model, weights and the place of the
    /// reals, with the sampler's options as `settings` settle them.
    pub fn sha256(&self, settings: &PictureSettings) -> String {
        #[derive(Serialize)]
        struct Decisive<'a> {
            reals: RealsProtocol,
            samples: SamplesProtocol,
            measures: &'a MeasuresProtocol,
            settings: &'a PictureSettings,
        }
        let decisive = Decisive {
            reals: RealsProtocol {
                data: PathBuf::new(),
                ..self.reals.clone()
            },
            samples: SamplesProtocol {
                sampler: SamplerProtocol::default(),
                ..self.samples.clone()
            },
            measures: &self.measures,
            settings,
        };
        let text = serde_json::to_vec(&decisive).expect("named fields are JSON");
        files::sha256(&text)
    }
}
