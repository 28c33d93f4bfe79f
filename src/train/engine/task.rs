//! What the engine asks of a task.

use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde::de::DeserializeOwned;
use serde::Serialize;
use tch::Tensor;

use super::state::RunState;
use crate::checkpoint::{StateDict, WriteError};
use crate::data::Fingerprint;
use crate::picture::Picture;
use crate::ranks::Ranks;
use crate::train::TrainError;

/// Whether a larger or a smaller value is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    Lower,
    Higher,
}

/// What a validation measures: the best checkpoint is chosen by it.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Its name in manifests.
    pub name: &'static str,
    /// In the lines of the log.
    pub log: &'static str,
    /// In TensorBoard.
    pub tag: &'static str,
    pub better: Better,
}

/// A line of the log.
pub trait Line: Serialize {
    /// Its numbers for TensorBoard, by tag.
    fn scalars(&self) -> Vec<(&str, f64)>;
}

/// What is trained. Samples are numbered through the run: a step's gradients and reports are
/// functions of their numbers, so that a run can be continued.
pub trait Task {
    /// What the backward pass of a part of a step leaves.
    type Part;
    /// What all parts of a step say together.
    type Report;
    /// Sums over the steps since the last line of the log. A checkpoint keeps them, so that
    /// the next line is the same whether or not the run was interrupted.
    type Sums: Default + Serialize + DeserializeOwned;
    type Line: Line;

    /// The model's file in a checkpoint folder.
    const MODEL: &'static str;
    const MEASURE: Measure;

    /// What is trained on.
    fn data(&self) -> &Fingerprint;

    /// Called before each step with its samples, those of all processes. A break ends the run
    /// before the step, in all of them: it was asked to stop, and nothing has changed.
    ///
    /// # Errors
    ///
    /// Data that cannot be read, a process that is gone.
    fn begin(
        &mut self,
        state: &RunState,
        samples: Range<u64>,
        ranks: &Ranks,
        stop: &AtomicBool,
    ) -> Result<ControlFlow<()>, TrainError>;

    /// Adds the gradients of these samples, one of `parts` equal parts of this process's
    /// samples of the step, to those of `state.parameters`.
    ///
    /// # Errors
    ///
    /// Data that cannot be read or do not fit the model.
    fn backward(
        &mut self,
        state: &RunState,
        samples: Range<u64>,
        parts: usize,
    ) -> Result<Self::Part, TrainError>;

    /// Prepares the part that comes next, while the device computes. Problems show when the
    /// part's turn comes.
    fn look_ahead(&mut self, _samples: Range<u64>) {}

    /// What the parts of a step say together, those of all processes: equal everywhere.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    fn report(&mut self, parts: Vec<Self::Part>, ranks: &Ranks)
        -> Result<Self::Report, TrainError>;

    /// The loss of a step, as it is minimised.
    fn loss(report: &Self::Report) -> f64;

    /// What else can be said of a step that is given up, after the numbers of its samples.
    fn describe(&self, _report: &Self::Report) -> String {
        String::new()
    }

    /// Learns what is not learnt by gradients from a step with finite ones, before the
    /// weights change: the same in all processes.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    fn learn(
        &mut self,
        state: &RunState,
        report: &mut Self::Report,
        ranks: &Ranks,
    ) -> Result<(), TrainError>;

    /// Adds a step that was not skipped, whose gradient had the L2 norm `norm`.
    fn add(&self, sums: &mut Self::Sums, report: &Self::Report, norm: f64);

    /// The line of the log at `state`, whose last step had the learning rate `rate`.
    fn line(
        &self,
        sums: &Self::Sums,
        state: &RunState,
        rate: f64,
        images_per_second: f64,
    ) -> Self::Line;

    /// The measure of the weights at hand, which all processes compute together; none without
    /// validation samples, or when any process was asked to stop.
    ///
    /// # Errors
    ///
    /// Samples that do not fit the model, a process that is gone.
    fn validate(
        &self,
        state: &RunState,
        ranks: &Ranks,
        stop: &AtomicBool,
    ) -> Result<Option<f64>, TrainError>;

    /// A sheet of samples by the model in the checkpoint folder `saved`, whose pictures all
    /// processes make together; none when there is nothing to show, or when any of them was
    /// asked to stop.
    ///
    /// # Errors
    ///
    /// A checkpoint that cannot be read, a process that is gone.
    fn preview(
        &self,
        _saved: &Path,
        _ranks: &Ranks,
        _stop: &AtomicBool,
    ) -> Result<Option<Picture>, TrainError> {
        Ok(None)
    }

    /// Writes the model's file: what other commands read.
    ///
    /// # Errors
    ///
    /// What could not be written.
    fn write_model(&self, path: &Path, state: &RunState) -> Result<(), WriteError>;

    /// Called when the checkpoint folder `saved` of the run in `folder` is whole, and when the
    /// run goes on from it.
    ///
    /// # Errors
    ///
    /// What could not be written.
    fn publish(&self, _folder: &Path, _saved: &Path) -> Result<(), TrainError> {
        Ok(())
    }

    /// What the task itself changes and the model's file does not hold, by name.
    fn tensors(&self) -> Vec<(String, Tensor)>;

    /// Puts back what a checkpoint holds: the tensors of the model's file, and those of
    /// [`tensors`](Self::tensors).
    ///
    /// # Errors
    ///
    /// Tensors that are missing, or of another model.
    fn restore(&mut self, model: &StateDict, rest: &StateDict) -> Result<(), TrainError>;
}
