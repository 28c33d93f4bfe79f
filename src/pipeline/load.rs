//! A whole model ready for inference: its parts read from a checkpoint and joined.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use crate::checkpoint::official::{known_and_ignored, CODEC, CODE_MAPPING, DENOISER};
use crate::checkpoint::{Checkpoint, LoadError, LoadReport, Loader, StateDict};
use crate::codec::image_codec::CodeMapping;
use crate::codec::ImageCodec;
use crate::diffusion::sampler::SamplerError;
use crate::diffusion::{SamplerConfig, SamplingPlan};
use crate::model::ModelConfig;
use crate::picture::Picture;
use crate::torch::device::Precision;
use crate::torch::graph::{GraphError, Recorder};
use crate::torch::host::values;
use crate::torch::Params;
use crate::transformer::Denoiser;

use super::conditioner::Conditioner;

/// A loaded model, ready for inference: the front door of this crate.
pub struct Pipeline {
    config: ModelConfig,
    conditioner: Conditioner,
    denoiser: Denoiser,
    codec: ImageCodec,
    device: Device,
    precision: Precision,
    fingerprint: String,
    report: LoadReport,
    records_steps: bool,
}

impl Pipeline {
    /// Reads the weights of `checkpoint` to `device`; the denoiser computes in
    /// `precision`, text tower and codec in f32 (the decoder where
    /// [`PictureOptions::decoding`](super::PictureOptions) says nothing else).
    ///
    /// # Errors
    ///
    /// Weights that are missing, misshapen, not finite, left over or unreadable, and
    /// a code mapping that does not fit, all by name.
    pub fn load(
        checkpoint: &Checkpoint,
        device: Device,
        precision: Precision,
    ) -> Result<Self, LoadError> {
        let mut pipeline = Self::assemble(checkpoint, device, precision)?;
        let _no_grad = tch::no_grad_guard();
        pipeline.denoiser.prepare();
        Ok(pipeline)
    }

    fn assemble(
        checkpoint: &Checkpoint,
        device: Device,
        precision: Precision,
    ) -> Result<Self, LoadError> {
        let _no_grad = tch::no_grad_guard();
        let config = checkpoint.config.clone();
        let mapping = match config.needs_code_mapping() {
            true => {
                let codes = config.denoiser.codes;
                Some(code_mapping(
                    &checkpoint.state,
                    &checkpoint.path,
                    codes,
                    device,
                )?)
            }
            false => None,
        };

        let loader = Loader::new(&checkpoint.state, &checkpoint.path);
        let root = Params::new(&loader, device, Kind::Float);
        let conditioner = Conditioner::new(&root, &config, checkpoint.tokenizer()?);
        let network = root.at(DENOISER).with_kind(precision.kind());
        let denoiser = Denoiser::new(&network, &config.denoiser);
        let codec = ImageCodec::new(&root.at(CODEC), &config.codec, mapping);
        let fingerprint = loader.fingerprint();
        let report = loader.finish(known_and_ignored)?;
        Ok(Pipeline {
            config,
            conditioner,
            denoiser,
            codec,
            device,
            precision,
            fingerprint,
            report,
            records_steps: false,
        })
    }

    /// Samples by CUDA graphs: the steps of exact runs are recorded once for each shape and
    /// replayed, with the same tokens. Other runs are made as usual.
    ///
    /// # Errors
    ///
    /// A device that is not a CUDA one, and a part of the program that is not there.
    pub fn with_cuda_graphs(mut self) -> Result<Self, GraphError> {
        Recorder::new(self.device)?;
        self.records_steps = true;
        Ok(self)
    }

    /// What records steps, if they are ([`with_cuda_graphs`](Self::with_cuda_graphs)).
    pub(super) fn recorder(&self) -> Result<Option<Recorder>, GraphError> {
        self.records_steps
            .then(|| Recorder::new(self.device))
            .transpose()
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub fn device(&self) -> Device {
        self.device
    }

    /// Number format that the denoiser computes in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    pub fn codec(&self) -> &ImageCodec {
        &self.codec
    }

    pub fn denoiser(&self) -> &Denoiser {
        &self.denoiser
    }

    /// SHA-256 of the loaded weights ([`Loader::fingerprint`]).
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// What became of the checkpoint's tensors.
    pub fn report(&self) -> &LoadReport {
        &self.report
    }

    /// A run plan for this model.
    pub fn plan(&self, config: &SamplerConfig) -> Result<SamplingPlan, SamplerError> {
        config.plan(&self.config.schedule(), self.config.denoiser.grid)
    }

    /// The part that makes the condition.
    pub fn conditioner(&self) -> &Conditioner {
        &self.conditioner
    }

    /// Tokens of a picture of the model's size by the likeliest codes: int64 `[1, L]` on
    /// the CPU.
    pub fn encode(&self, picture: &Picture) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let image = picture.to_tensor().unsqueeze(0).to_device(self.device);
        self.codec.encode(&image).to_device(Device::Cpu)
    }

    /// Tokens of a picture of any size, scaled to cover the model's, the middle cut out:
    /// row-major over the token grid, each below K.
    pub fn tokens(&self, picture: &Picture) -> Vec<i64> {
        let [height, width] = self.config.picture_size().map(|side| side as u32);
        values(&self.encode(&picture.cover(width, height)))
    }

    /// Pictures as floats in 0…255: `tokens` `[B, L]` → `[B, 3, H, W]` on the CPU.
    /// On the CPU one after the other, so that a picture does not depend on its batch.
    pub fn decode(&self, tokens: &Tensor) -> Tensor {
        self.decode_in(tokens, Precision::F32)
    }

    /// As [`decode`](Self::decode) with the decoder in `precision`.
    pub fn decode_in(&self, tokens: &Tensor, precision: Precision) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let grid = self.config.denoiser.grid;
        let group = match self.device {
            Device::Cpu => 1,
            _ => tokens.size()[0].max(1),
        };
        let pictures: Vec<Tensor> = tokens
            .split(group, 0)
            .iter()
            .map(|tokens| self.codec.decode_in(tokens, grid, precision))
            .map(|picture| picture.to_device(Device::Cpu))
            .collect();
        Tensor::cat(&pictures, 0)
    }

    /// Pictures of unfinished states: as [`decode_in`](Self::decode_in), with the cells of
    /// masked tokens in mid grey.
    pub fn decode_partial(&self, tokens: &Tensor, precision: Precision) -> Tensor {
        let masked = tokens.eq(self.config.denoiser.mask_token()); // [B, L]
        let pictures = self.decode_in(&tokens.masked_fill(&masked, 0), precision); // [B, 3, H, W]
        let [rows, columns] = self.config.denoiser.grid;
        let factor = self.config.codec.factor();
        let cells = masked
            .to_device(Device::Cpu)
            .view([-1, 1, rows, columns])
            .repeat_interleave_self_int(factor, 2, None)
            .repeat_interleave_self_int(factor, 3, None); // [B, 1, H, W]
        pictures.masked_fill(&cells, 128.0)
    }
}

/// Reads every weight of `checkpoint` and checks it as [`Pipeline::load`] does.
pub fn check_weights(checkpoint: &Checkpoint) -> Result<LoadReport, LoadError> {
    Ok(Pipeline::assemble(checkpoint, Device::Cpu, Precision::F32)?.report)
}

pub(super) fn code_mapping(
    state: &StateDict,
    path: &Path,
    codes: i64,
    device: Device,
) -> Result<CodeMapping, LoadError> {
    let Some(entry) = state.get(CODE_MAPPING) else {
        return Err(LoadError::Format {
            path: path.to_path_buf(),
            problem: format!(
                "has no code mapping ('{CODE_MAPPING}'); convert the original checkpoint again"
            ),
        });
    };
    let mapping = CodeMapping::new(&entry.read()?.to_device(device), codes);
    mapping.map_err(|source| LoadError::CodeMapping {
        file: entry.file.clone(),
        key: entry.key.clone(),
        source,
    })
}
