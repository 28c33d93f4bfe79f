//! Making the pictures of a plan and writing their files.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::args::SampleArgs;
use super::plan::SamplePlan;
use crate::cli::out_folder::refuse_to_replace;
use crate::cli::progress::{say, ProgressDisplay};
use crate::cli::signals::{stop_on_signals, STOPPED};
use crate::cli::CliResult;
use crate::picture::{sheet, write_gif, write_png, Picture, Row};
use crate::pipeline::{label, Film, Maker, Pipeline, Request, Subject, Trace};

/// Shown for this long, a frame of an animation.
const DELAY: Duration = Duration::from_millis(120);

/// What is written.
pub struct Outputs {
    /// Whether in the place of what is there.
    pub overwrite: bool,
    /// A PNG of each picture.
    pub names: Vec<PathBuf>,
    /// Whether also a GIF beside it.
    pub animate: bool,
    /// A folder for a trace of each picture.
    pub trace: Option<PathBuf>,
    /// A sheet of all.
    pub grid: Option<PathBuf>,
}

impl Outputs {
    pub fn new(args: &SampleArgs, plan: &SamplePlan) -> Self {
        let names = plan.requests.iter();
        Outputs {
            overwrite: args.overwrite,
            names: names.map(|r| args.out.join(r.file_name())).collect(),
            animate: args.animate,
            trace: args.trace.clone(),
            grid: args.grid.then(|| args.out.join("grid.png")),
        }
    }

    /// Everything that must not be there yet.
    pub fn files(&self) -> Vec<PathBuf> {
        let films = self.names.iter().filter(|_| self.animate);
        let films = films.map(|name| name.with_extension("gif"));
        let traces = self.trace.iter().flat_map(|folder| {
            let stems = self.names.iter().filter_map(|name| name.file_stem());
            stems.map(|stem| folder.join(stem))
        });
        let names = self.names.iter().cloned();
        names
            .chain(films)
            .chain(self.grid.clone())
            .chain(traces)
            .collect()
    }
}

/// Samples, decodes and writes all pictures of `plan`. A signal ends the work before the next
/// step; the pictures made so far stay.
pub fn make_pictures(plan: &SamplePlan, outputs: &Outputs, pipeline: &Pipeline) -> CliResult {
    let stop = stop_on_signals()?;
    let stopped = || stop.load(Ordering::Relaxed);
    let mut maker = pipeline.maker(&plan.options)?;
    let steps = steps(plan, outputs, &maker);
    let mut progress = ProgressDisplay::new(steps, "sampling", false);
    let mut pictures = Vec::new();
    let mut written = 0;
    let batch = maker.batch();
    for (requests, names) in plan.requests.chunks(batch).zip(outputs.names.chunks(batch)) {
        let filmed = outputs.animate || outputs.trace.is_some();
        let mut film = Film::new(filmed, requests.len());
        let made = maker.make(requests, &mut |step| {
            film.record(&step);
            progress.step("sampling");
            match stopped() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        for (i, (made, name)) in made.into_iter().flatten().zip(names).enumerate() {
            if !outputs.overwrite {
                // Another process may have made it meanwhile.
                refuse_to_replace(name)?;
            }
            made.write_png(name)?;
            written += 1;
            if outputs.animate {
                let mut frames = film.frames(i, &maker);
                if frames.is_empty() {
                    frames.push(made.picture.clone());
                }
                write_gif(&name.with_extension("gif"), &frames, DELAY)?;
            }
            if let (Some(folder), Some(stem)) = (&outputs.trace, name.file_stem()) {
                let mut step = || progress.step("tracing");
                let states = film.states(i);
                let trace = Trace::new(&maker, &requests[i], states, &mut step)?;
                let frame = |step: usize| maker.unfinished(&states[step]);
                trace.write(&folder.join(stem), &made.picture, &frame)?;
            }
            announce(name);
            if outputs.grid.is_some() {
                pictures.push(made.picture);
            }
        }
        if stopped() && written < plan.requests.len() {
            progress.finish();
            say(format_args!(
                "stopped by a signal: {written} of {} pictures were made",
                plan.requests.len()
            ));
            return Ok(ExitCode::from(STOPPED));
        }
    }
    progress.finish();
    if let Some(path) = &outputs.grid {
        if let Some(sheet) = labelled(&plan.requests, plan.options.count, &pictures, pipeline) {
            write_png(path, &sheet, &[])?;
            announce(path);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// All pictures with what they were to show: a row for each subject, or where there is but
/// one picture of each, as many side by side as there are rows.
fn labelled(
    requests: &[Request],
    count: usize,
    pictures: &[Picture],
    pipeline: &Pipeline,
) -> Option<Picture> {
    let alone = count == 1 || requests.iter().all(|r| r.subject == Subject::Anything);
    let length = if alone { 1 } else { count };
    let rows: Vec<Row> = pictures
        .chunks(length)
        .zip(requests.chunks(length))
        .map(|(pictures, requests)| Row {
            pictures,
            label: label(&requests[0].subject, pipeline.config()),
        })
        .collect();
    let columns = if alone {
        (rows.len() as f64).sqrt().ceil() as usize
    } else {
        1
    };
    sheet(&rows, columns)
}

/// Steps of all the work: those of the batches, and those of traces.
fn steps(plan: &SamplePlan, outputs: &Outputs, maker: &Maker) -> u64 {
    let pictures = plan.requests.len();
    let batches = pictures.div_ceil(maker.batch());
    let traces = outputs.trace.as_ref().map_or(0, |_| pictures);
    ((batches + traces) * maker.plan().steps().len()) as u64
}

/// Prints a file's name. A reader that went away does not stop the work.
fn announce(path: &Path) {
    let _ = writeln!(std::io::stdout(), "{}", path.display());
}
