//! What a measure writes: a report of every setting and figure, and sheets for the eye.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::EvaluateError;
use super::protocol::Protocol;
use crate::files::{self, FileError};
use crate::picture::{sheet, write_png, Picture, Row};

/// The report's file in the folder of results.
pub const REPORT: &str = "report.json";
/// Rows on a sheet, at most.
pub const ROWS: usize = 48;
/// Rows side by side.
const COLUMNS: usize = 4;

/// Every setting and figure of a measure: what it is (`M`), how the pictures came about,
/// what they are compared with (`R`), and the scores of each set of them (`S`).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report<'a, M, R, S> {
    #[serde(flatten)]
    pub measure: M,
    #[serde(flatten)]
    pub protocol: &'a Protocol,
    #[serde(flatten)]
    pub references: R,
    pub splits: &'a [SetReport<S>],
}

/// The figures of one set of pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SetReport<S> {
    /// The set's name.
    pub split: String,
    /// Pictures that were to be measured.
    pub asked: usize,
    pub measured: usize,
    #[serde(flatten)]
    pub scores: S,
}

impl<M: Serialize, R: Serialize, S: Serialize> Report<'_, M, R, S> {
    /// Writes `report.json` into `folder` and returns its path.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<PathBuf, EvaluateError> {
        let path = folder.join(REPORT);
        let text = serde_json::to_vec_pretty(self);
        let mut text = text.map_err(|e| FileError::writing(&path)(e.into()))?;
        text.push(b'\n');
        files::write(&path, text)?;
        Ok(path)
    }
}

/// Writes a sheet of `rows` as a PNG: of each a made picture, the real ones to see beside
/// it, which are scaled to its size, and a label.
///
/// # Errors
///
/// A file that cannot be written.
pub fn write_sheet<'a>(
    path: &Path,
    rows: impl Iterator<Item = (&'a Picture, Vec<&'a Picture>, String)>,
) -> Result<(), EvaluateError> {
    let rows: Vec<(Vec<Picture>, String)> = rows
        .take(ROWS)
        .map(|(made, real, label)| {
            let real = real.into_iter().map(|p| p.cover(made.width, made.height));
            (std::iter::once(made.clone()).chain(real).collect(), label)
        })
        .collect();
    let rows: Vec<Row> = rows
        .iter()
        .map(|(pictures, label)| Row {
            pictures,
            label: label.clone(),
        })
        .collect();
    match sheet(&rows, COLUMNS) {
        Some(sheet) => Ok(write_png(path, &sheet, &[])?),
        None => Ok(()),
    }
}
