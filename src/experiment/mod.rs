//! The experiment: one YAML file that says what is trained on what, and how. It
//! composes the configurations that lie beside their modules.

pub mod codec;
mod describe;
mod official;

pub use describe::describe;

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use crate::checkpoint::LoadError;
use crate::config_error::ConfigError;
use crate::files::{self, FileError};
use crate::model::ModelConfig;
use crate::train::diffusion::{DataConfig, TrainConfig, WeightsConfig};
use crate::yaml::{Layers, LayersError, Place, YamlFile};

/// A training experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// The model's shape; that of `weights.init_from` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelConfig>,
    #[serde(default)]
    pub weights: WeightsConfig,
    pub data: DataConfig,
    #[serde(default)]
    pub train: TrainConfig,
}

/// Keys of which a later layer's one counts: each says how long a run is.
const EITHER: &[[&str; 2]] = &[["train.steps", "train.epochs"]];

/// Why a file is not an experiment.
#[derive(Debug, thiserror::Error)]
pub enum ExperimentError {
    /// The files, or the settings on top of them, cannot be put together.
    #[error(transparent)]
    Layers(#[from] LayersError),
    /// A key or a value is not as expected there.
    #[error("{place}: {problem}")]
    Format { place: Place, problem: String },
    /// A value is impossible, or contradicts another.
    #[error("{place}: {source}")]
    Config { place: Place, source: ConfigError },
    /// An official configuration, or a file that it names, is not as it must be.
    #[error(transparent)]
    Official(#[from] LoadError),
}

impl Experiment {
    /// Reads `path`, ours or an official configuration, with the files that `base` names in
    /// it, and applies `overrides`, each `dotted.key=value` with a value in YAML.
    ///
    /// # Errors
    ///
    /// Unknown keys, wrong types and impossible values, with their place.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, ExperimentError> {
        read(path, overrides, official::translated, Experiment::check)
    }

    /// Whether the values are possible; the first that is not, by its key.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.data.train.as_os_str().is_empty() {
            let problem = "is missing: the token cache to train on (data.train=FOLDER)";
            return Err(ConfigError::contradiction("data.train", problem));
        }
        let rate = self.data.drop_rate;
        if !(0.0..=1.0).contains(&rate) {
            return Err(ConfigError::value("data.drop_rate", rate, "0 to 1"));
        }
        if self.weights.learned_null && rate == 0.0 {
            return Err(ConfigError::value(
                "data.drop_rate",
                0,
                "above 0 with weights.learned_null: without dropped conditions the null \
                 condition is never trained",
            ));
        }
        if let Some(model) = &self.model {
            model.check().map_err(|e| e.of_part("model"))?;
        }
        self.train.check().map_err(|e| e.within("train"))
    }
}

/// Reads an experiment of one kind or another from `path` with `overrides`. Where
/// `translate` recognises a document of another layout, it gives ours.
fn read<T: DeserializeOwned>(
    path: &Path,
    overrides: &[String],
    translate: impl Fn(&YamlFile) -> Result<Option<Value>, ExperimentError>,
    check: impl Fn(&T) -> Result<(), ConfigError>,
) -> Result<T, ExperimentError> {
    let file = YamlFile::read(path).map_err(ExperimentError::Layers)?;
    let mut layers = Layers::of(file, EITHER, translate)?;
    for argument in overrides {
        layers.set(argument)?;
    }
    expand_homes(layers.root_mut()).map_err(LayersError::File)?;
    let parsed = layers.parse();
    let experiment = parsed.map_err(|misfit| ExperimentError::Format {
        place: misfit.place,
        problem: misfit.problem,
    })?;
    check(&experiment).map_err(|source| ExperimentError::Config {
        place: layers.place_of(&source.key()),
        source,
    })?;
    Ok(experiment)
}

/// Puts the home folder into every path below `value` that begins with `~/`.
fn expand_homes(value: &mut Value) -> Result<(), FileError> {
    match value {
        Value::String(text) if text.starts_with("~/") => {
            let path = files::expand_home(Path::new(text))?;
            *text = path.to_string_lossy().into_owned();
        }
        Value::Sequence(values) => values.iter_mut().try_for_each(expand_homes)?,
        Value::Mapping(mapping) => mapping.values_mut().try_for_each(expand_homes)?,
        Value::Tagged(tagged) => expand_homes(&mut tagged.value)?,
        _ => {}
    }
    Ok(())
}
