//! Pictures from a run's newest checkpoint, for the eye.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use tch::Device;

use super::MODEL;
use crate::checkpoint::{Checkpoint, OpenOptions};
use crate::codec::image_codec::to_bytes;
use crate::codec::Rounding;
use crate::diffusion::truncation::Truncation;
use crate::diffusion::{ReverseRule, SamplerConfig, Times};
use crate::picture::{sheet, Picture, Row};
use crate::pipeline::class_names::label;
use crate::pipeline::{Pipeline, Request, SampleError, Subject};
use crate::torch::device::Precision;
use crate::train::engine::range::{check_counts, check_most, MOST_STEPS, MOST_TOGETHER};
use crate::train::TrainError;
use crate::transformer::Conditioning;

/// Bound on the pictures of a grid, which are sampled together.
const MOST_PICTURES: u64 = 1024;

/// Sample grids: a row for each prompt or class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PreviewConfig {
    /// Checkpoints between grids; 0 for none.
    pub every: u64,
    /// What text models are asked for.
    pub prompts: Vec<String>,
    /// What class models are asked for.
    pub classes: Vec<i64>,
    /// Pictures in a row.
    pub columns: usize,
    /// Reverse steps.
    pub steps: usize,
}

impl Default for PreviewConfig {
    fn default() -> Self {
        PreviewConfig {
            every: 0,
            prompts: Vec::new(),
            classes: Vec::new(),
            columns: 4,
            steps: 25,
        }
    }
}

impl PreviewConfig {
    /// What the rows of a grid show.
    fn subjects(&self, condition: &Conditioning) -> Vec<Subject> {
        let prompts = self.prompts.iter().cloned().map(Subject::Text);
        let classes = self.classes.iter().copied().map(Subject::Class);
        let subjects: Vec<Subject> = prompts.chain(classes).collect();
        match condition {
            Conditioning::Unconditional if subjects.is_empty() => vec![Subject::Anything],
            _ => subjects,
        }
    }

    /// Whether the numbers are possible; the first that is not, by its key.
    pub fn check_numbers(&self) -> Result<(), String> {
        check_most(&[("every", self.every, MOST_STEPS)])?;
        check_counts(&[
            ("columns", self.columns as u64, MOST_PICTURES),
            ("steps", self.steps as u64, MOST_TOGETHER),
        ])?;
        let rows = self.prompts.len() + self.classes.len();
        let pictures = rows.saturating_mul(self.columns);
        if pictures as u64 > MOST_PICTURES {
            return Err(format!(
                "columns is {}: {pictures} pictures with {rows} rows, expected at most \
                 {MOST_PICTURES}",
                self.columns
            ));
        }
        Ok(())
    }

    /// Whether a model conditioned like this can show what is asked for.
    ///
    /// # Errors
    ///
    /// Nothing to show, prompts for a model of classes, classes that it does not have.
    pub fn check(&self, condition: &Conditioning) -> Result<(), TrainError> {
        if self.every == 0 {
            return Ok(());
        }
        let subjects = self.subjects(condition);
        if subjects.is_empty() {
            return Err(TrainError::Value {
                key: "train.preview.every",
                found: self.every.to_string(),
                expected: "0, or something to show: train.preview.prompts, or classes of a model \
                           of classes"
                    .into(),
            });
        }
        subjects
            .iter()
            .try_for_each(|subject| subject.check(condition))
            .map_err(failed)
    }
}

fn failed(problem: impl std::fmt::Display) -> TrainError {
    TrainError::Setting {
        key: "train.preview",
        problem: problem.to_string(),
    }
}

/// A grid of pictures by the averaged weights of the checkpoint folder `saved`, with at
/// most as many reverse steps as the model has. The noise is the same every time. None when
/// there is nothing to show, or `stop` is set meanwhile.
///
/// # Errors
///
/// A checkpoint that cannot be read, and what [`PreviewConfig::check`] refuses.
pub fn preview(
    saved: &Path,
    config: &PreviewConfig,
    device: Device,
    stop: &AtomicBool,
) -> Result<Option<Picture>, TrainError> {
    let checkpoint = Checkpoint::open(&saved.join(MODEL), &OpenOptions::default())?;
    let model = &checkpoint.config;
    let subjects = config.subjects(&model.denoiser.condition);
    let requests: Vec<Request> = subjects
        .iter()
        .flat_map(|subject| std::iter::repeat_n(subject, config.columns))
        .zip(0..)
        .map(|(subject, seed)| Request {
            subject: subject.clone(),
            seed,
        })
        .collect();
    let pipeline = Pipeline::load(&checkpoint, device, Precision::F32)?;
    let guidance = model.usual_guidance();
    let sampler = SamplerConfig {
        steps: config.steps.min(model.denoiser.timesteps as usize),
        times: Times::Even,
        guidance,
        guidance_span: None,
        truncation: Truncation::TopP(model.usual_truncation(guidance)),
        revealing: None,
        rule: ReverseRule::Exact,
    };
    let plan = pipeline.plan(&sampler).map_err(failed)?;
    let go_on = || match stop.load(Ordering::Relaxed) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    let tokens = match pipeline.sample_tokens(&plan, &requests, &mut |_, _| go_on()) {
        Err(SampleError::Stopped(_)) => return Ok(None),
        tokens => tokens.map_err(failed)?,
    };
    let pictures = pipeline.decode(&tokens); // [B, 3, H, W]
    let pictures: Vec<Picture> = (0..pictures.size()[0])
        .map(|i| Picture::from_tensor(&to_bytes(&pictures.get(i), Rounding::Nearest)))
        .collect();
    let rows: Vec<Row> = pictures
        .chunks(config.columns)
        .zip(&subjects)
        .map(|(pictures, subject)| Row {
            pictures,
            label: label(subject, model),
        })
        .collect();
    Ok(sheet(&rows, 1))
}
