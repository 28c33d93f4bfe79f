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
use crate::pipeline::{candidates_of, label, Film, Maker, Pipeline, Request, Subject, Trace};
use crate::ranks::Ranks;

/// Shown for this long, a frame of an animation.
const DELAY: Duration = Duration::from_millis(120);

/// What is written.
pub struct Outputs {
    /// Whether in the place of what is there.
    pub overwrite: bool,
    /// Where they go.
    pub folder: PathBuf,
    /// A PNG of each picture, or of each candidate.
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
            folder: args.out.clone(),
            names: names.map(|r| args.out.join(r.file_name())).collect(),
            animate: args.animate,
            trace: args.trace.clone(),
            grid: args.grid.then(|| args.out.join("grid.png")),
        }
    }

    /// Any of so many candidates for each picture may be written.
    pub fn take_candidates(&mut self, plan: &SamplePlan, candidates: usize) {
        let all = candidates_of(&plan.requests, plan.options.seed, candidates);
        let name = |request: &Request| self.folder.join(request.file_name());
        self.names = all.iter().map(name).collect();
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
/// step; the pictures made so far stay. Of several processes each makes every so-manieth
/// batch, and the first writes: a picture depends on its seed, and not on who makes it.
pub fn make_pictures(
    plan: &SamplePlan,
    outputs: &Outputs,
    pipeline: &Pipeline,
    ranks: &Ranks,
) -> CliResult {
    let stop = stop_on_signals()?;
    let stopped = || stop.load(Ordering::Relaxed);
    let mut maker = pipeline.maker(&plan.options)?;
    let batch = maker.batch();
    let steps = steps(plan, outputs, &maker, ranks.count());
    let mut progress = ProgressDisplay::new(steps, "sampling", !ranks.is_first());
    let filmed = outputs.animate || outputs.trace.is_some();
    let mut pictures = Vec::new();
    let mut done = 0;
    for (round, requests) in plan.requests.chunks(batch * ranks.count()).enumerate() {
        let mut made = Vec::new();
        let own = requests.chunks(batch).nth(ranks.rank()).unwrap_or(&[]);
        if !own.is_empty() {
            let mut film = Film::new(filmed, own.len());
            let finished = maker.make(own, &mut |step| {
                film.record(&step);
                progress.step("sampling");
                match stopped() {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            })?;
            let first = (round * ranks.count() + ranks.rank()) * batch;
            for (i, finished) in finished.into_iter().flatten().enumerate() {
                let mut shown = vec![finished.picture];
                if outputs.animate {
                    shown.extend(film.frames(i, &maker));
                }
                let stem = outputs.names[first + i].file_stem();
                if let (Some(folder), Some(stem)) = (&outputs.trace, stem) {
                    let mut step = || progress.step("tracing");
                    let states = film.states(i);
                    let trace = Trace::new(&maker, &own[i], states, &mut step)?;
                    let frame = |step: usize| maker.unfinished(&states[step]);
                    trace.write(&folder.join(stem), &shown[0], &frame)?;
                }
                made.push((first + i, packed(&shown)));
            }
        }
        let made = ranks.items_of_all(made)?;
        done += made.len();
        for (n, shown) in made.iter().filter(|_| ranks.is_first()) {
            let (name, mut shown) = (&outputs.names[*n], unpacked(shown).into_iter());
            let Some(picture) = shown.next() else {
                continue;
            };
            if !outputs.overwrite {
                // Another process may have made it meanwhile.
                refuse_to_replace(name)?;
            }
            let record = maker.record(&plan.requests[*n]);
            write_png(name, &picture, &record.texts())?;
            if outputs.animate {
                let mut frames: Vec<Picture> = shown.collect();
                if frames.is_empty() {
                    frames.push(picture.clone());
                }
                write_gif(&name.with_extension("gif"), &frames, DELAY)?;
            }
            announce(name);
            if outputs.grid.is_some() {
                pictures.push(picture);
            }
        }
        if ranks.any(stopped())? && done < plan.requests.len() {
            progress.finish();
            if ranks.is_first() {
                say(format_args!(
                    "stopped by a signal: {done} of {} pictures were made",
                    plan.requests.len()
                ));
            }
            return Ok(ExitCode::from(STOPPED));
        }
    }
    progress.finish();
    if let Some(path) = outputs.grid.as_ref().filter(|_| ranks.is_first()) {
        if let Some(sheet) = labelled(&plan.requests, plan.options.count, &pictures, pipeline) {
            write_png(path, &sheet, &[])?;
            announce(path);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Pictures as bytes: width, height and colours of each.
fn packed(pictures: &[Picture]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for picture in pictures {
        bytes.extend(picture.width.to_le_bytes());
        bytes.extend(picture.height.to_le_bytes());
        bytes.extend(&picture.rgb);
    }
    bytes
}

/// What [`packed`] made of pictures.
fn unpacked(mut bytes: &[u8]) -> Vec<Picture> {
    let mut pictures = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<8>() {
        let [a, b, c, d, e, f, g, h] = *header;
        let [width, height] = [[a, b, c, d], [e, f, g, h]].map(u32::from_le_bytes);
        let (rgb, rest) = rest.split_at(rest.len().min((width * height * 3) as usize));
        let rgb = rgb.to_vec();
        pictures.push(Picture { width, height, rgb });
        bytes = rest;
    }
    pictures
}

/// All pictures with what they were to show: a row for each subject, or where there is but
/// one picture of each, as many side by side as there are rows.
pub fn labelled(
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

/// Steps of the first process, who has most work: those of the batches, and those of traces.
fn steps(plan: &SamplePlan, outputs: &Outputs, maker: &Maker, processes: usize) -> u64 {
    let pictures = plan.requests.len();
    let batches = pictures.div_ceil(maker.batch()).div_ceil(processes);
    let traces = outputs.trace.as_ref().map_or(0, |_| pictures);
    ((batches + traces) * maker.plan().steps().len()) as u64
}

/// Prints a file's name. A reader that went away does not stop the work.
pub fn announce(path: &Path) {
    let _ = writeln!(std::io::stdout(), "{}", path.display());
}
