//! Text to pictures: tokenizer, text tower, denoiser, sampler and codec joined.

use tch::{Device, Kind, Tensor};

use crate::checkpoint::official::{
    known_and_ignored, CODEC, CODE_MAPPING, DENOISER, NULL_TEXT, TEXT,
};
use crate::checkpoint::{Checkpoint, LoadError, LoadReport, Loader};
use crate::clip::{ClipTokenizer, TextEncoder, TokenizerError};
use crate::codec::image_codec::CodeMapping;
use crate::codec::ImageCodec;
use crate::diffusion::guidance::Prediction;
use crate::diffusion::sampler::Progress;
use crate::diffusion::sampler::SamplerError;
use crate::diffusion::{HostNoise, Sampler, SamplerConfig};
use crate::model::{ModelConfig, NullText};
use crate::torch::device::Precision;
use crate::torch::{Init, Params};
use crate::transformer::{Condition, Denoiser};

/// One picture to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub prompt: String,
    /// Key of all its noise.
    pub seed: u64,
}

/// A loaded text-to-image model, ready for inference.
pub struct Pipeline {
    config: ModelConfig,
    tokenizer: ClipTokenizer,
    text: TextEncoder,
    learned_null: Option<Tensor>, // [1, S, C]
    denoiser: Denoiser,
    codec: ImageCodec,
    device: Device,
    kind: Kind,
    fingerprint: String,
    report: LoadReport,
}

impl Pipeline {
    /// Reads the weights of `checkpoint` to `device`; the denoiser computes in
    /// `precision`, text tower and codec in f32.
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
        let tokenizer = ClipTokenizer::new(config.text.vocabulary as usize)
            .and_then(|tokenizer| tokenizer.with_context_length(config.text.context as usize))
            .map_err(|e| LoadError::Format {
                path: checkpoint.path.clone(),
                problem: format!("text vocabulary: {e}"),
            })?;
        let mapping = code_mapping(checkpoint, device)?;

        let loader = Loader::new(&checkpoint.state, &checkpoint.path);
        let root = Params::new(&loader, device, Kind::Float);
        let text = TextEncoder::new(&root.at(TEXT), &config.text);
        let learned_null = (config.null_text == NullText::Learned).then(|| {
            let shape = [config.denoiser.text_positions, config.denoiser.text_width];
            root.get(NULL_TEXT, &shape, Init::Normal(1.0)).unsqueeze(0)
        });
        let kind = precision.kind();
        let network = root.at(DENOISER).with_kind(kind);
        let denoiser = Denoiser::new(&network, &config.denoiser);
        let codec = ImageCodec::new(&root.at(CODEC), &config.codec, mapping);
        let fingerprint = loader.fingerprint();
        let report = loader.finish(known_and_ignored)?;
        Ok(Pipeline {
            config,
            tokenizer,
            text,
            learned_null,
            denoiser,
            codec,
            device,
            kind,
            fingerprint,
            report,
        })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub fn device(&self) -> Device {
        self.device
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
    pub fn sampler(&self, config: &SamplerConfig) -> Result<Sampler, SamplerError> {
        Sampler::new(
            config,
            &self.config.schedule(),
            self.config.denoiser.tokens(),
        )
    }

    /// Text features of `prompts`: `[B, S, C]` f32.
    pub fn encode_text(&self, prompts: &[&str]) -> Result<Tensor, TokenizerError> {
        let mut ids: Vec<i64> = Vec::new();
        for prompt in prompts {
            let encoding = self.tokenizer.encode(prompt)?;
            if encoding.truncated {
                log::warn!("the end of this prompt does not fit the text context: {prompt:?}");
            }
            ids.extend(encoding.ids);
        }
        let ids = Tensor::from_slice(&ids)
            .view([prompts.len() as i64, -1])
            .to_device(self.device);
        Ok(self.text.forward(&ids))
    }

    /// What stands for "no text": `[1, S, C]` f32.
    pub fn null_text(&self) -> Result<Tensor, TokenizerError> {
        match &self.learned_null {
            Some(learned) => Ok(learned.shallow_clone()),
            None => self.encode_text(&[""]),
        }
    }

    /// The denoiser's condition for `prompts`, with the null text's rows behind them
    /// if `guidance` is on.
    pub fn condition(&self, prompts: &[&str], guidance: bool) -> Result<Condition, TokenizerError> {
        let _no_grad = tch::no_grad_guard();
        let mut features = self.encode_text(prompts)?; // [B, S, C]
        if guidance {
            let null = self.null_text()?.expand_as(&features);
            features = Tensor::cat(&[features, null], 0); // [2B, S, C]
        }
        Ok(self.denoiser.condition(&features.to_kind(self.kind)))
    }

    /// Tokens of one picture per request: `[B, L]` int64 below K.
    ///
    /// On the CPU pictures are made one after the other, so that a picture's tokens
    /// do not depend on the batch it is made in; `observe` is told the index of the
    /// first request of the group that the progress is about.
    pub fn sample_tokens(
        &self,
        sampler: &Sampler,
        requests: &[Request],
        observe: &mut dyn FnMut(usize, Progress),
    ) -> Result<Tensor, TokenizerError> {
        let group = match self.device {
            Device::Cpu => 1,
            _ => requests.len().max(1),
        };
        let mut known: Option<(Vec<&str>, Condition)> = None;
        let mut parts = Vec::new();
        for (i, requests) in requests.chunks(group).enumerate() {
            let prompts: Vec<&str> = requests.iter().map(|r| r.prompt.as_str()).collect();
            let condition = match known {
                Some((of, condition)) if of == prompts => condition,
                _ => self.condition(&prompts, sampler.config().uses_guidance())?,
            };
            let seeds: Vec<u64> = requests.iter().map(|r| r.seed).collect();
            let mut observe = |progress: Progress| observe(i * group, progress);
            parts.push(self.sample_group(sampler, &seeds, &condition, &mut observe));
            known = Some((prompts, condition));
        }
        Ok(Tensor::cat(&parts, 0))
    }

    fn sample_group(
        &self,
        sampler: &Sampler,
        seeds: &[u64],
        condition: &Condition,
        observe: &mut dyn FnMut(Progress),
    ) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let batch = seeds.len() as i64;
        let mut noise = HostNoise::new(seeds);
        let start = sampler.start(batch, &mut noise).to_device(self.device);
        let guided = sampler.config().uses_guidance();
        let mut denoise = |x: &Tensor, t: &Tensor, positions: Option<&Tensor>| {
            let logits = self.denoiser.forward(x, t, condition, positions);
            Prediction {
                conditional: logits.narrow(0, 0, batch),
                unconditional: guided.then(|| logits.narrow(0, batch, batch)),
            }
        };
        sampler.sample(start, &mut denoise, &mut noise, observe)
    }

    /// Pictures as floats in 0…255: `tokens` `[B, L]` → `[B, 3, H, W]` on the CPU.
    /// On the CPU one after the other, as for [`sample_tokens`](Self::sample_tokens).
    pub fn decode(&self, tokens: &Tensor) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let grid = self.config.denoiser.grid;
        let group = match self.device {
            Device::Cpu => 1,
            _ => tokens.size()[0].max(1),
        };
        let pictures: Vec<Tensor> = tokens
            .split(group, 0)
            .iter()
            .map(|tokens| self.codec.decode(tokens, grid).to_device(Device::Cpu))
            .collect();
        Tensor::cat(&pictures, 0)
    }

    /// Pictures of unfinished states: as [`decode`](Self::decode), with the cells of
    /// masked tokens in mid grey.
    pub fn decode_partial(&self, tokens: &Tensor) -> Tensor {
        let masked = tokens.eq(self.config.denoiser.mask_token()); // [B, L]
        let pictures = self.decode(&tokens.masked_fill(&masked, 0)); // [B, 3, H, W]
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

/// The image codec of a model alone.
pub struct LoadedCodec {
    pub codec: ImageCodec,
    pub device: Device,
    /// Token grid as rows, columns.
    pub grid: [i64; 2],
    /// Tokens are below this.
    pub codes: i64,
    /// SHA-256 of its weights ([`Loader::fingerprint`]).
    pub fingerprint: String,
}

impl LoadedCodec {
    /// Reads the codec of `checkpoint` to `device` and nothing else.
    ///
    /// # Errors
    ///
    /// As [`Pipeline::load`], for the codec's weights.
    pub fn load(checkpoint: &Checkpoint, device: Device) -> Result<Self, LoadError> {
        let _no_grad = tch::no_grad_guard();
        let config = &checkpoint.config;
        let mapping = code_mapping(checkpoint, device)?;
        let loader = Loader::new(&checkpoint.state, &checkpoint.path);
        let root = Params::new(&loader, device, Kind::Float);
        let codec = ImageCodec::new(&root.at(CODEC), &config.codec, mapping);
        let fingerprint = loader.fingerprint();
        let other = |name: &str| !name.starts_with(&format!("{CODEC}."));
        loader.finish(|name| match other(name) {
            true => Some("not part of the codec"),
            false => known_and_ignored(name),
        })?;
        Ok(LoadedCodec {
            codec,
            device,
            grid: config.denoiser.grid,
            codes: config.denoiser.codes,
            fingerprint,
        })
    }

    /// L.
    pub fn tokens(&self) -> i64 {
        self.grid[0] * self.grid[1]
    }

    /// Height and width of its pictures.
    pub fn picture_size(&self) -> [i64; 2] {
        self.grid.map(|side| side * self.codec.config().factor())
    }
}

/// Reads every weight of `checkpoint` and checks it as [`Pipeline::load`] does.
pub fn check_weights(checkpoint: &Checkpoint) -> Result<LoadReport, LoadError> {
    Ok(Pipeline::assemble(checkpoint, Device::Cpu, Precision::F32)?.report)
}

fn code_mapping(checkpoint: &Checkpoint, device: Device) -> Result<Option<CodeMapping>, LoadError> {
    let config = &checkpoint.config;
    if !config.needs_code_mapping() {
        return Ok(None);
    }
    let Some(entry) = checkpoint.state.get(CODE_MAPPING) else {
        return Err(LoadError::Missing {
            path: checkpoint.path.clone(),
            what: format!("has no code mapping ('{CODE_MAPPING}')"),
            remedy: "convert the original checkpoint again".into(),
        });
    };
    CodeMapping::new(&entry.read()?.to_device(device), config.denoiser.codes)
        .map(Some)
        .map_err(|problem| LoadError::Tensor {
            file: entry.file.clone(),
            key: entry.key.clone(),
            problem,
        })
}
