//! What can go wrong between a model's path and a picture's.

use super::options::OptionsError;
use super::record::RecordError;
use super::subject::ConditionError;
use crate::checkpoint::LoadError;
use crate::files::FileError;
use crate::picture::PictureError;
use crate::torch::device::DeviceError;
use crate::torch::graph::GraphError;

/// Why a model cannot be opened, or a picture not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device is not there.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Steps cannot be recorded.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The model cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The model cannot show what is asked for.
    #[error(transparent)]
    Condition(#[from] ConditionError),
    /// The model cannot be sampled so.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// A picture file cannot be read or written.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// Another file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A picture cannot be made again.
    #[error(transparent)]
    Record(#[from] RecordError),
}
