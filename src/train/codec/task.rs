//! Training of the image codec as a task of the engine: pictures to gradients, and a codebook
//! that follows the encoder.

use std::collections::BTreeSet;
use std::io;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use tch::{Kind, Tensor};

use super::ahead::{Ahead, Course};
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
use crate::data::{Fingerprint, PictureLoader};
use crate::files::{self, FileError, NewFile};
use crate::picture::{psnr, Picture};
use crate::ranks::Ranks;
use crate::torch::host::values;
use crate::train::engine::checkpoint::{fill_from, read};
use crate::train::engine::{Better, Measure, RunState, Task};
use crate::train::TrainError;

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
    /// The samples of this process in the step at hand, and how many all have.
    own: (Range<u64>, u64),
    ahead: Option<Ahead>,
}

impl CodecTask {
    pub fn new(config: &CodecTrainConfig, weights: CodecWeights, data: CodecData) -> Self {
        CodecTask {
            config: config.clone(),
            weights,
            fingerprint: Fingerprint::of_items(&data.train.dataset().items),
            data,
            own: (0..0, 0),
            ahead: None,
        }
    }

    /// The pictures of a part of the step at hand, uint8 `[B, 3, H, W]`.
    fn pictures(&mut self, state: &RunState, part: &Range<u64>) -> Result<Tensor, TrainError> {
        let (own, step) = &self.own;
        let course = Course {
            first: own.start,
            each: own.end - own.start,
            size: part.end - part.start,
            step: *step,
        };
        let mut ahead = match self.ahead.take().filter(|ahead| ahead.follows(part)) {
            Some(ahead) => ahead,
            None => {
                let steps = self.config.steps.saturating_sub(state.step);
                Ahead::new(&self.data.train, course, part.start, steps)?
            }
        };
        let pictures = ahead.pictures()?;
        self.ahead = Some(ahead);
        Ok(pictures)
    }

    /// The pictures that could not be read, in all processes.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub fn skipped(&self, ranks: &Ranks) -> Result<BTreeSet<String>, TrainError> {
        let own = self.data.train.skipped();
        let own = own
            .iter()
            .map(|skipped| (0, skipped.to_string().into_bytes()));
        let all = ranks.items_of_all(own.collect())?;
        let text = |(_, bytes): (usize, Vec<u8>)| String::from_utf8_lossy(&bytes).into_owned();
        Ok(all.into_iter().map(text).collect())
    }

    /// Encoder output of the pictures from sample `first` on, enough for a codebook to start
    /// from: `[P, E]`, that of all processes in the order of the samples. None if any of them
    /// was asked to stop.
    fn latents(
        &self,
        mut first: u64,
        ranks: &Ranks,
        stop: &AtomicBool,
    ) -> Result<Option<Tensor>, TrainError> {
        let (_, step) = self.own;
        let together = self.config.batch_size as u64;
        let mut all = Vec::new();
        let mut vectors = 0;
        while vectors < self.weights.vectors_to_start_from() {
            if ranks.any(stop.load(Ordering::Relaxed))? {
                return Ok(None);
            }
            let own = ranks.own(&(first..first + step));
            let mut parts = Vec::new();
            for start in own.clone().step_by(together as usize) {
                let size = together.min(own.end - start);
                let batch = self.data.train.batch(start, size as usize)?;
                parts.push(self.weights.latents(&batch.pictures));
            }
            let latents = ranks.gathered(&Tensor::cat(&parts, 0))?;
            vectors += latents.size()[0];
            all.push(latents);
            first += step;
        }
        Ok(Some(Tensor::cat(&all, 0).to_device(self.weights.device())))
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
        ranks: &Ranks,
        stop: &AtomicBool,
    ) -> Result<ControlFlow<()>, TrainError> {
        let step = samples.end - samples.start;
        self.own = (ranks.own(&samples), step);
        if !self.weights.starts_codebook(state.step) {
            return Ok(ControlFlow::Continue(()));
        }
        let Some(latents) = self.latents(samples.start, ranks, stop)? else {
            return Ok(ControlFlow::Break(()));
        };
        let shape = self.weights.shape();
        let side = shape.resolution / shape.factor();
        let batch = (step as i64 * side * side) as f64;
        self.weights
            .start_codebook(state.step, &latents, batch, ranks, stop)
    }

    fn backward(
        &mut self,
        state: &RunState,
        samples: Range<u64>,
        parts: usize,
    ) -> Result<CodecPart, TrainError> {
        let pictures = self.pictures(state, &samples)?;
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

    fn report(&mut self, parts: Vec<CodecPart>, ranks: &Ranks) -> Result<CodecReport, TrainError> {
        let terms = |part: &CodecPart| Tensor::stack(&[&part.reconstruction, &part.commitment], 0);
        let terms: Vec<Tensor> = parts.iter().map(terms).collect(); // [2] each
        let terms = ranks.gathered(&Tensor::stack(&terms, 0).to_kind(Kind::Double))?;
        let terms: Vec<f64> = values(&terms.mean_dim(0, false, Kind::Double));
        let (reconstruction, commitment) = (terms[0], terms[1]);
        let latents: Vec<&Tensor> = parts.iter().map(|part| &part.latents).collect();
        let codes: Option<Vec<&Tensor>> = parts.iter().map(|part| part.codes.as_ref()).collect();
        let quantized = match codes {
            None => None,
            Some(codes) => {
                let (latents, codes) = (Tensor::cat(&latents, 0), Tensor::cat(&codes, 0));
                let entries = self.weights.shape().codebook;
                let CodeStatistics { counts, sums } =
                    CodeStatistics::new(&latents, &codes, entries);
                let statistics = CodeStatistics {
                    counts: ranks.summed(&counts)?.to_device(latents.device()),
                    sums: ranks.summed(&sums)?.to_device(latents.device()),
                };
                Some((latents, statistics))
            }
        };
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
    fn learn(
        &mut self,
        state: &RunState,
        report: &mut CodecReport,
        ranks: &Ranks,
    ) -> Result<(), TrainError> {
        let Some((latents, statistics)) = &report.quantized else {
            return Ok(());
        };
        if self.config.trained != Trained::Whole {
            return Ok(());
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
            report.revived = weights.revive(state.step, latents, ranks)?;
        }
        if let Some(weight) = price_weight {
            weights.codebook.set_prices(weight);
        }
        Ok(())
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
    fn validate(
        &self,
        _state: &RunState,
        ranks: &Ranks,
        stop: &AtomicBool,
    ) -> Result<Option<f64>, TrainError> {
        const TOGETHER: usize = 16;
        let _no_grad = tch::no_grad_guard();
        let codec = self.weights.codec(Kind::Float);
        let validation = &self.data.validation;
        let mut ratios = vec![0.0; validation.len()];
        let groups = validation.chunks(TOGETHER).zip(ratios.chunks_mut(TOGETHER));
        let mut stopped = false;
        for (_, (pictures, ratios)) in groups.enumerate().filter(|(n, _)| ranks.does(*n)) {
            stopped = stop.load(Ordering::Relaxed);
            if stopped {
                break;
            }
            let images: Vec<Tensor> = pictures.iter().map(Picture::to_tensor).collect();
            let images = Tensor::stack(&images, 0).to_device(self.weights.device()); // [B, 3, H, W]
            let factor = codec.config().factor();
            let grid = [images.size()[2] / factor, images.size()[3] / factor];
            let decoded = codec.decode(&codec.encode(&images), grid);
            let bytes = to_bytes(&decoded, Rounding::Nearest);
            for (n, (picture, ratio)) in pictures.iter().zip(ratios).enumerate() {
                *ratio = psnr(picture, &Picture::from_tensor(&bytes.get(n as i64)));
            }
        }
        if validation.is_empty() || ranks.any(stopped)? {
            return Ok(None);
        }
        let sum: f64 = ranks.numbers_of_all(&ratios)?.iter().sum();
        Ok(Some(sum / validation.len() as f64))
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
