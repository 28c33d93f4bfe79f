//! The recipe of an official configuration: its `solver`, batch size and loss weights.

use serde_yaml::Value;

use super::diffusion::TrainConfig;
use super::engine::ema::EmaConfig;
use super::engine::learning_rate::{Course, LearningRateConfig, ThresholdMode};
use super::engine::optimizer::{ClipConfig, OptimizerConfig};
use super::engine::Recipe;
use crate::diffusion::ObjectiveConfig;

/// What an official configuration says of training.
#[derive(Clone, Debug, PartialEq)]
pub struct OfficialRecipe {
    pub train: TrainConfig,
    /// `drop_caption_rate` of the first training set.
    pub drop_rate: f64,
}

const PART: &str = "solver.optimizers_and_schedulers.0";
const LOSS: &str = "model.params.diffusion_config.params";
const DATA: &str = "dataloader.train_datasets.0.params";

impl OfficialRecipe {
    /// Reads the recipe of the document `root`, for one process; what it does not say
    /// keeps its default. The number of steps follows from the size of the data set
    /// there and is not part of it.
    ///
    /// # Errors
    ///
    /// Values that are not of the type or kind the original knows, by their key.
    pub fn read(root: &Value) -> Result<Self, String> {
        let yaml = Document(root);
        let default = TrainConfig::default();
        let objective = ObjectiveConfig::default();
        let batch_size = yaml.whole("dataloader.batch_size")?.unwrap_or(4);
        let base = yaml.number("solver.base_lr")?.unwrap_or(3e-6);
        let scale = match yaml.word("solver.adjust_lr").unwrap_or("sqrt") {
            "none" => 1.0,
            "sqrt" => (batch_size as f64).sqrt(),
            "linear" => batch_size as f64,
            other => {
                return Err(format!(
                    "solver.adjust_lr is {other:?}, expected none, sqrt or linear"
                ))
            }
        };
        let flag = yaml.at(&format!("{LOSS}.adaptive_auxiliary_loss"));
        let mask_weight = |i| yaml.number(&format!("{LOSS}.mask_weight.{i}"));
        let beta = |i| yaml.number(&format!("{PART}.optimizer.params.betas.{i}"));
        let clip = "solver.clip_grad_norm.params";
        let train = TrainConfig {
            batch_size: batch_size as usize,
            accumulation: 1,
            recipe: Recipe::Official,
            objective: ObjectiveConfig {
                auxiliary_weight: yaml
                    .number(&format!("{LOSS}.auxiliary_loss_weight"))?
                    .unwrap_or(0.0),
                adaptive_auxiliary: flag.and_then(Value::as_bool).unwrap_or(true),
                mask_weight: [
                    mask_weight(0)?.unwrap_or(objective.mask_weight[0]),
                    mask_weight(1)?.unwrap_or(objective.mask_weight[1]),
                ],
            },
            learning_rate: yaml.learning_rate(base * scale)?,
            optimizer: OptimizerConfig {
                betas: [
                    beta(0)?.unwrap_or(default.optimizer.betas[0]),
                    beta(1)?.unwrap_or(default.optimizer.betas[1]),
                ],
                weight_decay: yaml
                    .number(&format!("{PART}.optimizer.params.weight_decay"))?
                    .unwrap_or(default.optimizer.weight_decay),
                ..default.optimizer
            },
            clip: ClipConfig {
                norm: yaml
                    .number(&format!("{clip}.max_norm"))?
                    .unwrap_or(default.clip.norm),
                start: yaml.whole(&format!("{clip}.start_iteration"))?.unwrap_or(0),
                end: yaml.whole(&format!("{clip}.end_iteration"))?,
            },
            ema: EmaConfig {
                decay: yaml.number("solver.ema.decay")?.unwrap_or(0.99),
                every: yaml.whole("solver.ema.update_interval")?.unwrap_or(1),
            },
            ..default
        };
        Ok(OfficialRecipe {
            train,
            drop_rate: yaml
                .number(&format!("{DATA}.drop_caption_rate"))?
                .unwrap_or(0.0),
        })
    }
}

/// The learning rate of an official scheduler: its class `target` with `params`, from
/// the rate `start`.
///
/// # Errors
///
/// As for [`OfficialRecipe::read`].
pub fn learning_rate(
    params: &Value,
    target: &str,
    start: f64,
) -> Result<LearningRateConfig, String> {
    let yaml = Document(params);
    let minimum = yaml.number("min_lr")?.unwrap_or(0.0);
    let course = if target.contains("ReduceLROnPlateauWithWarmup") {
        Course::Plateau {
            factor: yaml.number("factor")?.unwrap_or(0.1),
            patience: yaml.whole("patience")?.unwrap_or(10),
            threshold: yaml.number("threshold")?.unwrap_or(1e-4),
            mode: match yaml.word("threshold_mode") {
                Some("abs") => ThresholdMode::Absolute,
                _ => ThresholdMode::Relative,
            },
            cooldown: yaml.whole("cooldown")?.unwrap_or(0),
            minimum,
            window: 1,
        }
    } else if target.contains("CosineAnnealingLRWithWarmup") {
        Course::Cosine {
            total: yaml
                .whole("T_max")?
                .ok_or("the cosine schedule has no T_max")?,
            minimum,
        }
    } else {
        return Err(format!("the scheduler {target:?} is not known"));
    };
    Ok(LearningRateConfig {
        start,
        peak: yaml.number("warmup_lr")?.unwrap_or(start),
        warmup: yaml.whole("warmup")?.unwrap_or(0),
        course,
    })
}

struct Document<'a>(&'a Value);

impl<'a> Document<'a> {
    /// The entry that a dotted path names; numbers are places in lists. Python's tuples
    /// are lists with a tag.
    fn at(&self, path: &str) -> Option<&'a Value> {
        let untagged = |value: &'a Value| match value {
            Value::Tagged(tagged) => &tagged.value,
            other => other,
        };
        path.split('.').try_fold(self.0, |at, part| {
            let next = match part.parse::<usize>() {
                Ok(index) => untagged(at).get(index),
                Err(_) => untagged(at).get(part),
            };
            next.map(untagged)
        })
    }

    fn word(&self, path: &str) -> Option<&'a str> {
        self.at(path)?.as_str()
    }

    fn number(&self, path: &str) -> Result<Option<f64>, String> {
        let Some(value) = self.at(path).filter(|v| !v.is_null()) else {
            return Ok(None);
        };
        // YAML takes 3e-6 for a word, and so does Python's reader; the original's
        // configurations write 3.0e-6.
        let number = value
            .as_f64()
            .or_else(|| value.as_str().and_then(|s| s.parse().ok()));
        number
            .map(Some)
            .ok_or_else(|| format!("{path} is {value:?}, expected a number"))
    }

    fn whole(&self, path: &str) -> Result<Option<u64>, String> {
        let Some(value) = self.at(path).filter(|v| !v.is_null()) else {
            return Ok(None);
        };
        match (value.as_u64(), value.as_i64()) {
            (Some(n), _) => Ok(Some(n)),
            // The original writes −1 for "no such step".
            (None, Some(_)) => Ok(None),
            _ => Err(format!("{path} is {value:?}, expected a whole number")),
        }
    }

    fn learning_rate(&self, start: f64) -> Result<LearningRateConfig, String> {
        let scheduler = format!("{PART}.scheduler");
        let target = self.word(&format!("{scheduler}.target")).unwrap_or("");
        match self.at(&format!("{scheduler}.params")) {
            Some(params) => learning_rate(params, target, start),
            None => Ok(LearningRateConfig {
                start,
                peak: start,
                warmup: 0,
                course: Course::Constant,
            }),
        }
    }
}
