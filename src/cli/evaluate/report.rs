//! What the measures of pictures write: a report, and sheets for the eye.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::subject::{Made, Origin, Split, SubjectArgs};
use crate::cli::progress::say;
use crate::cli::signals::STOPPED;
use crate::cli::CliResult;
use crate::evaluate::labelled::Label;
use crate::files;
use crate::picture::{sheet, write_png, Picture, Row};

/// Rows on a sheet, at most: the first of the drawn order.
const ROWS: usize = 48;
/// Rows side by side.
const COLUMNS: usize = 4;

/// `report.json`: every setting and figure.
#[derive(Serialize)]
struct Report<'a, S, A> {
    measure: &'a str,
    /// What "nearest" means.
    distance: &'a str,
    #[serde(flatten)]
    origin: &'a Origin,
    /// Pictures measured of each folder, at most.
    limit: Option<u32>,
    /// Whether a signal ended the work before all pictures were made.
    stopped: bool,
    gallery: &'a [PathBuf],
    gallery_pictures: usize,
    splits: &'a [SplitReport<S, A>],
}

/// The figures of one folder.
#[derive(Serialize)]
pub struct SplitReport<S, A> {
    pub split: String,
    /// Pictures that were to be measured.
    pub asked: usize,
    pub measured: usize,
    pub all: S,
    pub styles: BTreeMap<String, S>,
    pub pictures: Vec<A>,
}

impl<S, A> SplitReport<S, A> {
    /// Of `split` with its scores ([`scored`]) and what became of each picture.
    pub fn new(
        split: &Split,
        (all, styles): (S, BTreeMap<String, S>),
        pictures: impl Iterator<Item = A>,
    ) -> Self {
        SplitReport {
            split: split.folder.name.clone(),
            asked: split.asked,
            measured: split.pictures.len(),
            all,
            styles,
            pictures: pictures.collect(),
        }
    }

    /// The scores of all styles together, then of each, by name.
    pub fn by_style(&self) -> impl Iterator<Item = (&str, &S)> {
        let styles = self.styles.iter();
        let styles = styles.map(|(style, scores)| (style.as_str(), scores));
        std::iter::once(("all styles", &self.all)).chain(styles)
    }
}

/// A real picture by what it shows.
#[derive(Serialize)]
pub struct Real {
    file: PathBuf,
    concept: String,
    style: String,
}

impl From<&Label> for Real {
    fn from(label: &Label) -> Self {
        Real {
            file: label.file.clone(),
            concept: label.concept.clone(),
            style: label.style.clone(),
        }
    }
}

/// Scores of all `answers` to `split`, and of those of each style.
pub fn scored<A, S>(
    split: &Split,
    answers: &[A],
    score: impl Fn(Vec<&A>) -> S,
) -> (S, BTreeMap<String, S>) {
    let mut styles: BTreeMap<String, Vec<&A>> = BTreeMap::new();
    for (label, answer) in split.labels().into_iter().zip(answers) {
        styles.entry(label.style.clone()).or_default().push(answer);
    }
    let styles = styles
        .into_iter()
        .map(|(style, answers)| (style, score(answers)));
    (score(answers.iter().collect()), styles.collect())
}

/// Writes the report of a `measure` by a `distance` over a gallery of so many pictures,
/// prints where it is, and says so if a signal ended the work.
pub fn finish<S: Serialize, A: Serialize>(
    args: &SubjectArgs,
    (measure, distance): (&str, &str),
    gallery_pictures: usize,
    made: &Made,
    splits: &[SplitReport<S, A>],
) -> CliResult {
    let report = Report {
        measure,
        distance,
        origin: &made.origin,
        limit: args.limit,
        stopped: made.stopped,
        gallery: &args.gallery,
        gallery_pictures,
        splits,
    };
    let path = args.out.join("report.json");
    let mut text = serde_json::to_vec_pretty(&report)?;
    text.push(b'\n');
    files::write(&path, text)?;
    writeln!(std::io::stdout(), "wrote {}", path.display())?;
    if !made.stopped {
        return Ok(ExitCode::SUCCESS);
    }
    let asked: usize = made.splits.iter().map(|split| split.asked).sum();
    let measured: usize = made.splits.iter().map(|split| split.pictures.len()).sum();
    say(format_args!(
        "stopped by a signal: {measured} of {asked} pictures were made and measured"
    ));
    Ok(ExitCode::from(STOPPED))
}

/// Writes the sheet of a folder: `row(n)` has the real pictures to show beside the `n`-th
/// measured one, and a label.
pub fn write_sheet<'a>(
    args: &SubjectArgs,
    split: &Split,
    row: impl Fn(usize) -> (Vec<&'a Picture>, String),
) -> Result<(), Box<dyn Error>> {
    let rows: Vec<(Vec<Picture>, String)> = split
        .pictures
        .iter()
        .take(ROWS)
        .enumerate()
        .map(|(n, made)| {
            let (real, label) = row(n);
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
    if let Some(sheet) = sheet(&rows, COLUMNS) {
        write_png(
            &args.out.join(format!("{}.png", split.folder.name)),
            &sheet,
            &[],
        )?;
    }
    Ok(())
}
