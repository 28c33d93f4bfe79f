//! What a run is trained on: a token cache, pictures, or a file of tokens.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::clip::ClipTokenizer;
use crate::codec::ImageCodec;
use crate::data::cache::codec_identity;
use crate::data::{
    CachedSamples, Conditions, DataError, Dataset, LiveSamples, Samples, Split, TokenCache,
    TokenLoader,
};
use crate::model::ModelConfig;
use crate::pipeline::LoadedCodec;
use crate::train::TrainError;
use crate::transformer::Conditioning;

/// What is trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The training set: a token cache (the folder that `vqdiffusion tokenize` writes), a
    /// data set of pictures, cropped and encoded anew for every step, or a safetensors
    /// file with int64 `tokens` `[N, L]` and `text_ids` `[N, S]` or `labels` `[N]`.
    pub train: PathBuf,
    /// The same of the validation set; the first training samples if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<PathBuf>,
    /// Share of samples whose condition is dropped, for guidance; 0.1 when fine-tuning
    /// with a learned null embedding.
    #[serde(default)]
    pub drop_rate: f64,
}

/// Opens the data of a run for its model.
pub struct DataSource<'a> {
    drop_rate: f64,
    /// Key of the run's random numbers.
    seed: u64,
    model: &'a ModelConfig,
    tokenizer: Option<ClipTokenizer>,
    codec: Rc<ImageCodec>,
    /// What token caches of this codec say of it.
    identity: String,
    device: Device,
}

impl<'a> DataSource<'a> {
    /// # Errors
    ///
    /// A share of dropped conditions for a model that has none.
    pub fn new(
        config: &DataConfig,
        seed: u64,
        model: &'a ModelConfig,
        tokenizer: Option<ClipTokenizer>,
        codec: LoadedCodec,
    ) -> Result<Self, TrainError> {
        let drop_rate = config.drop_rate;
        if drop_rate > 0.0 && model.denoiser.condition == Conditioning::Unconditional {
            return Err(TrainError::Value {
                key: "data.drop_rate",
                found: drop_rate.to_string(),
                expected: "0: the model has no condition to drop".into(),
            });
        }
        let condition = &model.denoiser.condition;
        if drop_rate > 0.0 && model.text.is_none() && condition.null_class().is_none() {
            return Err(TrainError::Value {
                key: "data.drop_rate",
                found: drop_rate.to_string(),
                expected: "0: nothing stands for \"no class\" in the model \
                           (denoiser.condition.null_class: absent)"
                    .into(),
            });
        }
        Ok(DataSource {
            drop_rate,
            seed,
            model,
            tokenizer,
            identity: codec_identity(&codec.fingerprint, &codec.codec)
                .map_err(|e| DataError::Invalid(e.to_string()))?,
            device: codec.device,
            codec: Rc::new(codec.codec),
        })
    }

    /// The samples at `path`: a token cache (a folder with `cache.json`), a data set of
    /// pictures, or a tokens file, whose tokens must be the model's.
    ///
    /// # Errors
    ///
    /// Data that cannot be read or are not the model's.
    pub fn open(&self, path: &Path, split: Split) -> Result<TokenLoader, TrainError> {
        let (seed, drop_rate) = (self.seed, self.drop_rate);
        if TokenCache::is_at(path) {
            let cache = TokenCache::open(path)?;
            cache.check_codec(&self.identity)?;
            self.check_length(path, cache.tokens_per_image() as i64)?;
            for label in cache.items().iter().filter_map(|item| item.label) {
                self.check_label(path, label)?;
            }
            let samples = CachedSamples::new(cache, self.conditions())?;
            return Ok(TokenLoader::from_cache(samples, seed, drop_rate));
        }
        if Dataset::is_at(path) {
            let dataset = Dataset::open(path, split, false)?;
            for skipped in &dataset.skipped {
                log::warn!("skipped {skipped}");
            }
            for label in dataset.items.iter().filter_map(|item| item.label) {
                self.check_label(path, label)?;
            }
            let [height, width] = self.model.picture_size();
            if height != width {
                return Err(misfit(
                    path,
                    format!(
                        "squares are cut out of pictures, but the model's are {width} by {height}"
                    ),
                ));
            }
            let samples = LiveSamples::new(
                dataset,
                self.codec.clone(),
                self.device,
                self.conditions(),
                (height as u32, self.model.denoiser.tokens()),
                seed,
            )?;
            return Ok(TokenLoader::from_pictures(samples, seed, drop_rate));
        }
        let samples = Samples::read(path)?;
        self.check_length(path, samples.tokens.size()[1])?;
        let [low, high] = [samples.tokens.min(), samples.tokens.max()].map(|t| t.int64_value(&[]));
        let codes = self.model.denoiser.codes;
        if low < 0 || high >= codes {
            return Err(misfit(
                path,
                format!(
                    "tokens from {low} to {high}, but the model has the codes 0 to {}",
                    codes - 1
                ),
            ));
        }
        if let Some(labels) = &samples.labels {
            for label in [labels.min(), labels.max()] {
                self.check_label(path, label.int64_value(&[]))?;
            }
        }
        self.check_text(path, samples.text_ids.as_ref())?;
        Ok(TokenLoader::new(samples, seed, drop_rate)?)
    }

    fn check_length(&self, path: &Path, found: i64) -> Result<(), TrainError> {
        let length = self.model.denoiser.tokens();
        if found == length {
            return Ok(());
        }
        Err(misfit(
            path,
            format!("{found} tokens an image, but the model has {length}"),
        ))
    }

    fn check_label(&self, path: &Path, label: i64) -> Result<(), TrainError> {
        match self.model.denoiser.condition {
            Conditioning::Class { classes, .. } if !(0..classes).contains(&label) => Err(misfit(
                path,
                format!(
                    "label {label}, but the model has the classes 0 to {}",
                    classes - 1
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Whether `ids` `[N, S]` are what the model's text tower takes, if it has one.
    fn check_text(&self, path: &Path, ids: Option<&Tensor>) -> Result<(), TrainError> {
        let Some(text) = &self.model.text else {
            return Ok(());
        };
        let (context, vocabulary) = (text.tower.context, text.tower.vocabulary);
        let problem = match ids {
            None => "has no 'text_ids', which a model of texts needs".to_string(),
            Some(ids) if ids.size()[1..] != [context] => format!(
                "text_ids of shape {:?}, expected {context} positions, the model's context",
                ids.size()
            ),
            Some(ids) => {
                let [low, high] = [ids.min(), ids.max()].map(|t| t.int64_value(&[]));
                if low >= 0 && high < vocabulary {
                    return Ok(());
                }
                format!(
                    "text_ids from {low} to {high}, but the model's vocabulary is 0 to {}",
                    vocabulary - 1
                )
            }
        };
        Err(misfit(path, problem))
    }

    fn conditions(&self) -> Conditions {
        match (&self.tokenizer, self.model.denoiser.condition) {
            (Some(tokenizer), _) => Conditions::Text(Box::new(tokenizer.clone())),
            (None, Conditioning::Class { .. }) => Conditions::Class,
            (None, _) => Conditions::Nothing,
        }
    }
}

/// The data at `path` are not what the model takes.
fn misfit(path: &Path, problem: String) -> TrainError {
    TrainError::Data(DataError::Format {
        path: path.to_path_buf(),
        problem,
    })
}
