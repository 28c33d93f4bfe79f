//! Making the best of several candidates.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use super::pictures::{announce, labelled, Outputs};
use super::plan::SamplePlan;
use crate::cli::out_folder::refuse_to_replace;
use crate::cli::progress::{say, ProgressDisplay};
use crate::cli::signals::{stop_on_signals, STOPPED};
use crate::cli::CliResult;
use crate::picture::write_png;
use crate::pipeline::{Pipeline, Request, Selection};

/// Makes the candidates of each subject of `plan` and writes the best of them, as many as
/// pictures are asked for; the name of each has its own seed. A signal ends the work before
/// the next step; the pictures of the subjects before stay.
pub fn make_selected(
    plan: &SamplePlan,
    outputs: &Outputs,
    pipeline: &Pipeline,
    selection: &Selection,
) -> CliResult {
    let stop = stop_on_signals()?;
    let mut maker = pipeline.maker(&plan.options)?;
    let first_seed = plan.options.seed;
    let batch = maker.batch();
    let groups: Vec<&[Request]> = plan.requests.chunks(plan.options.count.max(1)).collect();
    let batches: usize = groups
        .iter()
        .map(|group| (group.len() * selection.candidates).div_ceil(batch))
        .sum();
    let steps = batches * maker.plan().steps().len();
    let mut progress = ProgressDisplay::new(steps as u64, "sampling", false);
    let (mut pictures, mut written) = (Vec::new(), 0);
    for group in groups {
        let candidates = selection.candidates(group, first_seed);
        let best = selection.best(&mut maker, &candidates, group.len(), &mut |_| {
            progress.step("sampling");
            match stop.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        let Some(best) = best else {
            progress.finish();
            say(format_args!(
                "stopped by a signal: {written} of {} pictures were made",
                plan.requests.len()
            ));
            return Ok(ExitCode::from(STOPPED));
        };
        for made in best {
            let name = outputs.folder.join(made.record.request.file_name());
            if !outputs.overwrite {
                refuse_to_replace(&name)?;
            }
            made.write_png(&name)?;
            written += 1;
            announce(&name);
            if outputs.grid.is_some() {
                pictures.push(made.picture);
            }
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
