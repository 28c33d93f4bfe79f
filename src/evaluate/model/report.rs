//! What is found of a model, and the table of its row beside the published ones.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::protocol::{ModelProtocol, PublishedRow};
use crate::diffusion::sampler::Calls;
use crate::diffusion::truncation::Truncation;
use crate::evaluate::pictures::measure::Memorisation;
use crate::evaluate::pictures::networks::Described;
use crate::evaluate::pictures::report::{Compared, Controls, PictureSetReport, ReferenceReport};
use crate::pipeline::{PictureSettings, Selection};

/// The real pictures, or what a file says of them.
pub type RealsReport = ReferenceReport;

/// Everything about the measured model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelReport {
    pub measure: &'static str,
    pub version: &'static str,
    pub protocol: ModelProtocol,
    /// SHA-256 of what decides the figures besides model and weights.
    pub protocol_sha256: String,
    pub checkpoint: PathBuf,
    /// SHA-256 of its weights.
    pub model_sha256: String,
    pub samples: SamplesReport,
    pub reals: RealsReport,
    pub networks: Vec<Described>,
    pub runs: Vec<RunReport>,
    /// Each figure over the runs.
    pub summary: BTreeMap<&'static str, Spread>,
    pub controls: Controls,
}

/// How the pictures were made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SamplesReport {
    /// Pictures of a run.
    pub pictures: usize,
    pub settings: PictureSettings,
    /// Evaluations of the network for a picture.
    pub network_calls: usize,
    /// Further ones at the positions of a few steps alone.
    #[serde(skip_serializing_if = "crate::evaluate::protocol::is_zero")]
    pub local_calls: usize,
    /// For a picture that is kept, where this process or one before it made some.
    pub seconds_per_picture: Option<f64>,
    /// SHA-256 of the weights that ranked candidates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ranking_sha256: Option<String>,
}

impl SamplesReport {
    /// Of `runs`, at least one.
    pub fn new(
        runs: &[RunReport],
        settings: PictureSettings,
        calls: Calls,
        selection: Option<&Selection>,
    ) -> Self {
        let candidates = selection.map_or(1, |s| s.candidates);
        let seconds: Vec<f64> = runs.iter().filter_map(|r| r.seconds_per_picture).collect();
        let mean = seconds.iter().sum::<f64>() / seconds.len().max(1) as f64;
        SamplesReport {
            pictures: runs.first().map_or(0, |run| run.samples.pictures),
            settings,
            network_calls: calls.full * candidates,
            local_calls: calls.local * candidates,
            seconds_per_picture: (!seconds.is_empty()).then_some(mean),
            ranking_sha256: selection.map(|s| s.fingerprint().to_string()),
        }
    }
}

/// The figures of pictures of one run of seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunReport {
    pub first_seed: u64,
    pub samples: PictureSetReport,
    pub seconds_per_picture: Option<f64>,
    #[serde(flatten)]
    pub compared: Compared,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memorisation: Option<Memorisation>,
}

/// A figure over runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub mean: f64,
    /// The standard deviation, where there are several runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<f64>,
    /// Of each run.
    pub values: Vec<f64>,
}

impl Spread {
    fn new(values: Vec<f64>) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Spread {
            mean,
            spread: (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt()),
            values,
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.spread {
            Some(spread) => write!(f, "{:.2} ± {spread:.2}", self.mean),
            None => write!(f, "{:.2}", self.mean),
        }
    }
}

impl RunReport {
    /// Each figure over `runs`.
    pub fn summary(runs: &[RunReport]) -> BTreeMap<&'static str, Spread> {
        let mut values: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
        for run in runs {
            let memorisation = run.memorisation.as_ref().map(|m| ("authpct", m.authpct));
            let named = run.compared.figures.named();
            for (name, value) in named.into_iter().chain(memorisation) {
                values.entry(name).or_default().push(value);
            }
        }
        let spread = values.into_iter().map(|(name, of)| (name, Spread::new(of)));
        spread.collect()
    }
}

/// Columns of the table: a figure and its heading.
const COLUMNS: [(&str, &str); 12] = [
    ("fid", "FID"),
    ("fid_infinity", "FID∞"),
    ("fd_dinov2", "FD-DINOv2"),
    ("cmmd", "CMMD"),
    ("kid_x1000", "KID×10³"),
    ("precision", "precision"),
    ("recall", "recall"),
    ("density", "density"),
    ("coverage", "coverage"),
    ("inception_score", "IS"),
    ("clip_score", "CLIP score"),
    ("authpct", "AuthPct"),
];

/// A row of the table: what it is of, and its cells by column.
struct TableRow {
    name: String,
    cells: Vec<Option<String>>,
}

impl ModelReport {
    /// The protocol in the header, our row, the controls and the published rows; those of
    /// another protocol are marked, with what is unlike.
    fn table(&self) -> Vec<TableRow> {
        let known = |name: &str| {
            let published = |row: &PublishedRow| row.figures.contains_key(name);
            self.summary.contains_key(name) || self.protocol.published.iter().any(published)
        };
        let columns: Vec<(&str, &str)> = COLUMNS
            .into_iter()
            .filter(|(name, _)| known(name))
            .collect();
        let row = |name: String, cell: &dyn Fn(&str) -> Option<String>| TableRow {
            name,
            cells: columns.iter().map(|(name, _)| cell(name)).collect(),
        };
        let heading = |name: &str| {
            let found = columns.iter().find(|(n, _)| *n == name);
            found.map(|(_, heading)| heading.to_string())
        };
        let mut rows = vec![row("model".into(), &heading)];
        for published in &self.protocol.published {
            let mark = if published.unlike.is_some() { " *" } else { "" };
            rows.push(row(format!("{}{mark}", published.model), &|name| {
                published
                    .figures
                    .get(name)
                    .map(|value| format!("{value:.2}"))
            }));
        }
        let file = self.checkpoint.file_name().unwrap_or_default();
        rows.push(row(file.to_string_lossy().into_owned(), &|name| {
            self.summary.get(name).map(Spread::to_string)
        }));
        let controls = [
            ("reals, half against half", &self.controls.halves),
            ("reals through the codec", &self.controls.reconstructions),
        ];
        for (name, figures) in controls {
            let Some(figures) = figures else { continue };
            rows.push(row(name.into(), &|column| {
                let value = match column {
                    "fid" => figures.fid,
                    "fd_dinov2" => figures.fd_dinov2,
                    "cmmd" => figures.cmmd,
                    "kid_x1000" => figures.kid.map(|kid| 1000.0 * kid.mean),
                    _ => None,
                };
                value.map(|value| format!("{value:.2}"))
            }));
        }
        let shuffled = self
            .runs
            .first()
            .and_then(|run| run.compared.shuffled_captions.as_ref());
        if let Some(shuffled) = shuffled {
            rows.push(row("captions of other pictures".into(), &|column| {
                let score = shuffled.clip_score.score_100;
                (column == "clip_score").then(|| format!("{score:.2}"))
            }));
        }
        rows
    }
}

/// In words.
pub fn truncation(truncation: Truncation) -> String {
    match truncation {
        Truncation::Off => "no truncation".into(),
        Truncation::TopP(rate) => format!("truncation {rate}"),
        Truncation::TopK(codes) => format!("the {codes} likeliest codes"),
    }
}

impl fmt::Display for ModelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = &self.protocol;
        let sampler = &self.samples.settings.sampler;
        writeln!(f, "{}", protocol.name)?;
        let against = match &self.reals {
            ReferenceReport::Pictures(set) => format!("{} real ones", set.pictures),
            ReferenceReport::Statistics { statistics, .. } => {
                format!("the statistics {}", statistics.display())
            }
        };
        writeln!(
            f,
            "{} pictures against {against}, {} pixels; protocol {}",
            self.samples.pictures,
            protocol.reals.crop,
            &self.protocol_sha256[..16],
        )?;
        writeln!(
            f,
            "{} steps, {} network calls a picture, guidance {}, {}, {} run(s)",
            sampler.steps,
            self.samples.network_calls,
            sampler.guidance,
            truncation(sampler.truncation),
            self.runs.len(),
        )?;
        writeln!(f)?;
        let rows = self.table();
        let columns = rows[0].cells.len();
        let wide = |text: &str| text.chars().count();
        let first = rows.iter().map(|row| wide(&row.name)).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = rows
                .iter()
                .map(|row| row.cells[column].as_deref().unwrap_or("–"));
            cells.map(wide).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &rows {
            write!(f, "{:<first$}", row.name)?;
            for (cell, width) in row.cells.iter().zip(&widths) {
                write!(f, "  {:>width$}", cell.as_deref().unwrap_or("–"))?;
            }
            writeln!(f)?;
        }
        let published = &protocol.published;
        if !published.is_empty() {
            writeln!(f)?;
        }
        for row in published {
            match &row.unlike {
                Some(unlike) => writeln!(f, "* {}: {unlike} ({})", row.model, row.source)?,
                None => writeln!(f, "{}: {}", row.model, row.source)?,
            }
        }
        Ok(())
    }
}
