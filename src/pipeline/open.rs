//! From a path to a pipeline, with everything settled that a run depends on.

use std::path::Path;

use super::error::Error;
use super::load::Pipeline;
use super::sampling::useful_threads;
use crate::checkpoint::{Checkpoint, OpenOptions};
use crate::torch::device::{DeviceChoice, Precision};
use crate::torch::runtime;

/// How a model is opened where not as usual.
#[derive(Clone, Debug, Default)]
pub struct PipelineBuilder {
    device: Option<DeviceChoice>,
    precision: Option<Precision>,
    threads: Option<u16>,
    parts: OpenOptions,
}

impl PipelineBuilder {
    /// What computes; CUDA if there is one, else the CPU.
    pub fn device(mut self, device: DeviceChoice) -> Self {
        self.device = Some(device);
        self
    }

    /// Number format of the denoiser; [`Precision::native`] if not given.
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = Some(precision);
        self
    }

    /// Threads for CPU work, of this whole process; if not given, as many of
    /// libtorch's own choice as are of use to the model ([`useful_threads`]).
    pub fn threads(mut self, threads: u16) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Where the things are that the checkpoint cannot hold.
    pub fn parts(mut self, parts: OpenOptions) -> Self {
        self.parts = parts;
        self
    }

    /// Opens the model at `path`: a file (of a split one, its first part or its stem), a
    /// diffusers folder, or a name on the Hugging Face Hub.
    ///
    /// # Errors
    ///
    /// A device that is not there, and all that [`Checkpoint::open`] and
    /// [`Pipeline::load`] refuse.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Pipeline, Error> {
        runtime::start();
        let device = self.device.unwrap_or_else(DeviceChoice::best).available()?;
        let checkpoint = Checkpoint::open(path.as_ref(), &self.parts)?;
        let threads = self.threads.map(i32::from);
        tch::set_num_threads(threads.unwrap_or_else(|| useful_threads(&checkpoint.config)));
        let precision = self.precision.unwrap_or_else(|| Precision::native(device));
        Ok(Pipeline::load(&checkpoint, device, precision)?)
    }
}

impl Pipeline {
    /// Opens the model at `path` as usual: on CUDA if there is one, in the number format
    /// that the device computes in natively, with as many threads as are of use.
    ///
    /// # Errors
    ///
    /// As [`PipelineBuilder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::builder().open(path)
    }

    /// For a model on another device, in another number format, or whose checkpoint
    /// lacks parts.
    pub fn builder() -> PipelineBuilder {
        PipelineBuilder::default()
    }
}
