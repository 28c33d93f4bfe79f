//! The experiment: one YAML file that says what is trained on what, and how. It
//! composes the configurations that lie beside their modules.

pub mod codec;
mod describe;
mod official;

pub use describe::describe;

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_yaml::{Mapping, Value};

use crate::checkpoint::LoadError;
use crate::config_error::ConfigError;
use crate::files::{self, FileError};
use crate::model::ModelConfig;
use crate::train::diffusion::{DataConfig, TrainConfig, WeightsConfig};
use crate::yaml;

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

/// Why a file is not an experiment.
#[derive(Debug, thiserror::Error)]
pub enum ExperimentError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}: {problem}", path.display())]
    Format { path: PathBuf, problem: String },
    /// A value is impossible, or contradicts another.
    #[error("{}: {source}", path.display())]
    Config { path: PathBuf, source: ConfigError },
    /// An official configuration, or a file that it names, is not as it must be.
    #[error(transparent)]
    Official(#[from] LoadError),
    #[error("{argument}: {problem}")]
    Override { argument: String, problem: String },
}

impl Experiment {
    /// Reads `path`, ours or an official configuration, and applies `overrides`, each
    /// `dotted.key=value` with a value in YAML.
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
    translate: impl Fn(&Path, &Value) -> Result<Option<Value>, ExperimentError>,
    check: impl Fn(&T) -> Result<(), ConfigError>,
) -> Result<T, ExperimentError> {
    let text = yaml::read(path)?;
    let format = |problem: String| ExperimentError::Format {
        path: path.to_path_buf(),
        problem,
    };
    let mut root: Value = serde_yaml::from_str(&text).map_err(|e| format(e.to_string()))?;
    let translation = translate(path, &root)?;
    let ours = translation.is_none();
    root = translation.unwrap_or(root);
    for argument in overrides {
        set(&mut root, argument).map_err(|problem| ExperimentError::Override {
            argument: argument.clone(),
            problem,
        })?;
    }
    expand_homes(&mut root)?;
    // Errors straight from the text carry the line.
    let plain = || serde_yaml::from_str::<T>(&text).map_err(|e| format(explained(&e.to_string())));
    let experiment = serde_yaml::from_value(root).map_err(|e| {
        let problem = explained(&e.to_string());
        match plain() {
            Err(in_file) if ours => in_file,
            _ if overrides.is_empty() => format(problem),
            _ => ExperimentError::Override {
                argument: overrides.join(" "),
                problem,
            },
        }
    })?;
    check(&experiment).map_err(|source| ExperimentError::Config {
        path: path.to_path_buf(),
        source,
    })?;
    Ok(experiment)
}

/// Sets the entry that `dotted.key=value` names, making what lies between.
fn set(root: &mut Value, argument: &str) -> Result<(), String> {
    let (key, value) = argument
        .split_once('=')
        .ok_or("expected key=value, such as train.steps=1000")?;
    yaml::check_brackets(value).map_err(|e| format!("the value: {e}"))?;
    let value: Value =
        serde_yaml::from_str(value).map_err(|e| format!("the value is not YAML: {e}"))?;
    let mut at = &mut *root;
    for part in key.split('.') {
        if part.is_empty() {
            return Err("the key has an empty part".into());
        }
        if at.is_null() {
            *at = Value::Mapping(Mapping::new());
        }
        let Value::Mapping(mapping) = at else {
            return Err(format!("'{part}' lies below something that has no entries"));
        };
        at = mapping
            .entry(Value::String(part.into()))
            .or_insert(Value::Null);
    }
    *at = value;
    // Each says how long a run is; the later one counts.
    let other = match key {
        "train.steps" => "epochs",
        "train.epochs" => "steps",
        _ => return Ok(()),
    };
    if let Some(Value::Mapping(train)) = root.get_mut("train") {
        train.remove(other);
    }
    Ok(())
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

/// Adds the nearest of the expected names to a message about an unknown one.
fn explained(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = ["unknown field", "unknown variant"]
        .iter()
        .any(|what| message.contains(what));
    let Some(found) = quoted.next().filter(|_| unknown) else {
        return message.to_string();
    };
    let nearest = quoted.max_by(|a, b| strsim::jaro(a, found).total_cmp(&strsim::jaro(b, found)));
    match nearest {
        Some(nearest) if strsim::jaro(nearest, found) > 0.6 => {
            format!("{message}; did you mean `{nearest}`?")
        }
        _ => message.to_string(),
    }
}
