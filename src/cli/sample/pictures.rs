//! Making the pictures of a plan and writing their files.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tch::Tensor;

use super::film::Film;
use super::plan::Plan;
use super::repeat::chunks;
use super::{trace, SampleArgs};
use crate::cli::progress::Progress;
use crate::cli::CliResult;
use crate::codec::image_codec::to_bytes;
use crate::diffusion::SamplingPlan;
use crate::picture::{sheet, write_gif, write_png, Picture, Row};
use crate::pipeline::class_names::label;
use crate::pipeline::{Edits, Origin, Pipeline, Request, Subject};
use crate::trace::Trace;

/// `SEED-WORDS-OF-THE-PROMPT.png`, `SEED-class-INDEX.png` or `SEED.png`.
pub fn file_name(request: &Request) -> String {
    let seed = request.seed;
    match &request.subject {
        Subject::Text(prompt) => format!("{seed}-{}.png", slug(prompt)),
        Subject::Class(class) => format!("{seed}-class-{class}.png"),
        Subject::Anything => format!("{seed}.png"),
    }
}

/// The first words of `text`, joined by hyphens.
fn slug(text: &str) -> String {
    let words: String = text
        .chars()
        .map(|c| {
            if c.is_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                ' '
            }
        })
        .collect();
    let mut slug = words.split_whitespace().collect::<Vec<_>>().join("-");
    if let Some((end, _)) = slug.char_indices().nth(40) {
        slug.truncate(end);
    }
    slug.trim_end_matches('-').to_string()
}

/// Samples, decodes and writes all pictures of `plan` under `names`.
pub fn make_pictures(
    args: &SampleArgs,
    plan: &Plan,
    sampler: &SamplingPlan,
    pipeline: &Pipeline,
    names: &[PathBuf],
) -> CliResult {
    let edits = edits(plan, pipeline);
    let rounding = plan.options.rounding;
    let batch = args.batch_size as usize;
    let mut progress = Progress::new(steps(args, plan, sampler, pipeline), "sampling", false);
    let mut pictures = Vec::new();
    for (requests, names) in plan.requests.chunks(batch).zip(names.chunks(batch)) {
        let mut film = Film::new(args.animate || args.trace.is_some(), requests.len());
        let tokens = pipeline.sample_edited(sampler, requests, &edits, &mut |first, step| {
            film.record(first, &step);
            progress.step("sampling");
            ControlFlow::Continue(())
        })?;
        let decoded = to_bytes(&pipeline.decode(&tokens), rounding);
        for (i, (request, name)) in requests.iter().zip(names).enumerate() {
            let picture = composited(plan, Picture::from_tensor(&decoded.get(i as i64)));
            let texts = chunks(plan, request, pipeline.fingerprint())?;
            write_png(name, &picture, &texts)?;
            if args.animate {
                let frames = film.frames(i, pipeline, rounding).into_iter();
                let mut frames: Vec<_> = frames.map(|frame| composited(plan, frame)).collect();
                if frames.is_empty() {
                    frames.push(picture.clone());
                }
                let delay = Duration::from_millis(120);
                write_gif(&name.with_extension("gif"), &frames, delay)?;
            }
            if let (Some(folder), Some(stem)) = (&args.trace, name.file_stem()) {
                let mut step = || progress.step("tracing");
                let states = film.states(i);
                let trace = Trace::new(pipeline, sampler, request, &edits, states, &mut step)?;
                let decode = |step| composited(plan, film.frame(i, step, pipeline, rounding));
                trace::write(&folder.join(stem), &trace, &picture, pipeline, &decode)?;
            }
            announce(name);
            if args.grid {
                pictures.push(picture);
            }
        }
    }
    progress.finish();
    if args.grid {
        if let Some(sheet) = labelled(plan, args.count as usize, &pictures, pipeline) {
            let path = args.out.join("grid.png");
            write_png(&path, &sheet, &[])?;
            announce(&path);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// All pictures with what they were to show: a row for each subject, or where there is but
/// one picture of each, as many side by side as there are rows.
fn labelled(
    plan: &Plan,
    count: usize,
    pictures: &[Picture],
    pipeline: &Pipeline,
) -> Option<Picture> {
    let alone = count == 1 || plan.requests.iter().all(|r| r.subject == Subject::Anything);
    let length = if alone { 1 } else { count };
    let rows: Vec<Row> = pictures
        .chunks(length)
        .zip(plan.requests.chunks(length))
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

/// What the runs start from.
fn edits(plan: &Plan, pipeline: &Pipeline) -> Edits {
    Edits {
        origin: plan.edit.as_ref().map(|edit| Origin {
            tokens: pipeline.encode(&edit.canvas.picture),
            redrawn: edit
                .canvas
                .redrawn
                .as_deref()
                .map(|cells| Tensor::from_slice(cells).unsqueeze(0)),
        }),
        negative_prompt: plan.negative_prompt.clone(),
    }
}

/// `made` with what was kept of the picture it started from.
fn composited(plan: &Plan, made: Picture) -> Picture {
    match &plan.edit {
        Some(edit) => edit.canvas.composite(made),
        None => made,
    }
}

/// Steps of all the work: those of the groups sampled together, and those of traces.
fn steps(args: &SampleArgs, plan: &Plan, sampler: &SamplingPlan, pipeline: &Pipeline) -> u64 {
    let pictures = plan.requests.len();
    let groups = match pipeline.device() {
        tch::Device::Cpu => pictures,
        _ => pictures.div_ceil(args.batch_size as usize),
    };
    let traces = args.trace.as_ref().map_or(0, |_| pictures);
    ((groups + traces) * sampler.steps().len()) as u64
}

/// Prints a file's name. A reader that went away does not stop the work.
fn announce(path: &Path) {
    let _ = writeln!(std::io::stdout(), "{}", path.display());
}
