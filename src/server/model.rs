//! The model that is served, as the clients' side knows it: its shape and queue at once,
//! the rest when its weights are read.

use std::sync::{Arc, OnceLock};

use tch::{Kind, Tensor};
use tokio::sync::watch;

use super::error::ApiError;
use super::history::History;
use super::jobs::Queue;
use super::settings::{ServedModel, Settings};
use crate::model::ModelConfig;
use crate::pipeline::{PictureOptions, Pipeline};
use crate::torch::device::{DeviceChoice, Precision};
use crate::torch::host::values;

/// Whether the model can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Loading,
    Ready,
    /// Its thread ended.
    Ended,
}

/// The model that is served.
pub struct Model {
    pub name: String,
    pub config: ModelConfig,
    pub device: String,
    pub precision: Precision,
    /// Pictures made together.
    pub batch: usize,
    pub queue: Queue,
    pub history: History,
    pub phase: watch::Sender<Phase>,
    /// SHA-256 of the weights, once they are read.
    pub fingerprint: OnceLock<String>,
    /// Mean colour of each code, once it is known.
    pub palette: OnceLock<Vec<[u8; 3]>>,
}

impl Model {
    pub fn new(served: &ServedModel, settings: &Settings) -> Self {
        Model {
            name: served.name.clone(),
            config: served.checkpoint.config.clone(),
            device: DeviceChoice(served.device).to_string(),
            precision: served.precision,
            batch: match served.device {
                tch::Device::Cpu => 1,
                _ => settings.batch_size.max(1),
            },
            queue: Queue::default(),
            history: History::new(settings.out.clone()),
            phase: watch::Sender::new(Phase::Loading),
            fingerprint: OnceLock::new(),
            palette: OnceLock::new(),
        }
    }

    /// What pictures are made with where nothing else is asked for.
    pub fn usual(&self) -> PictureOptions {
        PictureOptions::usual(&self.config).batch_size(self.batch)
    }

    /// Width and height of its pictures.
    pub fn size(&self) -> [u32; 2] {
        let [height, width] = self.config.picture_size().map(|side| side as u32);
        [width, height]
    }

    pub fn is_ready(&self) -> bool {
        *self.phase.borrow() == Phase::Ready
    }
}

/// What is served, if it is a model.
///
/// # Errors
///
/// A server of runs alone.
pub fn needed(model: &Option<Arc<Model>>) -> Result<&Arc<Model>, ApiError> {
    let message =
        "this server shows training runs and serves no model (start it with --checkpoint)";
    model.as_ref().ok_or_else(|| ApiError::unavailable(message))
}

/// Codes that are decoded together.
const TOGETHER: i64 = 64;

/// The mean colour of what each code alone becomes: three by three cells of it, one where
/// there are very many.
pub fn palette(pipeline: &Pipeline) -> Vec<[u8; 3]> {
    let _no_grad = tch::no_grad_guard();
    let denoiser = &pipeline.config().denoiser;
    let side = if 9 * denoiser.codes <= 16 * denoiser.tokens() {
        3
    } else {
        1
    };
    let codes: Vec<i64> = (0..denoiser.codes).collect();
    let mean = |codes: &[i64]| {
        let tokens = Tensor::from_slice(codes)
            .to_device(pipeline.device())
            .unsqueeze(1)
            .expand([codes.len() as i64, side * side], false)
            .contiguous();
        let decoded = pipeline.codec().decode(&tokens, [side, side]); // [B, 3, f·side, f·side]
        let factor = pipeline.config().codec.factor();
        let at = factor * (side / 2);
        let middle = decoded.narrow(2, at, factor).narrow(3, at, factor);
        let mean = middle.mean_dim([2i64, 3].as_slice(), false, Kind::Float); // [B, 3]
        values::<f32>(&mean)
    };
    codes
        .chunks(TOGETHER as usize)
        .flat_map(mean)
        .collect::<Vec<f32>>()
        .chunks_exact(3)
        .map(|rgb| [rgb[0], rgb[1], rgb[2]].map(|c| c.round().clamp(0.0, 255.0) as u8))
        .collect()
}
