//! An experiment's parts put together to a run: model, weights, data and plan.

use std::path::{Path, PathBuf};

use tch::Device;

use super::config::TrainConfig;
use super::data::{DataConfig, DataSource};
use super::line::Speed;
use super::model::TextTraining;
use super::plan::{peak_flops, DiffusionPlan};
use super::start::{InitialModel, WeightsConfig};
use super::task::{DiffusionTask, RunData};
use super::MODEL;
use crate::data::Split;
use crate::model::ModelConfig;
use crate::ranks::Ranks;
use crate::train::engine::resume::Resume;
use crate::train::engine::set_aside::SetAside;
use crate::train::engine::{Run, RunFolder, Share, Task};
use crate::train::TrainError;

/// Everything that a run needs, opened and checked; the weights are not read yet.
pub struct Session {
    config: TrainConfig,
    device: Device,
    start: InitialModel,
    data: RunData,
    folder: RunFolder,
    ranks: Ranks,
    share: Share,
    /// The checkpoint that it goes on from.
    resumed: Option<PathBuf>,
    /// Trained values, and values in frozen parts of the condition.
    sizes: (u64, u64),
}

/// A run that is ready to train.
pub struct DiffusionTraining {
    pub run: Run<DiffusionTask>,
    /// The checkpoint that it goes on from.
    pub resumed: Option<PathBuf>,
    /// What was newer than it.
    pub set_aside: Option<SetAside>,
}

/// The files that a run starts from: those of `weights` for `model`, or the checkpoint that it
/// goes on from, which holds the frozen parts too.
///
/// # Errors
///
/// As for [`InitialModel::open`].
pub fn open_start(
    model: Option<&ModelConfig>,
    weights: &WeightsConfig,
    text: TextTraining,
    resumed: Option<&Path>,
) -> Result<InitialModel, TrainError> {
    let Some(path) = resumed else {
        return InitialModel::open(weights, model, text);
    };
    let weights = WeightsConfig {
        init_from: Some(path.join(MODEL)),
        ..WeightsConfig::default()
    };
    InitialModel::open(&weights, model, text)
}

impl Session {
    /// Opens what a run with the settings `config` needs: the shape `model` (that of
    /// `weights.init_from` if `None`), its files and data.
    ///
    /// # Errors
    ///
    /// What is missing, cannot be read, or does not fit the rest.
    pub fn open(
        model: Option<&ModelConfig>,
        weights: &WeightsConfig,
        data: &DataConfig,
        config: &TrainConfig,
        resume: &Resume,
        device: Device,
        ranks: Ranks,
    ) -> Result<Self, TrainError> {
        ranks.use_device(device)?;
        let share = Share::of(&config.settings(), ranks.count())?;
        let folder = match ranks.is_first() {
            true => RunFolder::open(&config.folder, DiffusionTask::MEASURE)?,
            false => RunFolder::of_another(&config.folder, DiffusionTask::MEASURE),
        };
        let resumed = ranks.path_of_first(|| resume.checkpoint(&config.folder, MODEL))?;
        let start = open_start(model, weights, config.text, resumed.as_deref())?;
        let model = start.model();
        config.preview.check(&model.denoiser.condition)?;
        // Also a check of the codec, which every checkpoint gets a copy of.
        let codec = start.codec(device)?;
        let tokenizer = start.checkpoint.tokenizer()?;
        let source = DataSource::new(data, config.seed, model, tokenizer, codec)?;
        let train = source.open(&data.train, Split::Train)?;
        let mut config = config.clone();
        let settled = config.settle_steps(train.len());
        settled.map_err(|e| e.within("train"))?;
        let validation = match &data.validation {
            Some(path) => Some(source.open(path, Split::Val)?),
            None => None,
        };
        let fixed = || {
            let samples = validation.as_ref().unwrap_or(&train);
            samples.fixed(config.validation.samples)
        };
        let validates = config.validation.every > 0;
        let data = RunData {
            validation: validates.then(fixed).transpose()?,
            train,
        };
        drop((source, validation)); // and with it the codec, if it is not needed any more
        let sizes = start.sizes(&config)?;
        Ok(Session {
            config,
            device,
            start,
            data,
            folder,
            ranks,
            share,
            resumed,
            sizes,
        })
    }

    /// The processes that train together.
    pub fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// The optimizer steps of the whole run.
    pub fn steps(&self) -> u64 {
        self.config.steps
    }

    /// What the run will do and need.
    pub fn plan(&self) -> DiffusionPlan<'_> {
        let (trained, frozen) = self.sizes;
        DiffusionPlan {
            config: &self.config,
            model: self.start.model(),
            device: self.device,
            trained,
            frozen,
            samples: Some(self.data.train.len()),
            data: self.data.train.describe(),
            processes: self.ranks.count(),
            share: self.share,
        }
    }

    /// Reads the weights, and goes on from the checkpoint; what is newer is set aside.
    ///
    /// # Errors
    ///
    /// Too little memory, before any of it is taken; weights that are missing, misshapen or
    /// not finite; a damaged checkpoint.
    pub fn load(self) -> Result<DiffusionTraining, TrainError> {
        let plan = self.plan();
        plan.check_memory()?;
        let flops_per_image = plan.flops_per_image();
        let is_first = self.ranks.is_first();
        let Session {
            config,
            device,
            start,
            data,
            folder,
            ranks,
            resumed,
            ..
        } = self;
        let (state, frozen) = start.load(&config, device)?;
        let speed = Speed {
            flops_per_image,
            peak: peak_flops(device, config.precision),
        };
        let task = DiffusionTask::new(&config, start.model(), frozen, data, speed, device);
        let mut run = Run::new(config.settings(), folder, ranks, state, task)?;
        let mut set_aside = None;
        if let Some(path) = &resumed {
            run.restore(path)?;
            if is_first {
                set_aside = run.folder.set_aside_after(run.state.step)?;
            }
        }
        Ok(DiffusionTraining {
            run,
            resumed,
            set_aside,
        })
    }
}
