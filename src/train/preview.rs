//! Pictures from a run's newest checkpoint, for the eye.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tch::Device;

use super::checkpoint::MODEL;
use super::error::TrainError;
use crate::checkpoint::{Checkpoint, OpenOptions};
use crate::codec::image_codec::to_bytes;
use crate::codec::Rounding;
use crate::diffusion::truncation::Truncation;
use crate::diffusion::{ReverseRule, SamplerConfig};
use crate::picture::{sheet, Picture, Row};
use crate::pipeline::class_names::label;
use crate::pipeline::{Pipeline, Request, Subject};
use crate::torch::device::Precision;
use crate::transformer::Conditioning;

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

/// A grid of pictures by the averaged weights of the checkpoint folder `saved`. The
/// noise is the same every time.
///
/// # Errors
///
/// Prompts that the tokenizer refuses, classes that the model does not have, more steps
/// than it has.
pub fn preview(
    saved: &Path,
    config: &PreviewConfig,
    device: Device,
) -> Result<Option<Picture>, TrainError> {
    let checkpoint = Checkpoint::open(&saved.join(MODEL), &OpenOptions::default())?;
    let model = &checkpoint.config;
    let subjects: Vec<Subject> = match model.denoiser.condition {
        Conditioning::Text { .. } => config.prompts.iter().cloned().map(Subject::Text).collect(),
        Conditioning::Class { .. } => config.classes.iter().copied().map(Subject::Class).collect(),
        Conditioning::Unconditional => vec![Subject::Anything],
    };
    let requests: Vec<Request> = subjects
        .iter()
        .flat_map(|subject| std::iter::repeat_n(subject, config.columns))
        .zip(0..)
        .map(|(subject, seed)| Request {
            subject: subject.clone(),
            seed,
        })
        .collect();
    if requests.is_empty() {
        return Ok(None);
    }
    let pipeline = Pipeline::load(&checkpoint, device, Precision::F32)?;
    let guidance = model.usual_guidance();
    let sampler = SamplerConfig {
        steps: config.steps.min(model.denoiser.timesteps as usize),
        guidance,
        truncation: Truncation::TopP(model.usual_truncation(guidance)),
        revealing: None,
        rule: ReverseRule::Exact,
    };
    let failed = |e: &dyn std::fmt::Display| TrainError::Mismatch(format!("train.preview: {e}"));
    let sampler = pipeline.sampler(&sampler).map_err(|e| failed(&e))?;
    let tokens = pipeline
        .sample_tokens(&sampler, &requests, &mut |_, _| ())
        .map_err(|e| failed(&e))?;
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
