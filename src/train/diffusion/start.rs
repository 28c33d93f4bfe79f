//! What a run starts from: weights of files or drawn ones, trained or frozen.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::Device;

use super::config::TrainConfig;
use super::model::{build, hidden_matrices, TextTraining};
use super::start_weights::{OtherGrid, StartWeights};
use super::task::Frozen;
use crate::checkpoint::clip::tower::read_text_tower;
use crate::checkpoint::config_file::differences;
use crate::checkpoint::official::{known_and_ignored, CODEC, CODE_MAPPING, NULL_TEXT, TEXT};
use crate::checkpoint::vocabulary::{self, MERGES};
use crate::checkpoint::{
    Checkpoint, CodecFile, Layout, LoadError, Loader, OpenOptions, StateDict, WeightSet,
};
use crate::model::{ModelConfig, NullText};
use crate::pipeline::LoadedCodec;
use crate::torch::params::{Placeholders, RandomWeights};
use crate::torch::WeightSource;
use crate::train::engine::RunState;
use crate::train::TrainError;
use crate::transformer::config::IndexEmbedding;
use crate::transformer::{Conditioning, NullClass};

/// Files that weights come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WeightsConfig {
    /// Model file to go on from, of any layout that can be read; without it the denoiser
    /// starts from random weights. Where `model` names another grid, with the codec's
    /// resolution that belongs to it, the position tables are interpolated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_from: Option<PathBuf>,
    /// Give the model of `init_from` a learned null condition if it has none, for tuning
    /// with a `data.drop_rate`: an embedding in place of the text, or a row for "no class".
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub learned_null: bool,
    /// Configuration of `init_from`: the original's YAML or our own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// Code mapping file, where `init_from` uses a subset of the codec's codes and does
    /// not say which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapping: Option<PathBuf>,
    /// File of the image codec (a model file, or a codec's own), where there is no
    /// `init_from` or it holds none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec: Option<PathBuf>,
    /// File of the text tower (a CLIP archive or a model file), where there is no
    /// `init_from` or it holds none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<PathBuf>,
    /// Merge rules of the text vocabulary (`vqdiffusion train-vocabulary`), where
    /// `model.text.tower.merges` is `own` and no other file holds them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<PathBuf>,
}

/// The model that a run starts from: its files, opened but not read.
pub struct InitialModel {
    /// Shape, tensors and path of the files together.
    pub checkpoint: Checkpoint,
    /// Whether the denoiser's weights are drawn.
    random_denoiser: bool,
    random_text: bool,
    /// Whether the class tables get a row for "no class" (1000 → 1001 in ImageNet's).
    added_null_class: bool,
    /// Whether the file's model has another grid.
    other_grid: Option<OtherGrid>,
}

impl InitialModel {
    /// Opens what `weights` names for `model` (that of `init_from` if `None`).
    ///
    /// # Errors
    ///
    /// Files that cannot be read, that are missing for this model, or that hold another.
    pub fn open(
        weights: &WeightsConfig,
        model: Option<&ModelConfig>,
        text: TextTraining,
    ) -> Result<Self, TrainError> {
        match (&weights.init_from, model) {
            (Some(path), _) => Self::from_model(path, weights, model),
            (None, Some(model)) => Self::from_parts(weights, model, text),
            (None, None) => Err(TrainError::NoModel),
        }
    }

    fn from_model(
        path: &Path,
        weights: &WeightsConfig,
        model: Option<&ModelConfig>,
    ) -> Result<Self, TrainError> {
        let options = OpenOptions {
            config: weights.config.clone(),
            weights: WeightSet::Ema,
            mapping: weights.mapping.clone(),
            codec: weights.codec.clone(),
            text_encoder: weights.text.clone(),
            vocabulary: weights.vocabulary.clone(),
        };
        let mut checkpoint = Checkpoint::open(path, &options)?;
        let config = &mut checkpoint.config;
        if weights.learned_null && !has_class_table(&config.denoiser.condition) {
            return Err(TrainError::Setting {
                key: "weights.learned_null",
                problem: format!(
                    "{} has no table of classes that could take a row more \
                     (denoiser.condition.embedding: sinusoid)",
                    path.display()
                ),
            });
        }
        let added_null_class = weights.learned_null && learn_null(config);
        let mut other_grid = None;
        if let Some(wanted) = model {
            config.sampling = wanted.sampling.or(config.sampling);
            other_grid = OtherGrid::between(&config.denoiser, &wanted.denoiser);
            if other_grid.is_some() {
                config.denoiser.grid = wanted.denoiser.grid;
                config.denoiser.position_table = wanted.denoiser.position_table;
                config.codec.set_resolution(wanted.codec.resolution);
            }
            let differences = differences("model", wanted, config);
            if let Some((key, wanted, found)) = differences.into_iter().next() {
                return Err(TrainError::Differs {
                    key,
                    wanted,
                    path: path.to_path_buf(),
                    found,
                    remedy: "; leave 'model' out to take the file's",
                });
            }
        }
        Ok(InitialModel {
            checkpoint,
            random_denoiser: false,
            random_text: false,
            added_null_class,
            other_grid,
        })
    }

    fn from_parts(
        weights: &WeightsConfig,
        model: &ModelConfig,
        text: TextTraining,
    ) -> Result<Self, TrainError> {
        let missing = |key: &str, what: &str| TrainError::Missing {
            key: format!("weights.{key}"),
            what: format!("the file of the {what}"),
        };
        let codec = weights.codec.as_ref();
        let codec = codec.ok_or_else(|| missing("codec", "image codec"))?;
        let mut state = StateDict::default();
        let options = OpenOptions {
            mapping: weights.mapping.clone(),
            ..OpenOptions::default()
        };
        let mut file = CodecFile::open(codec, &options)?;
        file.config.set_resolution(model.codec.resolution);
        let mut differences = differences("model.codec", &model.codec, &file.config);
        if file.codes != model.denoiser.codes {
            let [wanted, found] = [model.denoiser.codes, file.codes].map(|n| n.to_string());
            differences.push(("model.denoiser.codes".into(), wanted, found));
        }
        if let Some((key, wanted, found)) = differences.into_iter().next() {
            let remedy = match key == "model.denoiser.codes" {
                true => " (weights.mapping leaves codes out)",
                false => "",
            };
            return Err(TrainError::Differs {
                key,
                wanted,
                path: codec.clone(),
                found,
                remedy,
            });
        }
        for (name, entry) in file
            .state
            .iter()
            .filter(|(name, _)| name.starts_with(CODEC))
        {
            state.insert(name, entry.clone());
        }
        match (&weights.text, text) {
            _ if model.text.is_none() => {}
            (Some(file), _) => {
                // Of a whole model, which may hold its code mapping, or of a CLIP file.
                let whole = Checkpoint::open(file, &options)
                    .or_else(|_| Checkpoint::open(file, &OpenOptions::default()));
                let tensors = match whole {
                    Ok(model) => model.state,
                    Err(_) => read_text_tower(file)?,
                };
                for (name, entry) in tensors
                    .iter()
                    .filter(|(name, _)| name.starts_with(TEXT) || *name == MERGES)
                {
                    state.insert(name, entry.clone());
                }
            }
            (None, TextTraining::Trained) => {}
            (None, TextTraining::Frozen) => {
                return Err(missing(
                    "text",
                    "text tower (or train it: train.text: trained)",
                ))
            }
        }
        let mut config = model.clone();
        if let Some(file) = &weights.vocabulary {
            add_vocabulary(file, &mut config, &mut state)?;
        }
        let checkpoint = Checkpoint {
            path: codec.clone(),
            layout: Layout::Native,
            config,
            state,
            notice: None,
        };
        // Whether the vocabulary is there.
        checkpoint.tokenizer()?;
        Ok(InitialModel {
            checkpoint,
            random_denoiser: true,
            random_text: weights.text.is_none(),
            added_null_class: false,
            other_grid: None,
        })
    }

    pub fn model(&self) -> &ModelConfig {
        &self.checkpoint.config
    }

    /// The image codec alone, on `device`.
    ///
    /// # Errors
    ///
    /// Weights that are missing, misshapen or not finite, by name.
    pub fn codec(&self, device: Device) -> Result<LoadedCodec, TrainError> {
        Ok(LoadedCodec::load(&self.checkpoint.clone().into(), device)?)
    }

    /// Values that are trained, and values of a frozen text tower; nothing is read.
    ///
    /// # Errors
    ///
    /// Weights that are missing or misshapen, by name.
    pub fn sizes(&self, config: &TrainConfig) -> Result<(u64, u64), TrainError> {
        let Checkpoint { state, path, .. } = &self.checkpoint;
        let loader = Loader::without_reading(state, path);
        let source = self.weights(&loader, &Placeholders);
        let (_, parameters) = build(self.model(), config.text, &source, Device::Cpu);
        finish(loader)?;
        let text = self.checkpoint.state.iter().filter(|(name, _)| {
            let frozen = name.starts_with(TEXT) && !parameters.tensors.contains_key(*name);
            frozen && known_and_ignored(name).is_none()
        });
        let frozen = text.map(|(_, entry)| entry.numel() as u64).sum();
        Ok((parameters.numel(), frozen))
    }

    fn weights<'a>(&self, loader: &'a Loader<'a>, drawn: &'a dyn WeightSource) -> StartWeights<'a> {
        StartWeights {
            loader,
            drawn,
            drawn_denoiser: self.random_denoiser,
            drawn_text: self.random_text,
            drawn_null: !self.checkpoint.state.contains(NULL_TEXT),
            added_null_class: self.added_null_class,
            other_grid: self.other_grid,
        }
    }

    /// Reads the weights to `device`; drawn ones follow `config.seed`. Returns the run's
    /// state at its first step, and the frozen parts.
    ///
    /// # Errors
    ///
    /// Weights that are missing, misshapen or not finite, by name.
    pub fn load(
        &self,
        config: &TrainConfig,
        device: Device,
    ) -> Result<(RunState, Frozen), TrainError> {
        let Checkpoint { state, path, .. } = &self.checkpoint;
        let loader = Loader::new(state, path);
        let source = self.weights(&loader, &RandomWeights);
        tch::manual_seed(config.seed as i64);
        let (parts, parameters) = build(self.model(), config.text, &source, device);

        let trained = |name: &str| parameters.tensors.contains_key(name);
        let mut tensors = StateDict::default();
        for (name, entry) in state.iter() {
            let read_apart = [CODE_MAPPING, MERGES].contains(&name);
            let kept = read_apart || known_and_ignored(name).is_none();
            // A null embedding that this model does not have is left behind.
            if kept && !trained(name) && name != NULL_TEXT {
                tensors.insert(name, entry.clone());
            }
        }
        finish(loader)?;
        let frozen = Frozen {
            parts,
            tensors,
            notice: self.checkpoint.notice.clone(),
        };
        let state = RunState::new(&config.rules(), parameters, hidden_matrices);
        Ok((state, frozen))
    }
}

/// Adds the merge rules in `file` to the model's tensors.
fn add_vocabulary(
    file: &Path,
    config: &mut ModelConfig,
    state: &mut StateDict,
) -> Result<(), TrainError> {
    let Some(text) = &mut config.text else {
        return Err(TrainError::Value {
            key: "weights.vocabulary",
            found: file.display().to_string(),
            expected: "none: the model takes no text".into(),
        });
    };
    let declared = text.tower.merges;
    vocabulary::add_file(file, &mut text.tower, state)?;
    if text.tower.merges == declared {
        return Ok(());
    }
    Err(TrainError::Value {
        key: "weights.vocabulary",
        found: format!("{}, whose merge rules are not CLIP's", file.display()),
        expected: "model.text.tower.merges: own".into(),
    })
}

fn finish(loader: Loader) -> Result<(), LoadError> {
    loader.finish(|name| {
        let elsewhere = name.starts_with(CODEC) || name == NULL_TEXT;
        known_and_ignored(name).or(elsewhere.then_some("no part of the denoiser"))
    })?;
    Ok(())
}

/// Whether classes, if there are any, are looked up in a table.
fn has_class_table(condition: &Conditioning) -> bool {
    !matches!(
        condition,
        Conditioning::Class {
            embedding: IndexEmbedding::Sinusoid,
            ..
        }
    )
}

/// Gives the model a learned null condition; whether that is a new row for "no class".
fn learn_null(config: &mut ModelConfig) -> bool {
    if let Some(text) = &mut config.text {
        text.null = NullText::Learned;
    }
    match &mut config.denoiser.condition {
        Conditioning::Class { null, .. } => {
            std::mem::replace(null, NullClass::Learned) != NullClass::Learned
        }
        _ => false,
    }
}
