//! A whole run: steps, validations, checkpoints and log, until the end or a signal.

mod step;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::checkpoint::{self, Contents};
use super::folder::{saved_steps, RunFolder, SavedStep};
use super::log::{sheet_name, Interval, Log};
use super::settings::Settings;
use super::share::Share;
use super::state::RunState;
use super::task::Task;
use crate::data::Fingerprint;
use crate::ranks::Ranks;
use crate::train::TrainError;

/// What the run tells while it goes on.
#[derive(Clone, Debug)]
pub enum Event<'a, L> {
    /// A step was made; `line` where the log gets one.
    Step {
        step: u64,
        line: Option<&'a L>,
    },
    /// The value of the task's measure.
    Validated {
        step: u64,
        value: f64,
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

/// What a step was.
#[derive(Clone, Debug)]
pub struct Step<R> {
    pub report: R,
    /// The loss of all its samples, as it is minimised.
    pub loss: f64,
    /// L2 norm of the gradient before clipping.
    pub norm: f64,
    /// Its learning rate.
    pub rate: f64,
    /// Whether it was skipped because a number was not finite.
    pub skipped: bool,
}

/// A run in progress.
pub struct Run<T: Task> {
    pub settings: Settings,
    pub folder: RunFolder,
    /// The processes that train together.
    ranks: Ranks,
    share: Share,
    pub state: RunState,
    pub task: T,
    /// The steps since the last line of the log.
    interval: Interval<T::Sums>,
    /// Whether the checkpoint that the run goes on from lacks its validation.
    validation_due: bool,
    /// The step of the checkpoint that holds the state, if one does.
    saved: Option<u64>,
    /// Steps in a row that were skipped.
    skipped_in_a_row: u64,
    /// Whether a step of this process has shown that every parameter gets a gradient.
    gradients_checked: bool,
}

impl<T: Task> Run<T> {
    /// A run at its first step.
    ///
    /// # Errors
    ///
    /// Steps that the processes cannot divide.
    pub fn new(
        settings: Settings,
        folder: RunFolder,
        ranks: Ranks,
        state: RunState,
        task: T,
    ) -> Result<Self, TrainError> {
        Ok(Run {
            interval: Interval::new(state.samples),
            share: Share::of(&settings, ranks.count())?,
            settings,
            folder,
            ranks,
            state,
            task,
            validation_due: false,
            saved: None,
            skipped_in_a_row: 0,
            gradients_checked: false,
        })
    }

    /// The processes that train together.
    pub fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// Begins the steps of a line of the log at the state at hand.
    pub fn begin_interval(&mut self) {
        self.interval = Interval::new(self.state.samples);
    }

    /// Goes on from the checkpoint at `path`.
    ///
    /// # Errors
    ///
    /// A checkpoint that is damaged, or of another model.
    pub fn restore(&mut self, path: &Path) -> Result<(), TrainError> {
        let restored = checkpoint::restore(path, T::MODEL, &mut self.state)?;
        self.task.restore(&restored.model, &restored.rest)?;
        self.interval = match &restored.window {
            Some(window) => serde_json::from_str(window).map_err(|source| TrainError::Json {
                path: path.to_path_buf(),
                source,
            })?,
            None => Interval::new(self.state.samples),
        };
        let then = restored.manifest.data.as_ref();
        if let Some(then) = then.filter(|_| self.ranks.is_first()) {
            warn_of_change(path, then, self.task.data());
        }
        self.validation_due = restored.manifest.validation_due;
        let own = self.folder.path.join(path.file_name().unwrap_or_default());
        self.saved = own.exists().then_some(self.state.step);
        let batch = self.settings.effective_batch();
        if self.ranks.is_first() && !self.state.samples.is_multiple_of(batch) {
            log::warn!(
                "{}: was made with another effective batch than {batch}",
                path.display()
            );
        }
        Ok(())
    }

    /// Trains until the configured number of steps, or until `stop` is set: the step at
    /// hand is finished then and a checkpoint written. Every validation ends with one too.
    ///
    /// # Errors
    ///
    /// As for [`Run::step`] (a run that is given up for its numbers leaves a checkpoint
    /// too); data or checkpoint that cannot be read or written.
    pub fn train(
        &mut self,
        stop: &AtomicBool,
        observe: &mut dyn FnMut(Event<T::Line>),
    ) -> Result<Ended, TrainError> {
        let mut log = match self.ranks.is_first() {
            true => Log::open(&self.folder.path, self.state.step)?,
            false => Log::of_another(),
        };
        self.ranks.begun()?;
        let ended = self.train_with(&mut log, stop, observe);
        log.finish();
        let ended = ended?;
        if ended == Ended::Stopped {
            self.ranks.check_store()?;
        }
        Ok(ended)
    }

    fn train_with(
        &mut self,
        log: &mut Log,
        stop: &AtomicBool,
        observe: &mut dyn FnMut(Event<T::Line>),
    ) -> Result<Ended, TrainError> {
        self.make_up(log, stop, observe)?;
        while self.state.step < self.settings.steps {
            let made = match self.step(stop) {
                Err(error @ TrainError::NotFinite { .. }) => {
                    // The weights are those of the last good step.
                    let saved = self.save(None, false)?;
                    observe(Event::Saved(&saved));
                    return Err(error);
                }
                made => made?,
            };
            let Some(made) = made else {
                if self.saved != Some(self.state.step) && self.state.step > 0 {
                    let saved = self.save(None, false)?;
                    observe(Event::Saved(&saved));
                }
                return Ok(Ended::Stopped);
            };
            let step = self.state.step;
            self.interval.steps += 1;
            if !made.skipped {
                let sums = &mut self.interval.sums;
                self.task.add(sums, &made.report, made.norm);
            }
            let mut line = None;
            if step.is_multiple_of(self.settings.log_every) {
                let speed = self.interval.images_per_second(self.state.samples);
                let sums = &self.interval.sums;
                let new = self.task.line(sums, &self.state, made.rate, speed);
                log.line(step, &new)?;
                line = Some(new);
            }
            observe(Event::Step {
                step,
                line: line.as_ref(),
            });
            if line.is_some() {
                self.begin_interval();
            }

            let last = step == self.settings.steps;
            let validates = self.settings.due(step, self.settings.validation_every);
            let mut value = None;
            let mut stopping = self.is_asked(stop)?;
            if validates && !stopping {
                value = self.validate(log, stop, observe)?;
                stopping = self.is_asked(stop)?;
            }
            let unfinished = validates && stopping && value.is_none();
            if self.settings.due(step, self.settings.checkpoint.every)
                || value.is_some()
                || stopping
            {
                let saved = self.save(value, unfinished)?;
                observe(Event::Saved(&saved));
                if !stopping && self.settings.previews(step) {
                    self.preview(&saved, log, stop)?;
                }
            }
            if line.is_some() {
                // Validations and checkpoints do not count against the speed.
                self.begin_interval();
            }
            if stopping && (!last || unfinished) {
                return Ok(Ended::Stopped);
            }
        }
        Ok(Ended::Finished)
    }

    /// Whether any process was asked to stop.
    fn is_asked(&self, stop: &AtomicBool) -> Result<bool, TrainError> {
        Ok(self.ranks.any_stops(stop)?)
    }

    /// Whether this is so in the first process, which alone writes.
    fn is_so_in_first(&self, here: bool) -> Result<bool, TrainError> {
        Ok(self.ranks.of_first(f64::from(here))? > 0.0)
    }

    /// Makes up for what follows the checkpoint that the run goes on from, where a stop or a
    /// kill came in between: the task's publication, the validation, the sample sheet.
    fn make_up(
        &mut self,
        log: &mut Log,
        stop: &AtomicBool,
        observe: &mut dyn FnMut(Event<T::Line>),
    ) -> Result<(), TrainError> {
        let step = self.state.step;
        let here = saved_steps(&self.folder.path)?;
        let here = self.saved == Some(step) && here.iter().any(|saved| saved.step == step);
        if !self.is_so_in_first(here)? {
            return Ok(());
        }
        let saved = self.folder.at_step(step);
        if self.ranks.is_first() {
            self.task.publish(&self.folder.path, &saved.path)?;
        }
        if self.validation_due {
            if let Some(value) = self.validate(log, stop, observe)? {
                if self.ranks.is_first() {
                    self.folder.add_validation(&saved, value)?;
                }
                self.validation_due = false;
            }
        }
        let sheet = self.folder.path.join(sheet_name(step));
        if self.settings.previews(step) && self.is_so_in_first(!sheet.exists())? {
            self.preview(&saved, log, stop)?;
        }
        Ok(())
    }

    /// The measure at hand, logged; a value that is no number chooses nothing.
    fn validate(
        &mut self,
        log: &mut Log,
        stop: &AtomicBool,
        observe: &mut dyn FnMut(Event<T::Line>),
    ) -> Result<Option<f64>, TrainError> {
        let step = self.state.step;
        let value = self.task.validate(&self.state, &self.ranks, stop)?;
        let Some(value) = value else {
            return Ok(None);
        };
        log.validation(step, &T::MEASURE, value);
        observe(Event::Validated { step, value });
        Ok(value.is_finite().then_some(value))
    }

    fn preview(
        &self,
        saved: &SavedStep,
        log: &mut Log,
        stop: &AtomicBool,
    ) -> Result<(), TrainError> {
        // The first process may still be writing the checkpoint.
        self.ranks.any(false)?;
        let picture = self.task.preview(&saved.path, &self.ranks, stop)?;
        if let Some(picture) = picture.filter(|_| self.ranks.is_first()) {
            log.sheet(saved.step, &picture);
        }
        Ok(())
    }

    /// Writes the checkpoint of the state at hand into the run's folder; of several processes
    /// the first does, and the others wait for it, as they may end then.
    ///
    /// # Errors
    ///
    /// What could not be written; checkpoints already there are untouched then.
    pub fn save(
        &mut self,
        validation: Option<f64>,
        validation_due: bool,
    ) -> Result<SavedStep, TrainError> {
        let weights = self.state.parameters.tensors.values();
        self.ranks.check_same(weights, self.state.step)?;
        if !self.ranks.is_first() {
            self.ranks.wait_for_all()?;
            self.saved = Some(self.state.step);
            return Ok(self.folder.at_step(self.state.step));
        }
        let (state, task, interval) = (&self.state, &self.task, &self.interval);
        let saved = self
            .folder
            .save(state.step, &self.settings.checkpoint, |path| {
                task.write_model(&path.join(T::MODEL), state)?;
                let contents = Contents {
                    tensors: task.tensors(),
                    window: interval.to_json()?,
                    validation: validation.map(|value| (T::MEASURE.name, value)),
                    validation_due,
                    data: task.data(),
                };
                checkpoint::fill(path, T::MODEL, state, contents)
            })?;
        self.saved = Some(saved.step);
        self.task.publish(&self.folder.path, &saved.path)?;
        self.ranks.wait_for_all()?;
        Ok(saved)
    }
}

/// Says so if a run that goes on from `path` is trained on other data now than `then`.
fn warn_of_change(path: &Path, then: &Fingerprint, now: &Fingerprint) {
    if then == now {
        return;
    }
    let counts = match then.items == now.items {
        true => format!(
            "{} pictures, others than then or in another order",
            now.items
        ),
        false => format!("{} pictures then, {} now", then.items, now.items),
    };
    log::warn!(
        "{}: the training data are not those of this checkpoint ({counts}): order and epochs \
         differ from those of a run that nothing interrupts",
        path.display()
    );
}
