//! A configuration file given beside a checkpoint: the original's YAML or our own.

use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::error::LoadError;
use super::infer::Unshown;
use super::official::OfficialConfig;
use crate::model::ModelConfig;
use crate::yaml::{Layers, YamlFile};

/// Our own YAML: the model's shape, in an experiment or alone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnYaml {
    model: ModelConfig,
    /// The other parts of an experiment.
    #[serde(default, rename = "weights")]
    _weights: IgnoredAny,
    #[serde(default, rename = "data")]
    _data: IgnoredAny,
    #[serde(default, rename = "train")]
    _train: IgnoredAny,
}

/// A configuration file of either layout.
#[derive(Clone, Debug)]
pub enum ConfigFile {
    Official(OfficialConfig),
    Own {
        path: PathBuf,
        model: Box<ModelConfig>,
    },
}

impl ConfigFile {
    /// Reads `path`; errors carry the place in the file.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let file = YamlFile::read(path)?;
        if OfficialConfig::recognises(&file.root) {
            return Ok(ConfigFile::Official(OfficialConfig::new(path, file.root)?));
        }
        let layers = Layers::of(file, &[], |base| {
            match OfficialConfig::recognises(&base.root) {
                true => Err(LoadError::Format {
                    path: base.path.clone(),
                    problem: format!(
                        "is an official configuration, which {} is based on; give this itself",
                        path.display()
                    ),
                }),
                false => Ok(None),
            }
        })?;
        let own: OwnYaml = layers.parse().map_err(|misfit| LoadError::Format {
            path: path.to_path_buf(),
            problem: format!(
                "neither an official configuration (model.params.diffusion_config) nor ours: \
                 {}: {}",
                misfit.place, misfit.problem
            ),
        })?;
        own.model.check().map_err(|e| LoadError::Config {
            path: path.to_path_buf(),
            source: e.of_part("model"),
        })?;
        Ok(ConfigFile::Own {
            path: path.to_path_buf(),
            model: Box::new(own.model),
        })
    }

    pub fn path(&self) -> &Path {
        match self {
            ConfigFile::Official(yaml) => yaml.path(),
            ConfigFile::Own { path, .. } => path,
        }
    }

    /// What it says that no weight shows.
    pub fn unshown(&self) -> Result<Unshown, LoadError> {
        match self {
            ConfigFile::Official(yaml) => yaml.unshown(),
            ConfigFile::Own { model, .. } => Ok(Unshown::of(model)),
        }
    }

    /// The noise it declares; official configurations always mean the released one.
    pub fn transition(&self) -> Option<&crate::diffusion::Transition> {
        match self {
            ConfigFile::Official(_) => None,
            ConfigFile::Own { model, .. } => Some(&model.transition),
        }
    }

    /// The code mapping file it names.
    pub fn mapping_path(&self) -> Result<Option<&str>, LoadError> {
        match self {
            ConfigFile::Official(yaml) => yaml.mapping_path(),
            ConfigFile::Own { .. } => Ok(None),
        }
    }

    /// The codec file it names.
    pub fn codec_path(&self) -> Result<Option<&str>, LoadError> {
        match self {
            ConfigFile::Official(yaml) => yaml.codec_path(),
            ConfigFile::Own { .. } => Ok(None),
        }
    }

    /// The merge rules it names.
    pub fn vocabulary_path(&self) -> Result<Option<&str>, LoadError> {
        match self {
            ConfigFile::Official(yaml) => yaml.vocabulary_path(),
            ConfigFile::Own { .. } => Ok(None),
        }
    }

    /// Takes over how the model is sampled, which is not a matter of its weights; an
    /// error naming both values if anything else contradicts `model`, found in `file`.
    pub fn apply(&self, model: &mut ModelConfig, file: &Path) -> Result<(), LoadError> {
        if let ConfigFile::Own { model: own, .. } = self {
            model.sampling = own.sampling.or(model.sampling);
        }
        match self {
            ConfigFile::Official(yaml) => yaml.apply(model, file),
            ConfigFile::Own {
                path,
                model: declared,
            } => {
                let differences = differences("model", declared.as_ref(), model);
                match differences.into_iter().next() {
                    None => Ok(()),
                    Some((key, declared, found)) => Err(LoadError::Mismatch {
                        config: path.clone(),
                        key,
                        declared,
                        file: file.to_path_buf(),
                        found,
                    }),
                }
            }
        }
    }
}

/// Dotted key below `root` and both values wherever two shapes differ.
pub fn differences<T: Serialize>(
    root: &str,
    declared: &T,
    found: &T,
) -> Vec<(String, String, String)> {
    fn walk(
        key: &str,
        a: &serde_json::Value,
        b: &serde_json::Value,
        out: &mut Vec<(String, String, String)>,
    ) {
        match (a, b) {
            (serde_json::Value::Object(x), serde_json::Value::Object(y)) => {
                for (name, value) in x {
                    let other = y.get(name).unwrap_or(&serde_json::Value::Null);
                    walk(&format!("{key}.{name}"), value, other, out);
                }
            }
            _ if a == b => {}
            _ => out.push((key.to_string(), a.to_string(), b.to_string())),
        }
    }
    let mut out = Vec::new();
    if let (Ok(a), Ok(b)) = (serde_json::to_value(declared), serde_json::to_value(found)) {
        walk(root, &a, &b, &mut out);
    }
    out
}
