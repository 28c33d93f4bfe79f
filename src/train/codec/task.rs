//! Training of the image codec as a task of the engine: pictures to gradients, and a codebook
//! that follows the encoder.

use std::io;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use tch::{Kind, Tensor};

use super::config::{CodecTrainConfig, Reconstruction, Trained};
use super::line::{CodecLine, CodecSums};
use super::old_run;
use super::step::{CodecPart, CodecReport};
use super::weights::CodecWeights;
use super::MODEL;
use crate::checkpoint::official::CODEC;
use crate::checkpoint::{codec_file, StateDict, WriteError};
use crate::codec::codebook::CodeStatistics;
use crate::codec::image_codec::to_bytes;
use crate::codec::Rounding;
use crate::data::prefetch::{prefetch, Prefetched};
use crate::data::{DataError, Fingerprint, PictureBatch, PictureLoader};
use crate::files::{self, FileError, NewFile};
use crate::picture::{psnr, Picture};
use crate::random::{sample_generator, unit, TrainingDraw};
use crate::torch::host::values;
use crate::train::engine::checkpoint::{fill_from, read};
use crate::train::engine::{Better, Measure, Ranks, RunState, Task};
use crate::train::TrainError;

/// Batches that wait to be trained on.
const AHEAD: usize = 4;

/// Batches of pictures that are decoded while the ones before them are trained on.
struct Ahead {
    batches: Prefetched<PictureBatch>,
    /// First sample of the next batch.
    first: u64,
}

/// The pictures of a run.
pub struct CodecData {
    pub train: Arc<PictureLoader>,
    /// What the signal-to-noise ratio is measured on; none where it is empty.
    pub validation: Vec<Picture>,
}

/// Training of a codec.
pub struct CodecTask {
    config: CodecTrainConfig,
    pub weights: CodecWeights,
    pub data: CodecData,
    fingerprint: Fingerprint,
    ahead: Option<Ahead>,
}

impl CodecTask {
    pub fn new(config: &CodecTrainConfig, weights: CodecWeights, data: CodecData) -> Self {
        CodecTask {
            config: config.clone(),
            weights,
            fingerprint: Fingerprint::of_items(&data.train.dataset().items),
            data,
            ahead: None,
        }
    }

    /// The pictures of the samples from `first` on, uint8 `[B, 3, H, W]`: those decoded ahead
    /// if the batch follows the last one, which are what decoding them now would give.
    fn pictures(&mut self, first: u64) -> Result<Tensor, TrainError> {
        let size = self.config.batch_size;
        let mut ahead = match self.ahead.take().filter(|ahead| ahead.first == first) {
            Some(ahead) => ahead,
            None => {
                let data = self.data.train.clone();
                let left = (self.config.steps * size as u64).saturating_sub(first) / size as u64;
                let make = move |n| data.batch(first + n * size as u64, size);
                let batches = prefetch(AHEAD, 0..left, make)?;
                Ahead { batches, first }
            }
        };
        ahead.first += size as u64;
        let batch = ahead.batches.next();
        self.ahead = Some(ahead);
        let batch = batch.unwrap_or_else(|| self.data.train.batch(first, size))?;
        Ok(batch.pictures)
    }
}

impl Task for CodecTask {
    type Part = CodecPart;
    type Report = CodecReport;
    type Sums = CodecSums;
    type Line = CodecLine;

    const MODEL: &'static str = MODEL;
    const MEASURE: Measure = Measure {
        name: "psnr",
        log: "psnr",
        tag: "validation/psnr",
        better: Better::Higher,
    };

    fn data(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// Starts the codebook before its first step, from pictures of this and later steps.
    fn begin(
        &mut self,
        state: &RunState,
        samples: Range<u64>,
        stop: &AtomicBool,
    ) -> Result<ControlFlow<()>, TrainError> {
        if !self.weights.starts_codebook(state.step) {
            return Ok(ControlFlow::Continue(()));
        }
        let (data, size) = (&self.data.train, self.config.batch_size);
        let mut next = samples.start;
        let mut pictures = || {
            let pictures = data.batch(next, size)?.pictures;
            next += size as u64;
            Ok::<Tensor, DataError>(pictures)
        };
        let started = self
            .weights
            .start_codebook(state.step, &mut pictures, stop)?;
        Ok(started)
    }

    fn backward(
        &mut self,
        _state: &RunState,
        samples: Range<u64>,
        parts: usize,
    ) -> Result<CodecPart, TrainError> {
        let pictures = self.pictures(samples.start)?;
        let (config, weights) = (&self.config, &self.weights);
        let kind = config.precision.kind();
        let x = weights.input(&pictures);
        let pass = weights
            .codec(kind)
            .training_pass(&x.to_kind(kind), weights.table());
        let difference = pass.reconstruction - &x;
        let reconstruction = match config.reconstruction {
            Reconstruction::L1 => difference.abs(),
            Reconstruction::L2 => difference.square(),
        }
        .mean(Kind::Float);
        let loss = (&reconstruction + &pass.commitment * config.commitment) / parts as f64;
        loss.backward();
        weights.clear_around_prices(Tensor::grad);
        Ok(CodecPart {
            reconstruction: reconstruction.detach(),
            commitment: pass.commitment.detach(),
            latents: pass.latents.detach(),
            codes: pass.codes,
        })
    }

    /// A codec trains in one process.
    fn report(&mut self, parts: Vec<CodecPart>, _ranks: &Ranks) -> Result<CodecReport, TrainError> {
        let mean = |of: fn(&CodecPart) -> &Tensor| {
            let sum: f64 = parts.iter().map(|part| of(part).double_value(&[])).sum();
            sum / parts.len() as f64
        };
        let (reconstruction, commitment) = (mean(|p| &p.reconstruction), mean(|p| &p.commitment));
        let latents: Vec<&Tensor> = parts.iter().map(|part| &part.latents).collect();
        let codes: Option<Vec<&Tensor>> = parts.iter().map(|part| part.codes.as_ref()).collect();
        let quantized = codes.map(|codes| {
            let (latents, codes) = (Tensor::cat(&latents, 0), Tensor::cat(&codes, 0));
            let entries = self.weights.shape().codebook;
            let statistics = CodeStatistics::new(&latents, &codes, entries);
            (latents, statistics)
        });
        let usage = quantized.as_ref().map_or(Vec::new(), |(_, statistics)| {
            let counts: Vec<f64> = values(&statistics.counts);
            counts.into_iter().map(|count| count as u64).collect()
        });
        Ok(CodecReport {
            loss: reconstruction + commitment * self.config.commitment,
            reconstruction,
            commitment,
            usage,
            revived: 0,
            quantized,
        })
    }

    fn loss(report: &CodecReport) -> f64 {
        report.loss
    }

    /// The codebook: its averages, the price of its entropy, and dead entries.
    fn learn(&mut self, state: &RunState, report: &mut CodecReport) {
        let Some((latents, statistics)) = &report.quantized else {
            return;
        };
        if self.config.trained != Trained::Whole {
            return;
        }
        let book = &self.config.codebook;
        let weights = &mut self.weights;
        let price_weight = book.entropy.map(|most| {
            let width = weights.shape().embedding_width as f64;
            let error = report.commitment * width;
            weights.codebook.next_price_weight(error, statistics, most)
        });
        weights
            .codebook
            .update(statistics, book.decay, book.epsilon);
        let due = weights.revives_after(state.step) && state.step.is_multiple_of(book.revive_every);
        if due && book.revive_below > 0.0 {
            let mut generator =
                sample_generator(self.config.seed, state.step, TrainingDraw::Codebook);
            let mut uniform = || unit(&mut generator);
            report.revived = weights
                .codebook
                .revive(latents, book.revive_below, &mut uniform);
        }
        if let Some(weight) = price_weight {
            weights.codebook.set_prices(weight);
        }
    }

    fn add(&self, sums: &mut CodecSums, report: &CodecReport, norm: f64) {
        sums.add(report, norm);
    }

    fn line(
        &self,
        sums: &CodecSums,
        state: &RunState,
        rate: f64,
        images_per_second: f64,
    ) -> CodecLine {
        sums.line(state, rate, images_per_second)
    }

    /// Mean peak signal-to-noise ratio in dB of the validation pictures through the codec.
    fn validate(&self, _state: &RunState, stop: &AtomicBool) -> Result<Option<f64>, TrainError> {
        const TOGETHER: usize = 16;
        let _no_grad = tch::no_grad_guard();
        let codec = self.weights.codec(Kind::Float);
        let mut sum = 0.0;
        for pictures in self.data.validation.chunks(TOGETHER) {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let images: Vec<Tensor> = pictures.iter().map(Picture::to_tensor).collect();
            let images = Tensor::stack(&images, 0).to_device(self.weights.device()); // [B, 3, H, W]
            let factor = codec.config().factor();
            let grid = [images.size()[2] / factor, images.size()[3] / factor];
            let decoded = codec.decode(&codec.encode(&images), grid);
            let bytes = to_bytes(&decoded, Rounding::Nearest);
            for (n, picture) in pictures.iter().enumerate() {
                sum += psnr(picture, &Picture::from_tensor(&bytes.get(n as i64)));
            }
        }
        let count = self.data.validation.len();
        Ok((count > 0).then(|| sum / count as f64))
    }

    fn write_model(&self, path: &Path, _state: &RunState) -> Result<(), WriteError> {
        codec_file::write(path, self.weights.shape(), &self.weights.codec_state()?)
    }

    /// A copy of the newest codec lies at the top of the run's folder, where other commands
    /// expect it.
    fn publish(&self, folder: &Path, saved: &Path) -> Result<(), TrainError> {
        let (from, to) = (saved.join(MODEL), folder.join(MODEL));
        let same =
            || Ok::<_, FileError>(files::sha256_of_file(&from)? == files::sha256_of_file(&to)?);
        if !same().unwrap_or(false) {
            let mut file = NewFile::beside(&to)?;
            io::copy(&mut files::open(&from)?, &mut file).map_err(FileError::writing(&to))?;
            file.commit()?;
        }
        old_run::remove(folder)
    }

    /// All that is not in the model's file is the engine's.
    fn tensors(&self) -> Vec<(String, Tensor)> {
        Vec::new()
    }

    fn restore(&mut self, model: &StateDict, _rest: &StateDict) -> Result<(), TrainError> {
        let _no_grad = tch::no_grad_guard();
        fill_from(&mut self.weights.all, model, "")?;
        for (name, tensor) in self.weights.codebook_tensors() {
            let name = format!("{CODEC}.quantize.{name}");
            let stored = read(model, &name, &tensor.size())?;
            tensor.shallow_clone().copy_(&stored);
        }
        let file = model.iter().next().map(|(_, entry)| entry.file.clone());
        self.weights
            .check_price_channel(&file.unwrap_or_default())?;
        self.weights.find_codebook();
        Ok(())
    }
}
