//! A whole run of codec training: steps, validations, checkpoints and log.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tch::{Kind, Tensor};

use super::checkpoint::{save, STATE};
use super::config::CodecTrainConfig;
use super::trainer::CodecTrainer;
use crate::checkpoint::LoadError;
use crate::codec::image_codec::to_bytes;
use crate::codec::usage::perplexity;
use crate::codec::{ImageCodec, Rounding};
use crate::data::prefetch::prefetch;
use crate::data::{DataError, PictureBatch, PictureLoader};
use crate::files::{self, FileError};
use crate::picture::{psnr, Picture};
use crate::train::tensorboard::EventFile;

/// What can end a run.
#[derive(Debug, thiserror::Error)]
pub enum CodecTrainError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("{}: {source}", path.display())]
    Io {
        path: std::path::PathBuf,
        source: std::io::Error,
    },
    #[error("the loss is not finite in step {step}; the last checkpoint is that of step {saved}")]
    NotFinite { step: u64, saved: u64 },
}

/// A line of the log, over the steps since the last one.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Steps made.
    pub step: u64,
    /// Mean of the loss's main term.
    pub reconstruction: f64,
    pub commitment: f64,
    pub learning_rate: f64,
    pub gradient_norm: f64,
    /// Share of the codebook that occurs.
    pub codes_used: f64,
    /// exp of the entropy of the codes.
    pub perplexity: f64,
    /// Entries moved.
    pub revived: i64,
    pub images_per_second: f64,
    /// Peak signal-to-noise ratio over the validation pictures in dB, after validations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psnr: Option<f64>,
}

impl Line {
    /// The same numbers for TensorBoard.
    fn show(&self, events: &mut EventFile) -> std::io::Result<()> {
        for (tag, value) in [
            ("train/reconstruction", self.reconstruction),
            ("train/commitment", self.commitment),
            ("train/learning_rate", self.learning_rate),
            ("train/gradient_norm", self.gradient_norm),
            ("train/codes_used", self.codes_used),
            ("train/code_perplexity", self.perplexity),
            ("train/revived", self.revived as f64),
            ("speed/images_per_second", self.images_per_second),
        ] {
            events.scalar(self.step, tag, value)?;
        }
        if let Some(psnr) = self.psnr {
            events.scalar(self.step, "validation/psnr", psnr)?;
        }
        events.flush()
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Finished,
    /// It was asked to stop; the checkpoint holds everything.
    Stopped,
}

/// Sums since the last line.
#[derive(Default)]
struct Window {
    steps: u64,
    reconstruction: Option<Tensor>,
    commitment: Option<Tensor>,
    usage: Option<Tensor>,
    gradient_norm: f64,
    revived: i64,
}

/// Trains until the configured number of steps, or until `stop` is set: the step at hand
/// is finished then and a checkpoint written. `observe` is told every step, with a line
/// where the log gets one.
pub fn run(
    trainer: &mut CodecTrainer,
    config: &CodecTrainConfig,
    data: Arc<PictureLoader>,
    validation: &[Picture],
    stop: &AtomicBool,
    observe: &mut dyn FnMut(u64, Option<&Line>),
) -> Result<Ended, CodecTrainError> {
    let folder = &config.folder;
    let path = folder.join("log.jsonl");
    let io = |source| CodecTrainError::Io {
        path: path.clone(),
        source,
    };
    std::fs::create_dir_all(folder).map_err(io)?;
    keep_lines(&path, trainer.step)?;
    let mut log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(io)?;
    let events_io = |source| CodecTrainError::Io {
        path: folder.clone(),
        source,
    };
    let mut events = EventFile::create(folder).map_err(events_io)?;
    let batches = {
        let (data, size) = (data.clone(), config.batch_size);
        let steps = trainer.step..config.steps;
        prefetch(4, steps, move |step| data.batch(step * size as u64, size))?
    };
    let mut saved = trainer.step;
    let mut window = Window::default();
    let mut since = Instant::now();
    for batch in batches {
        let batch: PictureBatch = batch?;
        if trainer.starts_codebook() {
            let mut next = batch.samples[0];
            trainer.start_codebook(&mut || {
                let pictures = data.batch(next, config.batch_size)?.pictures;
                next += config.batch_size as u64;
                Ok::<Tensor, DataError>(pictures)
            })?;
        }
        let rate = trainer.learning_rate.rate;
        let outcome = trainer.step(&batch.pictures);
        if !outcome.gradient_norm.is_finite() {
            let step = trainer.step;
            return Err(CodecTrainError::NotFinite { step, saved });
        }
        window.add(outcome);
        let stopped = stop.load(Ordering::Relaxed);
        let last = trainer.step == config.steps || stopped;
        let saves = trainer.step.is_multiple_of(config.save_every) || last;
        let logs = trainer.step.is_multiple_of(config.log_every) || saves;
        let mut line = None;
        if logs {
            let seconds = since.elapsed().as_secs_f64();
            let mut made = window.line(trainer.step, rate);
            made.images_per_second = (window.steps * config.batch_size as u64) as f64 / seconds;
            if saves && !validation.is_empty() {
                made.psnr = Some(validate(&trainer.snapshot(), validation, trainer.device()));
            }
            let text = serde_json::to_string(&made).map_err(|e| io(e.into()))?;
            writeln!(log, "{text}").map_err(io)?;
            made.show(&mut events).map_err(events_io)?;
            line = Some(made);
            window = Window::default();
        }
        if saves {
            save(folder, trainer)?;
            saved = trainer.step;
        }
        if logs {
            since = Instant::now();
        }
        observe(trainer.step, line.as_ref());
        if stopped {
            return Ok(Ended::Stopped);
        }
    }
    Ok(Ended::Finished)
}

impl Window {
    fn add(&mut self, step: super::CodecStep) {
        let plus = |sum: &mut Option<Tensor>, value: Tensor| {
            *sum = Some(match sum.take() {
                Some(sum) => sum + value,
                None => value,
            });
        };
        plus(&mut self.reconstruction, step.reconstruction);
        plus(&mut self.commitment, step.commitment);
        if let Some(usage) = step.usage {
            plus(&mut self.usage, usage);
        }
        self.steps += 1;
        self.gradient_norm += step.gradient_norm;
        self.revived += step.revived;
    }

    fn line(&self, step: u64, learning_rate: f64) -> Line {
        let mean = |sum: &Option<Tensor>| {
            sum.as_ref().map_or(0.0, |t| t.double_value(&[])) / self.steps as f64
        };
        let usage: Vec<u64> = self.usage.as_ref().map_or(Vec::new(), |usage| {
            let usage = usage.to_device(tch::Device::Cpu).to_kind(Kind::Double);
            let mut counts = vec![0f64; usage.numel()];
            usage.copy_data(&mut counts, usage.numel());
            counts.into_iter().map(|count| count as u64).collect()
        });
        let used = usage.iter().filter(|&&count| count > 0).count();
        Line {
            step,
            reconstruction: mean(&self.reconstruction),
            commitment: mean(&self.commitment),
            learning_rate,
            gradient_norm: self.gradient_norm / self.steps as f64,
            codes_used: used as f64 / usage.len().max(1) as f64,
            perplexity: perplexity(&usage),
            revived: self.revived,
            images_per_second: 0.0,
            psnr: None,
        }
    }
}

/// Mean PSNR in dB of `pictures` through the codec.
pub fn validate(codec: &ImageCodec, pictures: &[Picture], device: tch::Device) -> f64 {
    const TOGETHER: usize = 16;
    let _no_grad = tch::no_grad_guard();
    let mut sum = 0.0;
    for pictures in pictures.chunks(TOGETHER) {
        let images: Vec<Tensor> = pictures.iter().map(Picture::to_tensor).collect();
        let images = Tensor::stack(&images, 0).to_device(device); // [B, 3, H, W]
        let factor = codec.config().factor();
        let grid = [images.size()[2] / factor, images.size()[3] / factor];
        let decoded = codec.decode(&codec.encode(&images), grid);
        let bytes = to_bytes(&decoded, Rounding::Nearest);
        for (n, picture) in pictures.iter().enumerate() {
            sum += psnr(picture, &Picture::from_tensor(&bytes.get(n as i64)));
        }
    }
    sum / pictures.len() as f64
}

/// Drops lines of the log after `step`: a killed run had gone on past its checkpoint.
fn keep_lines(path: &Path, step: u64) -> Result<(), FileError> {
    let text = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        text => text.map_err(FileError::reading(path))?,
    };
    let before = |line: &&str| {
        let line: Option<serde_json::Value> = serde_json::from_str(line).ok();
        line.and_then(|l| l["step"].as_u64())
            .is_some_and(|n| n <= step)
    };
    let kept: String = text
        .lines()
        .filter(before)
        .map(|line| format!("{line}\n"))
        .collect();
    files::write(path, kept)
}

/// Whether `folder` holds a run.
pub fn holds_run(folder: &Path) -> bool {
    folder.join(STATE).exists()
}
