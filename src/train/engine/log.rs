//! The run's log: JSON lines and TensorBoard events.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::growing::GrowingFile;
use super::task::{Line, Measure};
use super::tensorboard::EventFile;
use crate::files::{self, FileError};
use crate::picture::{write_png, Picture};
use crate::train::TrainError;

pub const JSON_LINES: &str = "log.jsonl";

/// The name of the sample sheet of a step.
pub fn sheet_name(step: u64) -> String {
    format!("samples-{step:08}.png")
}

/// The step that a file of this name is the sample sheet of.
pub fn sheet_step(name: &OsStr) -> Option<u64> {
    let digits = name.to_str()?.strip_prefix("samples-")?;
    digits.strip_suffix(".png")?.parse().ok()
}

/// The steps since the last line of the log, and the time that they took.
#[derive(Serialize, Deserialize)]
pub struct Interval<S> {
    pub sums: S,
    /// Steps in it, skipped ones included.
    pub steps: u64,
    /// First sample of the run in it.
    first_sample: u64,
    /// Seconds that it took in processes before this one.
    seconds: f64,
    /// When it began, or this process went on with it.
    #[serde(skip, default = "Instant::now")]
    since: Instant,
}

impl<S: Default + Serialize> Interval<S> {
    /// An interval that begins now, at this sample of the run.
    pub fn new(first_sample: u64) -> Self {
        Interval {
            sums: S::default(),
            steps: 0,
            first_sample,
            seconds: 0.0,
            since: Instant::now(),
        }
    }

    fn elapsed(&self) -> f64 {
        self.seconds + self.since.elapsed().as_secs_f64()
    }

    /// Its images per second, up to this sample of the run.
    pub fn images_per_second(&self, samples: u64) -> f64 {
        (samples - self.first_sample) as f64 / self.elapsed().max(1e-9)
    }

    /// What a checkpoint keeps of it: nothing where it has no steps.
    pub(super) fn to_json(&self) -> serde_json::Result<Option<String>> {
        if self.steps == 0 {
            return Ok(None);
        }
        let mut value = serde_json::to_value(self)?;
        value["seconds"] = self.elapsed().into();
        Ok(Some(value.to_string()))
    }
}

/// Both files of the log.
pub struct Log {
    /// None where another process writes them.
    files: Option<Files>,
}

struct Files {
    folder: PathBuf,
    lines: GrowingFile,
    events: EventFile,
}

impl Log {
    /// Opens the log in `folder`; lines of steps after `step` (of a process that was
    /// killed after its last checkpoint) are removed.
    ///
    /// # Errors
    ///
    /// A log that cannot be read or written.
    pub fn open(folder: &Path, step: u64) -> Result<Self, TrainError> {
        let path = folder.join(JSON_LINES);
        remove_lines_after(&path, step)?;
        let mut lines = GrowingFile::new(path.clone());
        lines.open().map_err(FileError::writing(&path))?;
        Ok(Log {
            files: Some(Files {
                folder: folder.to_path_buf(),
                lines,
                events: EventFile::new(folder),
            }),
        })
    }

    /// The log of a process that writes none; another one does.
    pub fn of_another() -> Self {
        Log { files: None }
    }

    pub fn line(&mut self, step: u64, line: &impl Line) -> Result<(), TrainError> {
        let Some(Files { lines, events, .. }) = &mut self.files else {
            return Ok(());
        };
        let text = serde_json::to_string(line).map_err(|source| TrainError::Json {
            path: lines.path().to_path_buf(),
            source,
        })?;
        lines.append((text + "\n").as_bytes());
        for (tag, value) in line.scalars() {
            events.scalar(step, tag, value);
        }
        events.flush();
        Ok(())
    }

    pub fn validation(&mut self, step: u64, measure: &Measure, value: f64) {
        let Some(Files { lines, events, .. }) = &mut self.files else {
            return;
        };
        // A value that is no number is null.
        let shown = serde_json::Value::from(value);
        let line = format!("{{\"step\":{step},\"{}\":{shown}}}\n", measure.log);
        lines.append(line.as_bytes());
        events.scalar(step, measure.tag, value);
        events.flush();
    }

    /// A sample sheet, as `samples-STEP.png` in the run's folder and as an event. One that
    /// cannot be written is warned of: the next start makes up for it.
    pub fn sheet(&mut self, step: u64, picture: &Picture) {
        let Some(Files { folder, events, .. }) = &mut self.files else {
            return;
        };
        let path = folder.join(sheet_name(step));
        let written = write_png(&path, picture, &[])
            .map_err(|e| e.to_string())
            .and_then(|()| std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display())));
        match written {
            Ok(png) => {
                let size = [picture.height.into(), picture.width.into()];
                events.picture(step, "samples", size, &png);
                events.flush();
            }
            Err(problem) => log::warn!("{problem}; the run goes on without this sheet"),
        }
    }

    /// Ends both files.
    pub fn finish(&mut self) {
        if let Some(files) = &mut self.files {
            files.lines.finish();
            files.events.finish();
        }
    }
}

/// Removes the lines of `path` that are of steps after `step` or no lines of a log.
fn remove_lines_after(path: &Path, step: u64) -> Result<(), FileError> {
    let text = match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        text => text.map_err(FileError::reading(path))?,
    };
    let kept: Vec<u8> = text
        .split_inclusive(|&byte| byte == b'\n')
        .filter(|line| {
            let value: Option<serde_json::Value> = serde_json::from_slice(line).ok();
            let step_of = value.and_then(|v| v["step"].as_u64());
            line.ends_with(b"\n") && step_of.is_some_and(|s| s <= step)
        })
        .flatten()
        .copied()
        .collect();
    if kept == text {
        return Ok(());
    }
    files::write(path, kept)
}
