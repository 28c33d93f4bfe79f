//! Pictures from a run's newest checkpoint, for the eye.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use tch::Device;

use super::MODEL;
use crate::checkpoint::{Checkpoint, OpenOptions};
use crate::config_error::ConfigError;
use crate::picture::{sheet, Picture, Row};
use crate::pipeline::{label, Pipeline, Request, SamplingStep, Subject};
use crate::ranks::Ranks;
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
    pub fn check_numbers(&self) -> Result<(), ConfigError> {
        check_most(&[("every", self.every, MOST_STEPS)])?;
        check_counts(&[
            ("columns", self.columns as u64, MOST_PICTURES),
            ("steps", self.steps as u64, MOST_TOGETHER),
        ])?;
        let rows = self.prompts.len() + self.classes.len();
        let pictures = rows.saturating_mul(self.columns);
        if pictures as u64 > MOST_PICTURES {
            let found = format!("{}: {pictures} pictures with {rows} rows", self.columns);
            let expected = format!("at most {MOST_PICTURES}");
            return Err(ConfigError::value("columns", found, expected));
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
/// most as many reverse steps as the model has. The noise is the same every time; each picture
/// is made by one of the processes, and the first has the grid. None when there is nothing to
/// show, or `stop` is set meanwhile.
///
/// # Errors
///
/// A checkpoint that cannot be read, and what [`PreviewConfig::check`] refuses.
pub fn preview(
    saved: &Path,
    config: &PreviewConfig,
    device: Device,
    ranks: &Ranks,
    stop: &AtomicBool,
) -> Result<Option<Picture>, TrainError> {
    let checkpoint = Checkpoint::open(&saved.join(MODEL), &OpenOptions::default())?;
    let model = &checkpoint.config;
    let subjects = config.subjects(&model.denoiser.condition);
    let pipeline = Pipeline::load(&checkpoint, device, Precision::F32)?;
    let options = pipeline
        .usual()
        .steps(config.steps.min(model.denoiser.timesteps as usize))
        .count(config.columns)
        .batch_size(subjects.len() * config.columns);
    let requests = options.requests(&subjects).map_err(failed)?;
    let own: Vec<(usize, Request)> = requests
        .into_iter()
        .enumerate()
        .filter(|(n, _)| ranks.does(*n))
        .collect();
    let mut maker = pipeline.maker(&options).map_err(failed)?;
    let mut observe = |_: SamplingStep| match stop.load(Ordering::Relaxed) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    let mut made = Vec::new();
    for batch in own.chunks(maker.batch()) {
        let requests: Vec<Request> = batch.iter().map(|(_, request)| request.clone()).collect();
        let Some(pictures) = maker.make(&requests, &mut observe).map_err(failed)? else {
            break;
        };
        let numbered = batch.iter().zip(pictures);
        made.extend(numbered.map(|((n, _), made)| (*n, made.picture.rgb)));
    }
    if ranks.any(made.len() < own.len())? {
        return Ok(None); // stopped
    }
    let [height, width] = model.picture_size().map(|side| side as u32);
    let pictures: Vec<Picture> = ranks
        .items_of_all(made)?
        .into_iter()
        .map(|(_, rgb)| Picture { width, height, rgb })
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
