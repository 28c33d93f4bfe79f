//! A codec experiment's parts put together to a run.

use std::fmt;
use std::path::{Path, PathBuf};

use tch::Device;

use super::config::{CodecTrainConfig, Trained};
use super::data::PictureConfig;
use super::old_run;
use super::start::from_file;
use super::task::CodecTask;
use super::weights::CodecWeights;
use super::MODEL;
use crate::checkpoint::{CodecFile, OpenOptions};
use crate::codec::CodecConfig;
use crate::ranks::Ranks;
use crate::train::engine::log::JSON_LINES;
use crate::train::engine::reduction::Reduction;
use crate::train::engine::resume::Resume;
use crate::train::engine::set_aside::SetAside;
use crate::train::engine::{Run, RunFolder, RunState, Share, Task};
use crate::train::TrainError;

/// A run that is ready to train.
pub struct CodecTraining {
    pub run: Run<CodecTask>,
    /// What it goes on from: a checkpoint, or the folder of a run of an earlier version.
    pub resumed: Option<PathBuf>,
    /// What was newer than it.
    pub set_aside: Option<SetAside>,
    pub plan: CodecPlan,
}

/// What a run will do.
pub struct CodecPlan {
    trained: u64,
    entries: i64,
    width: i64,
    pictures: u64,
    validation: usize,
    steps: u64,
    batch: u64,
    reduction: Reduction,
}

impl fmt::Display for CodecPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "codec: {} trained weights, {} entries of width {}, {} pictures, {} for validation, \
             {} steps of {}{}",
            self.trained,
            self.entries,
            self.width,
            self.pictures,
            self.validation,
            self.steps,
            self.batch,
            match self.reduction.processes {
                1 => String::new(),
                n => format!(
                    " in {n} processes, {} each; {}",
                    self.batch / n as u64,
                    self.reduction
                ),
            }
        )
    }
}

/// Makes a run that trains a codec of this `shape` on the pictures of `data`: from drawn
/// weights or from the codec in the file `init_from`, or on from where it was.
///
/// # Errors
///
/// Settings that contradict each other; what is missing, cannot be read, or is of another
/// codec.
pub fn open(
    shape: &CodecConfig,
    data: &PictureConfig,
    config: &CodecTrainConfig,
    init_from: Option<&Path>,
    resume: &Resume,
    device: Device,
    ranks: Ranks,
) -> Result<CodecTraining, TrainError> {
    let path = &config.folder;
    ranks.use_device(device)?;
    Share::of(&config.settings(false), ranks.count())?;
    let folder = match ranks.is_first() {
        true => RunFolder::open(path, CodecTask::MEASURE)?,
        false => RunFolder::of_another(path, CodecTask::MEASURE),
    };
    let resumed = ranks.path_of_first(|| {
        let resumed = resume.checkpoint(path, MODEL)?;
        let old = resumed.is_none() && old_run::is_in(path);
        match (resume, &resumed) {
            (Resume::No, _) if old => Err(TrainError::Exists { path: path.clone() }),
            // A run that was killed before its first checkpoint begins anew.
            (Resume::Auto, None) if !old && !path.join(JSON_LINES).exists() => {
                Err(TrainError::NoRun { path: path.clone() })
            }
            _ => Ok(resumed),
        }
    })?;
    let old = resumed.is_none() && old_run::is_in(path);
    let old = ranks.of_first(f64::from(old))? > 0.0;
    let anew = resumed.is_none() && !old;
    let start = config.codebook.start;
    if anew && init_from.is_none() && config.trained == Trained::Decoder {
        return Err(TrainError::Value {
            key: "train.trained",
            found: "decoder".into(),
            expected: "a codec that it belongs to: name it with --init-from".into(),
        });
    }
    if anew && init_from.is_none() && start >= config.steps {
        return Err(TrainError::Value {
            key: "train.codebook.start",
            found: start.to_string(),
            expected: format!(
                "below train.steps ({}): the codebook would never start",
                config.steps
            ),
        });
    }
    let data = data.open(shape, config.seed, config.validation_pictures)?;
    tch::manual_seed(config.seed as i64);
    let weights = match init_from.filter(|_| anew) {
        None => CodecWeights::drawn(shape, config, device),
        Some(file) => {
            let file = CodecFile::open(file, &OpenOptions::default())?;
            from_file(&file, shape, config, device)?
        }
    };
    let trained = weights.trained();
    let plan = CodecPlan {
        trained: trained.numel(),
        entries: shape.codebook,
        width: shape.embedding_width,
        pictures: data.train.len(),
        validation: data.validation.len(),
        steps: config.steps,
        batch: config.effective_batch(),
        reduction: Reduction {
            values: trained.numel(),
            processes: ranks.count(),
            format: config.gradients,
        },
    };
    let state = RunState::new(&config.rules(), trained, |_| None);
    let settings = config.settings(!data.validation.is_empty());
    let task = CodecTask::new(config, weights, data);
    let is_first = ranks.is_first();
    let mut run = Run::new(settings, folder, ranks, state, task)?;
    let mut set_aside = None;
    if let Some(path) = &resumed {
        run.restore(path)?;
        if is_first {
            set_aside = run.folder.set_aside_after(run.state.step)?;
        }
    } else if old {
        let effective_batch = run.settings.effective_batch();
        let weights = &mut run.task.weights;
        old_run::restore(path, &mut run.state, weights, effective_batch)?;
        run.begin_interval();
    }
    Ok(CodecTraining {
        run,
        resumed: resumed.or_else(|| old.then(|| path.clone())),
        set_aside,
        plan,
    })
}
