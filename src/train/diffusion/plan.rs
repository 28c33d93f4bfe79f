//! The plan of a run in numbers, printed before it starts.

use std::fmt;

use tch::{Device, Kind, Tensor};

use super::config::TrainConfig;
use super::model::TextTraining;
use crate::memory;
use crate::model::ModelConfig;
use crate::torch::cuda::free_memory;
use crate::torch::device::{DeviceChoice, Precision};
use crate::train::engine::learning_rate::Course;
use crate::train::engine::reduction::Reduction;
use crate::train::engine::{GradientFormat, Share};
use crate::train::error::MemoryError;
use crate::transformer::Conditioning;

/// What a run will do and need.
#[derive(Clone, Debug)]
pub struct DiffusionPlan<'a> {
    pub config: &'a TrainConfig,
    pub model: &'a ModelConfig,
    pub device: Device,
    /// Trained values.
    pub trained: u64,
    /// Values in frozen parts of the condition.
    pub frozen: u64,
    /// Samples per epoch, where the data were opened.
    pub samples: Option<u64>,
    /// What they are, in words.
    pub data: String,
    /// Processes that train together.
    pub processes: usize,
    /// What each of them does of a step.
    pub share: Share,
}

const GIB: f64 = (1u64 << 30) as f64;

impl DiffusionPlan<'_> {
    /// Floating-point operations of training on one image: those of the forward pass,
    /// a multiplication and an addition counted each, and twice as many backward.
    pub fn flops_per_image(&self) -> f64 {
        let tower = self.model.text.as_ref().map_or(0.0, |text| {
            let t = &text.tower;
            let [w, s, h] = [t.width, t.context, t.hidden].map(|n| n as f64);
            t.layers as f64 * (8.0 * w * w * s + 4.0 * s * s * w + 4.0 * w * h * s)
        });
        let tower_passes = match self.config.text {
            TextTraining::Frozen => 1.0,
            TextTraining::Trained => 3.0,
        };
        3.0 * self.model.denoiser.flops() + tower_passes * tower
    }

    /// Bytes that weights, gradients, moments and averages take in each process.
    pub fn state_bytes(&self) -> f64 {
        let copy = match self.config.precision {
            Precision::F32 => 0.0,
            _ => 2.0,
        };
        // Gradients lie in the buckets that are reduced; those of the parts before the last
        // lie beside them, and so do rounded ones.
        let together = self.processes > 1;
        let beside = match together && self.share.accumulation > 1 {
            true => 4.0,
            false => 0.0,
        };
        let rounded = match self.config.gradients {
            GradientFormat::Bf16 if together => 2.0,
            _ => 0.0,
        };
        self.trained as f64 * (5.0 * 4.0 + copy + beside + rounded) + self.frozen as f64 * 4.0
    }

    /// What the processes send each other in a step.
    pub fn reduction(&self) -> Reduction {
        Reduction {
            values: self.trained,
            processes: self.processes,
            format: self.config.gradients,
        }
    }

    /// Bytes that one batch needs besides: what the backward pass reads again, about. With
    /// activation checkpointing the activations of one block and the inputs of all.
    pub fn batch_bytes(&self) -> f64 {
        let c = &self.model.denoiser;
        let value = match self.config.precision {
            Precision::F32 => 4.0,
            _ => 2.0,
        };
        let [d, l, k] = [c.width, c.tokens(), c.codes].map(|n| n as f64);
        let (layers, inside) = (c.layers as f64, 14.0 + 3.0 * c.expansion as f64);
        let kept = match self.config.activation_checkpointing {
            true => layers + inside,
            false => layers * inside,
        };
        // Masks of a byte a value; where attention weights are dropped, these before and after.
        let (rates, mut dropped) = (self.config.dropout, 0.0);
        if rates.residual > 0.0 {
            dropped += 3.0 * l * d;
        }
        if rates.attention > 0.0 {
            let text = match c.condition {
                Conditioning::Text { positions, .. } => positions as f64,
                _ => 0.0,
            };
            dropped += c.heads as f64 * l * (l + text) * (2.0 * value + 1.0);
        }
        let at_once = match self.config.activation_checkpointing {
            true => 1.0,
            false => layers,
        };
        let blocks = kept * l * d * value + at_once * dropped;
        // Logits, their log-softmax, the posterior's mixture and their gradients, in f32.
        let loss = l * k * 4.0 * 7.0;
        self.share.batch_size as f64 * (blocks + loss)
    }

    /// Whether the device has the memory that the plan needs, before any of it is taken;
    /// if not, what to do.
    pub fn check_memory(&self) -> Result<(), MemoryError> {
        let available = match self.device {
            Device::Cuda(index) => free_memory(index).map(|bytes| bytes as f64),
            _ => memory::available().map(|bytes| bytes as f64),
        };
        match available {
            Some(available) => self.check_against(available),
            None => Ok(()),
        }
    }

    /// Whether the plan needs at most `available` bytes; if not, what to do.
    pub fn check_against(&self, available: f64) -> Result<(), MemoryError> {
        let needed = self.state_bytes() + self.batch_bytes();
        if needed <= available {
            return Ok(());
        }
        let mut remedies = Vec::new();
        if self.share.batch_size > 1 {
            remedies.push("a smaller train.batch_size with a larger train.accumulation");
        }
        if !self.config.activation_checkpointing {
            remedies.push("train.activation_checkpointing: true");
        }
        if self.config.precision == Precision::F32 {
            remedies.push("train.precision: bf16");
        }
        Err(MemoryError {
            state: self.state_bytes(),
            batch: self.batch_bytes(),
            available,
            device: self.device,
            remedies,
        })
    }
}

/// Floating-point operations per second of a large matrix product, measured.
pub fn peak_flops(device: Device, precision: Precision) -> f64 {
    let _no_grad = tch::no_grad_guard();
    let (n, rounds) = match device {
        Device::Cpu => (1024, 3),
        _ => (8192, 10),
    };
    let a = Tensor::ones([n, n], (Kind::Float, device)).to_kind(precision.kind());
    let product = || a.matmul(&a).get(0).get(0).double_value(&[]);
    product(); // libraries start up
    let start = std::time::Instant::now();
    let mut last = a.shallow_clone();
    for _ in 0..rounds {
        last = a.matmul(&a);
    }
    let _ = last.get(0).get(0).double_value(&[]); // waits for the device
    let seconds = start.elapsed().as_secs_f64().max(1e-9);
    2.0 * (n as f64).powi(3) * f64::from(rounds) / seconds
}

impl fmt::Display for DiffusionPlan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = self.config;
        let batch = c.effective_batch();
        let made = format!(
            "{batch} samples ({} x {} accumulated)",
            c.batch_size, c.accumulation
        );
        match (self.samples, c.epochs) {
            (Some(samples), _) => {
                let epochs = (c.steps * batch) as f64 / samples as f64;
                let of = format!("{epochs:.1} epochs of {samples} samples");
                writeln!(f, "steps        {} of {made}: {of}", c.steps)?;
            }
            (None, Some(epochs)) => {
                writeln!(f, "steps        those of {epochs} epochs, of {made}")?;
            }
            (None, None) => writeln!(f, "steps        {} of {made}", c.steps)?,
        }
        if self.processes > 1 {
            writeln!(
                f,
                "processes    {}, each with {} samples of a step ({} x {} accumulated)",
                self.processes,
                batch / self.processes as u64,
                self.share.batch_size,
                self.share.accumulation
            )?;
        }
        writeln!(f, "data         {}", self.data)?;
        let rate = &c.learning_rate.over(c.steps);
        let course = match &rate.course {
            Course::Constant => "then constant".to_string(),
            Course::Cosine { total, minimum } => {
                format!("then along a cosine to {minimum:e} at step {total}")
            }
            Course::Plateau {
                factor,
                patience,
                window,
                ..
            } => format!(
                "then times {factor} after {patience} steps without a better mean loss over {window}"
            ),
        };
        writeln!(
            f,
            "learning rate {:e}, in {} steps to {:e}, {course} (as configured)",
            rate.start, rate.warmup, rate.peak
        )?;
        writeln!(
            f,
            "parameters   {} trained, {} frozen",
            self.trained, self.frozen
        )?;
        writeln!(
            f,
            "compute      {:.3e} FLOPs per image in training, {} on {}",
            self.flops_per_image(),
            c.precision,
            DeviceChoice(self.device)
        )?;
        write!(
            f,
            "memory       about {:.2} GiB{}: {:.2} for weights, gradients, moments and average, {:.2} for a batch",
            (self.state_bytes() + self.batch_bytes()) / GIB,
            match self.processes {
                1 => "",
                _ => " in each process",
            },
            self.state_bytes() / GIB,
            self.batch_bytes() / GIB
        )?;
        if self.processes > 1 {
            write!(f, "\nreduction    {}", self.reduction())?;
        }
        Ok(())
    }
}
