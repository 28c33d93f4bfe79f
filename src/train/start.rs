//! What a run starts from: weights of files or drawn ones, trained or frozen.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::config::TrainConfig;
use super::error::TrainError;
use super::model::{ConditionParts, TextTraining, TrainingModel};
use super::parameters::TrainableWeights;
use super::state::RunState;
use crate::checkpoint::clip_archive::read_text_tower;
use crate::checkpoint::config_file::differences;
use crate::checkpoint::official::{self, known_and_ignored, CODEC, CODE_MAPPING, NULL_TEXT, TEXT};
use crate::checkpoint::open::is_safetensors;
use crate::checkpoint::state_dict::read_safetensors;
use crate::checkpoint::{Checkpoint, Loader, OpenOptions, StateDict, WeightSet};
use crate::clip::TextEncoder;
use crate::codec::image_codec::CodeMapping;
use crate::codec::ImageCodec;
use crate::model::{ModelConfig, NullText};
use crate::torch::params::RandomWeights;
use crate::torch::{Init, Params, WeightSource};

/// Files that weights come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WeightsConfig {
    /// Model file to go on from, of any layout that can be read; without it the denoiser
    /// starts from random weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_from: Option<PathBuf>,
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
}

/// The files of a start, opened but not read.
pub struct Start {
    pub model: ModelConfig,
    state: StateDict,
    /// For messages.
    path: PathBuf,
    /// Whether the denoiser's weights are drawn.
    random_denoiser: bool,
    random_text: bool,
}

impl Start {
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
            (None, None) => Err(TrainError::Mismatch(
                "no model to train: give its shape under 'model', or a model file with \
                 weights.init_from (--init-from)"
                    .into(),
            )),
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
        };
        let checkpoint = Checkpoint::open(path, &options)?;
        let mut config = checkpoint.config;
        if let Some(wanted) = model {
            // A null embedding may be added: fine-tuning for guidance.
            if let (Some(text), Some(wanted)) = (&mut config.text, &wanted.text) {
                if wanted.null == NullText::Learned {
                    text.null = NullText::Learned;
                }
            }
            if let Some((key, wanted, found)) = differences(wanted, &config).into_iter().next() {
                return Err(TrainError::Mismatch(format!(
                    "{key} is {wanted}, but {} holds {found}; leave 'model' out to take the \
                     file's",
                    path.display()
                )));
            }
        }
        Ok(Start {
            model: config,
            state: checkpoint.state,
            path: path.to_path_buf(),
            random_denoiser: false,
            random_text: false,
        })
    }

    fn from_parts(
        weights: &WeightsConfig,
        model: &ModelConfig,
        text: TextTraining,
    ) -> Result<Self, TrainError> {
        let missing = |key: &str, what: &str| {
            TrainError::Mismatch(format!("weights.{key} is missing: the file of the {what}"))
        };
        let codec = weights.codec.as_ref();
        let codec = codec.ok_or_else(|| missing("codec", "image codec"))?;
        let mut state = StateDict::default();
        let read = if is_safetensors(codec)? {
            read_safetensors(codec)?.0
        } else {
            official::read(codec, WeightSet::Ema)?.0
        };
        for (name, entry) in read.iter().filter(|(name, _)| name.starts_with(CODEC)) {
            state.insert(name, entry.clone());
        }
        match (&weights.text, text) {
            _ if model.text.is_none() => {}
            (Some(file), _) => {
                for (name, entry) in read_text_tower(file)?.iter() {
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
        if let Some(mapping) = &weights.mapping {
            state.insert(CODE_MAPPING, official::read_mapping(mapping)?);
        }
        Ok(Start {
            model: model.clone(),
            state,
            path: codec.clone(),
            random_denoiser: true,
            random_text: weights.text.is_none(),
        })
    }

    /// Reads the weights to `device`; drawn ones follow `config.seed`. Returns the run's
    /// state at its first step, the frozen parts of the condition, and the frozen
    /// tensors that model files of this run hold besides the trained ones.
    ///
    /// # Errors
    ///
    /// Weights that are missing, misshapen or not finite, by name.
    pub fn load(
        &self,
        config: &TrainConfig,
        device: Device,
    ) -> Result<(RunState, ConditionParts, StateDict), TrainError> {
        let loader = Loader::new(&self.state, &self.path);
        let source = StartWeights {
            loader: &loader,
            start: self,
        };
        tch::manual_seed(config.seed as i64);
        let root = Params::new(&source, device, Kind::Float);
        let tower = match (&self.model.text, config.text) {
            (Some(text), TextTraining::Frozen) => {
                Some(TextEncoder::new(&root.at(TEXT), &text.tower))
            }
            _ => None,
        };
        let parts = ConditionParts::new(&self.model, tower, device)?;
        let trainable = TrainableWeights::new(&source, device);
        let _ = TrainingModel::new(
            &Params::new(&trainable, device, Kind::Float),
            &parts,
            &self.model,
        );
        let parameters = trainable.into_parameters();
        // The codec is only copied, but a damaged one is better known now.
        let codec = Params::new(&loader, Device::Cpu, Kind::Float);
        let mapping = self.mapping()?;
        let _ = ImageCodec::new(&codec.at(CODEC), &self.model.codec, mapping);

        let trained = |name: &str| parameters.tensors.contains_key(name);
        let mut frozen = StateDict::default();
        for (name, entry) in self.state.iter() {
            let kept = name == CODE_MAPPING || known_and_ignored(name).is_none();
            if kept && !trained(name) {
                frozen.insert(name, entry.clone());
            }
        }
        // A null embedding that this model does not have is dropped.
        let unused = |name: &str| {
            let dropped = name == NULL_TEXT && !trained(NULL_TEXT);
            dropped.then_some("the model has no learned null embedding")
        };
        loader.finish(|name| known_and_ignored(name).or_else(|| unused(name)))?;
        let state = RunState::new(config, parameters, self.model.denoiser.timesteps as usize);
        Ok((state, parts, frozen))
    }

    fn mapping(&self) -> Result<Option<CodeMapping>, TrainError> {
        if !self.model.needs_code_mapping() {
            return Ok(None);
        }
        let Some(entry) = self.state.get(CODE_MAPPING) else {
            return Err(TrainError::Mismatch(format!(
                "the model uses {} of the codec's {} codes, and which ones is not known: \
                 weights.mapping is missing",
                self.model.denoiser.codes, self.model.codec.codebook
            )));
        };
        CodeMapping::new(&entry.read()?, self.model.denoiser.codes)
            .map(Some)
            .map_err(TrainError::Mismatch)
    }
}

/// Weights of the files where they are wanted from there, else drawn ones.
struct StartWeights<'a> {
    loader: &'a Loader<'a>,
    start: &'a Start,
}

impl WeightSource for StartWeights<'_> {
    fn weight(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        let random = if name.starts_with(CODEC) {
            false
        } else if name.starts_with(TEXT) {
            self.start.random_text
        } else {
            let added = name == NULL_TEXT && !self.start.state.contains(NULL_TEXT);
            self.start.random_denoiser || added
        };
        if random {
            RandomWeights.weight(name, shape, init)
        } else {
            self.loader.weight(name, shape, init)
        }
    }
}
