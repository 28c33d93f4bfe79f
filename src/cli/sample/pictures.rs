//! Making the pictures of a plan and writing their files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::film::Film;
use super::plan::Plan;
use super::repeat::{chunk, subject_chunk};
use super::SampleArgs;
use crate::cli::progress::Progress;
use crate::cli::CliResult;
use crate::codec::image_codec::to_bytes;
use crate::picture::{grid, write_gif, write_png, Picture};
use crate::pipeline::{Pipeline, Request, Subject};

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
    pipeline: &Pipeline,
    names: &[PathBuf],
) -> CliResult {
    let sampler = pipeline.sampler(&plan.options.sampler)?;
    let options = serde_json::to_string(&plan.options)?;
    let batch = args.batch_size as usize;
    let groups = match pipeline.device() {
        tch::Device::Cpu => plan.requests.len(),
        _ => plan.requests.len().div_ceil(batch),
    };
    let mut progress = Progress::new(
        (groups * plan.options.sampler.steps) as u64,
        "sampling",
        false,
    );
    let mut pictures = Vec::new();
    for (requests, names) in plan.requests.chunks(batch).zip(names.chunks(batch)) {
        let mut film = Film::new(args.animate, requests.len(), plan.options.sampler.steps);
        let tokens = pipeline.sample_tokens(&sampler, requests, &mut |first, step| {
            film.record(first, &step);
            progress.step("sampling");
        })?;
        let decoded = to_bytes(&pipeline.decode(&tokens), plan.options.rounding);
        for (i, (request, name)) in requests.iter().zip(names).enumerate() {
            let picture = Picture::from_tensor(&decoded.get(i as i64));
            let mut texts = Vec::from_iter(subject_chunk(&request.subject));
            texts.extend([
                (chunk::SEED, request.seed.to_string()),
                (chunk::OPTIONS, options.clone()),
                (chunk::MODEL, pipeline.fingerprint().to_string()),
            ]);
            write_png(name, &picture, &texts)?;
            if args.animate {
                let frames = film.frames(i, pipeline, plan.options.rounding);
                write_gif(
                    &name.with_extension("gif"),
                    &frames,
                    Duration::from_millis(120),
                )?;
            }
            announce(name);
            pictures.push(picture);
        }
    }
    progress.finish();
    if args.grid {
        let columns = match args.count {
            1 => (pictures.len() as f64).sqrt().ceil() as usize,
            count => count as usize,
        };
        if let Some(sheet) = grid(&pictures, columns, 2) {
            let path = args.out.join("grid.png");
            write_png(&path, &sheet, &[])?;
            announce(&path);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a file's name. A reader that went away does not stop the work.
fn announce(path: &Path) {
    let _ = writeln!(std::io::stdout(), "{}", path.display());
}
