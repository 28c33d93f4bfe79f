//! The recipe of an official configuration: its `solver`, batch size and loss weights.

use super::diffusion::TrainConfig;
use super::engine::ema::EmaConfig;
use super::engine::learning_rate::{Course, LearningRateConfig, ThresholdMode};
use super::engine::optimizer::{GradientClipping, OptimizerConfig};
use super::engine::Recipe;
use crate::checkpoint::official::{Document, OptionError};
use crate::diffusion::ObjectiveConfig;
use crate::transformer::DropoutRates;

/// What an official configuration says of training.
#[derive(Clone, Debug, PartialEq)]
pub struct OfficialRecipe {
    pub train: TrainConfig,
    /// `drop_caption_rate` of the first training set.
    pub drop_rate: f64,
    /// Keys that are left aside, each with what there is instead.
    pub notes: Vec<String>,
}

const SOLVER: &str = "solver.optimizers_and_schedulers.0";
const LOSS: &str = "model.params.diffusion_config.params";
const NETWORK: &str = "model.params.diffusion_config.params.transformer_config.params";
const DATA: &str = "dataloader.train_datasets.0.params";

/// A norm that no gradient has: the original clips only where it is told to.
const UNCLIPPED: f64 = 1e30;

/// What has no counterpart and does not change what is learned, with what there is instead.
const ASIDE: [(&str, &str); 8] = [
    ("solver.save_epochs", "train.checkpoint.every"),
    ("solver.save_iterations", "train.checkpoint.every"),
    ("solver.validation_epochs", "train.validation.every"),
    ("solver.sample_iterations", "train.preview.every"),
    ("solver.print_specific_things", "train.log_every"),
    ("solver.debug", "nothing"),
    ("solver.ema.device", "the average is on the model's device"),
    ("dataloader.num_workers", "the threads of the process"),
];

impl OfficialRecipe {
    /// Reads the recipe of a configuration, for one process; what it does not say is as
    /// the original's code has it. The number of steps follows from the size of the data
    /// set there, and is given as [`TrainConfig::epochs`].
    ///
    /// # Errors
    ///
    /// Values that are not of the type or kind the original knows, or that have no
    /// counterpart, by their key.
    pub fn read(yaml: &Document) -> Result<Self, OptionError> {
        refuse(yaml)?;
        let default = TrainConfig::default();
        let batch_size = yaml.count("dataloader.batch_size")?.unwrap_or(4);
        let mask_weight = |i| {
            Ok(yaml
                .number(&format!("{LOSS}.mask_weight.{i}"))?
                .unwrap_or(1.0))
        };
        let beta = |i, usual| {
            let key = format!("{SOLVER}.optimizer.params.betas.{i}");
            Ok(yaml.number(&key)?.unwrap_or(usual))
        };
        let optimizer = |option, usual| {
            let key = format!("{SOLVER}.optimizer.params.{option}");
            Ok(yaml.number(&key)?.unwrap_or(usual))
        };
        let dropped = |option| Ok(yaml.number(&format!("{NETWORK}.{option}"))?.unwrap_or(0.0));
        let train = TrainConfig {
            epochs: yaml.count("solver.max_epochs")?,
            batch_size: usize::try_from(batch_size).unwrap_or(usize::MAX),
            accumulation: 1,
            recipe: Recipe::Official,
            activation_checkpointing: yaml
                .flag(&format!("{NETWORK}.checkpoint"))?
                .unwrap_or(false),
            dropout: DropoutRates {
                attention: dropped("attn_pdrop")?,
                residual: dropped("resid_pdrop")?,
            },
            objective: ObjectiveConfig {
                auxiliary_weight: yaml
                    .number(&format!("{LOSS}.auxiliary_loss_weight"))?
                    .unwrap_or(0.0),
                adaptive_auxiliary: yaml
                    .flag(&format!("{LOSS}.adaptive_auxiliary_loss"))?
                    .unwrap_or(false),
                mask_weight: [mask_weight(0)?, mask_weight(1)?],
            },
            learning_rate: rate_of(yaml, batch_size)?,
            optimizer: OptimizerConfig {
                // torch.optim.AdamW's own where nothing is said.
                betas: [beta(0, 0.9)?, beta(1, 0.999)?],
                weight_decay: optimizer("weight_decay", 0.01)?,
                epsilon: optimizer("eps", 1e-8)?,
                ..OptimizerConfig::default()
            },
            clip: clip(yaml)?,
            ema: match yaml.at("solver.ema") {
                Some(_) => EmaConfig {
                    decay: yaml.number("solver.ema.decay")?.unwrap_or(0.99),
                    every: yaml.count("solver.ema.update_interval")?.unwrap_or(1),
                },
                // The weights themselves.
                None => EmaConfig {
                    decay: 0.0,
                    every: 1,
                },
            },
            ..default
        };
        let drop_rate = yaml.number(&format!("{DATA}.drop_caption_rate"))?;
        Ok(OfficialRecipe {
            train,
            drop_rate: drop_rate.unwrap_or(0.0),
            notes: notes(yaml),
        })
    }
}

/// The rate of the configuration's one optimizer.
fn rate_of(yaml: &Document, batch_size: u64) -> Result<LearningRateConfig, OptionError> {
    let base = yaml.number("solver.base_lr")?.unwrap_or(1e-4);
    let scale = match yaml.word("solver.adjust_lr")?.unwrap_or("sqrt") {
        "none" => 1.0,
        "sqrt" => (batch_size as f64).sqrt(),
        "linear" => batch_size as f64,
        _ => return Err(yaml.refused("solver.adjust_lr", "none, sqrt or linear")),
    };
    let given = yaml.number(&format!("{SOLVER}.optimizer.params.lr"))?;
    let start = given.unwrap_or(base * scale);
    let mut rate = learning_rate(yaml, &format!("{SOLVER}.scheduler"), start)?;
    if let Course::Cosine { total, .. } = &mut rate.course {
        // The original sets T_max to the steps of the run, whatever is given.
        *total = 0;
    }
    Ok(rate)
}

fn clip(yaml: &Document) -> Result<GradientClipping, OptionError> {
    let clip = "solver.clip_grad_norm.params";
    if yaml.at("solver.clip_grad_norm").is_none() {
        return Ok(GradientClipping {
            norm: UNCLIPPED,
            start: 0,
            end: None,
        });
    }
    Ok(GradientClipping {
        norm: yaml.number(&format!("{clip}.max_norm"))?.unwrap_or(0.5),
        start: yaml.count(&format!("{clip}.start_iteration"))?.unwrap_or(0),
        end: yaml.count(&format!("{clip}.end_iteration"))?,
    })
}

/// Refuses what would train another model than the original's code does.
fn refuse(yaml: &Document) -> Result<(), OptionError> {
    if yaml.length("solver.optimizers_and_schedulers") > 1 {
        return Err(yaml.refused("solver.optimizers_and_schedulers", "one optimizer"));
    }
    for (key, known) in [
        (format!("{SOLVER}.optimizer"), "AdamW"),
        ("solver.clip_grad_norm".into(), "ClipGradNorm"),
        (
            format!("{DATA}.im_preprocessor_config"),
            "DalleTransformerPreprocessor",
        ),
    ] {
        if yaml.class(&key)?.is_some_and(|class| class != known) {
            return Err(yaml.refused(&format!("{key}.target"), known));
        }
    }
    let name = format!("{SOLVER}.name");
    if yaml.word(&name)?.is_some_and(|name| name != "none") {
        return Err(yaml.refused(&name, "none, which trains all parameters as one group"));
    }
    for (option, usual) in [
        ("start_epoch", 0),
        ("end_epoch", -1),
        ("start_iteration", 0),
        ("end_iteration", -1),
        ("optimizer.step_iteration", 1),
        ("scheduler.step_iteration", 1),
    ] {
        let key = format!("{SOLVER}.{option}");
        if yaml.at(&key).is_some() && yaml.integer(&key).ok().flatten() != Some(usual) {
            return Err(yaml.refused(&key, usual.to_string()));
        }
    }
    let key = format!("{SOLVER}.optimizer.params.amsgrad");
    if yaml.flag(&key)? == Some(true) {
        return Err(yaml.refused(&key, "false"));
    }
    Ok(())
}

fn notes(yaml: &Document) -> Vec<String> {
    let given = ASIDE.iter().filter(|(key, _)| yaml.at(key).is_some());
    let mut notes: Vec<String> = given
        .map(|(key, instead)| format!("{key} ({instead})"))
        .collect();
    let sets = "dataloader.train_datasets";
    if yaml.length(sets) > 1 {
        notes.push(format!(
            "{sets} beyond the first (data.train is what is trained on)"
        ));
    }
    notes
}

/// The learning rate of the scheduler at `key`, from the rate `start`.
///
/// # Errors
///
/// As for [`OfficialRecipe::read`].
pub fn learning_rate(
    yaml: &Document,
    key: &str,
    start: f64,
) -> Result<LearningRateConfig, OptionError> {
    let params = |option: &str| format!("{key}.params.{option}");
    let number = |option: &str, usual: f64| Ok(yaml.number(&params(option))?.unwrap_or(usual));
    let count = |option: &str, usual: u64| Ok(yaml.count(&params(option))?.unwrap_or(usual));
    if yaml.at(key).is_none() {
        return Ok(LearningRateConfig {
            start,
            peak: start,
            warmup: 0,
            course: Course::Constant,
        });
    }
    let minimum = number("min_lr", 0.0)?;
    let course = match yaml.class(key)? {
        Some("ReduceLROnPlateauWithWarmup") => Course::Plateau {
            factor: number("factor", 0.1)?,
            patience: count("patience", 10)?,
            threshold: number("threshold", 1e-4)?,
            mode: match yaml.word(&params("threshold_mode"))? {
                None | Some("rel") => ThresholdMode::Relative,
                Some("abs") => ThresholdMode::Absolute,
                Some(_) => return Err(yaml.refused(&params("threshold_mode"), "rel or abs")),
            },
            cooldown: count("cooldown", 0)?,
            minimum,
            window: 1,
        },
        Some("CosineAnnealingLRWithWarmup") => Course::Cosine {
            total: count("T_max", 0)?,
            minimum,
        },
        _ => {
            let known = "ReduceLROnPlateauWithWarmup or CosineAnnealingLRWithWarmup";
            return Err(yaml.refused(&format!("{key}.target"), known));
        }
    };
    let mode = params("mode");
    if yaml.word(&mode)?.is_some_and(|mode| mode != "min") {
        return Err(yaml.refused(&mode, "min"));
    }
    let warmup = count("warmup", 0)?;
    let key = params("warmup_lr");
    if warmup > 0 && yaml.at(&key).is_none() {
        return Err(yaml.refused(&key, "the rate at the end of the warm-up"));
    }
    Ok(LearningRateConfig {
        start,
        // Nothing leads to warmup_lr without a warm-up.
        peak: match warmup {
            0 => start,
            _ => number("warmup_lr", start)?,
        },
        warmup,
        course,
    })
}
