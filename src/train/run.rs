//! A whole run: steps, validations, checkpoints and log, until the end or a signal.

use std::sync::atomic::{AtomicBool, Ordering};

use super::checkpoint::{save, SavedStep};
use super::config::TrainConfig;
use super::error::TrainError;
use super::log::{Log, LogLine, Speed, Window};
use super::preview::preview;
use super::trainer::Trainer;
use super::validation::Bound;
use crate::checkpoint::StateDict;
use crate::data::{Batch, TokenLoader};
use crate::model::ModelConfig;

/// The data of a run.
pub struct RunData {
    pub train: TokenLoader,
    /// What the bound is measured on, where the run has validations.
    pub validation: Option<Batch>,
}

/// What the run tells while it goes on.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A step was made; `line` where the log gets one.
    Step {
        step: u64,
        line: Option<&'a LogLine>,
    },
    Validated {
        step: u64,
        bound: Bound,
    },
    Saved(&'a SavedStep),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All its steps are made.
    Finished,
    /// It was asked to stop; the last checkpoint holds everything.
    Stopped,
}

/// A run: what is trained, on what, and where it goes.
pub struct Run<'a> {
    pub config: &'a TrainConfig,
    pub model: &'a ModelConfig,
    /// Tensors that model files hold besides the trained ones.
    pub frozen: &'a StateDict,
    /// Notice of the model that it started from.
    pub notice: Option<&'a str>,
    pub data: &'a RunData,
    pub speed: Speed,
}

impl Run<'_> {
    /// Trains until the configured number of steps, or until `stop` is set: the step at
    /// hand is finished then and a checkpoint written. Every validation ends with one too.
    ///
    /// # Errors
    ///
    /// As for [`Trainer::step`] (a run that is given up for its numbers leaves a checkpoint
    /// too); data, log or checkpoint that cannot be read or written.
    pub fn train(
        &self,
        trainer: &mut Trainer,
        stop: &AtomicBool,
        observe: &mut dyn FnMut(Event),
    ) -> Result<Ended, TrainError> {
        let config = self.config;
        let mut log = Log::open(&config.folder, trainer.state.step)?;
        let mut window = Window::new(trainer.state.samples);
        let mut saves = trainer.state.step / config.checkpoint.every;
        while trainer.state.step < config.steps {
            let report = match trainer.step(&self.data.train) {
                Err(error @ TrainError::NotFinite { .. }) => {
                    // The weights are those of the last good step.
                    let saved = self.save(trainer, None)?;
                    observe(Event::Saved(&saved));
                    return Err(error);
                }
                report => report?,
            };
            let step = trainer.state.step;
            window.add(&report, self.model.denoiser.timesteps as usize);
            let mut line = None;
            if step.is_multiple_of(config.log_every) {
                let new = window.line(&trainer.state, report.rate, &self.speed);
                log.line(&new).map_err(TrainError::io(&config.folder))?;
                line = Some(new);
            }
            observe(Event::Step {
                step,
                line: line.as_ref(),
            });

            let mut stopping = stop.load(Ordering::Relaxed);
            let last = step == config.steps;
            let due = |every: u64| every > 0 && (last || step.is_multiple_of(every));
            let mut validation = None::<Bound>;
            let validates = due(config.validation.every) && !stopping;
            if let Some(samples) = self.data.validation.as_ref().filter(|_| validates) {
                let bound = trainer.validate(samples)?;
                log.validation(step, &bound)
                    .map_err(TrainError::io(&config.folder))?;
                observe(Event::Validated { step, bound });
                // A bound that is no number chooses nothing.
                validation = bound.nats_per_token.is_finite().then_some(bound);
                stopping = stop.load(Ordering::Relaxed);
            }
            if due(config.checkpoint.every) || validation.is_some() || stopping {
                let saved = self.save(trainer, validation)?;
                observe(Event::Saved(&saved));
                saves += 1;
                let every = config.preview.every;
                if !stopping && every > 0 && (last || saves.is_multiple_of(every)) {
                    if let Some(picture) = preview(&saved.path, &config.preview, trainer.device())?
                    {
                        log.preview(step, &picture)?;
                    }
                }
            }
            if line.is_some() {
                // Validations and checkpoints do not count against the speed.
                window = Window::new(trainer.state.samples);
            }
            if stopping && !last {
                return Ok(Ended::Stopped);
            }
        }
        Ok(Ended::Finished)
    }

    fn save(&self, trainer: &Trainer, validation: Option<Bound>) -> Result<SavedStep, TrainError> {
        save(
            &self.config.folder,
            &self.config.checkpoint,
            self.model,
            &trainer.state,
            self.frozen,
            self.notice,
            validation,
        )
    }
}
