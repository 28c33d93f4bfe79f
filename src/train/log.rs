//! The run's log: JSON lines and TensorBoard events.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::error::TrainError;
use super::state::RunState;
use super::tensorboard::EventFile;
use super::trainer::StepReport;
use super::validation::Bound;
use crate::codec::usage::perplexity;
use crate::files;
use crate::picture::{write_png, Picture};

pub(super) const JSON_LINES: &str = "log.jsonl";

/// The name of the sample grid of a step.
fn grid_name(step: u64) -> String {
    format!("samples-{step:08}.png")
}

/// The step that a file of this name is the sample grid of.
pub(super) fn grid_step(name: &OsStr) -> Option<u64> {
    let digits = name.to_str()?.strip_prefix("samples-")?;
    digits.strip_suffix(".png")?.parse().ok()
}

/// Means over the steps since the last line that were not skipped; `None` where all were.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    pub step: u64,
    /// Samples seen in the run.
    pub samples: u64,
    /// Nats per token, as minimised: an estimate of the bound with the auxiliary term.
    pub loss: Option<f64>,
    /// Main term in nats per token by quartile of t, where a time of it was drawn.
    pub loss_by_quartile: [Option<f64>; 4],
    /// Share of tokens whose likeliest code is the right one.
    pub token_accuracy: Option<f64>,
    /// How many of the K codes the samples' tokens used.
    pub distinct_codes: u64,
    /// exp of the entropy of these codes.
    pub code_perplexity: Option<f64>,
    pub learning_rate: f64,
    pub gradient_norm: Option<f64>,
    pub images_per_second: f64,
    /// Share of the device's measured matrix-product rate that training uses.
    pub model_flops_utilization: f64,
    /// Steps skipped in the run.
    pub skipped: u64,
}

#[derive(Serialize)]
struct ValidationLine {
    step: u64,
    validation_nats_per_token: f64,
}

/// The roof that speed is measured against.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// Floating-point operations of training on one image.
    pub flops_per_image: f64,
    /// Such operations per second in a large matrix product on this device.
    pub peak: f64,
}

/// Sums of the steps since the last line.
pub struct Window {
    start: Instant,
    first_sample: u64,
    steps: u64,
    loss: f64,
    accuracy: f64,
    norm: f64,
    /// Sum and number of main terms by quartile of t.
    quartiles: [(f64, u64); 4],
    /// How often each code occurred.
    usage: Vec<u64>,
}

impl Window {
    /// A window that begins now, at this sample of the run.
    pub fn new(first_sample: u64) -> Self {
        Window {
            start: Instant::now(),
            first_sample,
            steps: 0,
            loss: 0.0,
            accuracy: 0.0,
            norm: 0.0,
            quartiles: [(0.0, 0); 4],
            usage: Vec::new(),
        }
    }

    pub fn add(&mut self, report: &StepReport, timesteps: usize) {
        if report.skipped {
            return;
        }
        self.steps += 1;
        self.loss += report.loss;
        self.accuracy += report.accuracy;
        self.norm += report.gradient_norm;
        self.usage.resize(report.usage.len(), 0);
        for (sum, count) in self.usage.iter_mut().zip(&report.usage) {
            *sum += count;
        }
        for (&t, &main) in report.times.iter().zip(&report.main) {
            let (sum, count) = &mut self.quartiles[t as usize * 4 / timesteps];
            *sum += main;
            *count += 1;
        }
    }

    /// The line of the log at `state`, whose last step had the learning rate `rate`.
    pub fn line(&self, state: &RunState, rate: f64, speed: &Speed) -> LogLine {
        let mean = |sum: f64| (self.steps > 0).then(|| sum / self.steps as f64);
        let images = (state.samples - self.first_sample) as f64;
        let images_per_second = images / self.start.elapsed().as_secs_f64().max(1e-9);
        LogLine {
            step: state.step,
            samples: state.samples,
            loss: mean(self.loss),
            loss_by_quartile: self
                .quartiles
                .map(|(sum, count)| (count > 0).then(|| sum / count as f64)),
            token_accuracy: mean(self.accuracy),
            distinct_codes: self.usage.iter().filter(|&&count| count > 0).count() as u64,
            code_perplexity: (self.steps > 0).then(|| perplexity(&self.usage)),
            learning_rate: rate,
            gradient_norm: mean(self.norm),
            images_per_second,
            model_flops_utilization: images_per_second * speed.flops_per_image / speed.peak,
            skipped: state.skipped,
        }
    }
}

/// Both files of the log.
pub struct Log {
    folder: PathBuf,
    lines: File,
    events: EventFile,
}

impl Log {
    /// Opens the log in `folder`; lines of steps after `step` (of a process that was
    /// killed after its last checkpoint) are removed.
    pub fn open(folder: &Path, step: u64) -> Result<Self, TrainError> {
        std::fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
        let path = folder.join(JSON_LINES);
        let error = || TrainError::io(path.clone());
        if path.exists() {
            let text = std::fs::read_to_string(&path).map_err(error())?;
            let kept: String = text
                .split_inclusive('\n')
                .filter(|line| {
                    let value: Option<serde_json::Value> = serde_json::from_str(line).ok();
                    value.is_some_and(|v| v["step"].as_u64().is_some_and(|s| s <= step))
                })
                .collect();
            if kept != text {
                files::write(&path, kept)?;
            }
        }
        let lines = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(error())?;
        let events = EventFile::create(folder).map_err(TrainError::io(folder))?;
        Ok(Log {
            folder: folder.to_path_buf(),
            lines,
            events,
        })
    }

    pub fn line(&mut self, line: &LogLine) -> std::io::Result<()> {
        self.json(line)?;
        let step = line.step;
        for (tag, value) in [
            ("train/loss", line.loss),
            ("train/token_accuracy", line.token_accuracy),
            ("train/distinct_codes", Some(line.distinct_codes as f64)),
            ("train/code_perplexity", line.code_perplexity),
            ("train/learning_rate", Some(line.learning_rate)),
            ("train/gradient_norm", line.gradient_norm),
            ("speed/images_per_second", Some(line.images_per_second)),
            (
                "speed/model_flops_utilization",
                Some(line.model_flops_utilization),
            ),
        ] {
            if let Some(value) = value {
                self.events.scalar(step, tag, value)?;
            }
        }
        for (i, value) in line.loss_by_quartile.iter().enumerate() {
            if let Some(value) = value {
                let tag = format!("train/loss_quartile_{}", i + 1);
                self.events.scalar(step, &tag, *value)?;
            }
        }
        self.events.flush()
    }

    pub fn validation(&mut self, step: u64, bound: &Bound) -> std::io::Result<()> {
        let value = bound.nats_per_token;
        self.json(&ValidationLine {
            step,
            validation_nats_per_token: value,
        })?;
        self.events
            .scalar(step, "validation/nats_per_token", value)?;
        self.events.flush()
    }

    /// A sample grid, as `samples-STEP.png` in the run's folder and as an event.
    pub fn preview(&mut self, step: u64, picture: &Picture) -> Result<(), TrainError> {
        let path = self.folder.join(grid_name(step));
        write_png(&path, picture, &[]).map_err(|e| TrainError::Checkpoint {
            path: e.path,
            problem: e.problem.to_string(),
        })?;
        let size = [picture.height.into(), picture.width.into()];
        std::fs::read(&path)
            .and_then(|png| self.events.picture(step, "samples", size, &png))
            .and_then(|()| self.events.flush())
            .map_err(TrainError::io(path))
    }

    fn json(&mut self, line: &impl Serialize) -> std::io::Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        self.lines.write_all(text.as_bytes())
    }
}
