//! `vqdiffusion sample`: text, classes or nothing to PNG files.

mod args;
mod edit_args;
mod pictures;
mod plan;
mod subject;

pub use self::args::SampleArgs;
use self::pictures::{make_pictures, Outputs};
use self::plan::{planned, repeated};
use super::out_folder;
use super::CliResult;
use crate::cli::launch::join;
use crate::pipeline::Pipeline;
use crate::torch::device::use_deterministic_operators;

pub fn run(args: &SampleArgs) -> CliResult {
    if let Some(code) = args.launch.run()? {
        return Ok(code);
    }
    let ranks = join()?;
    if args.trace.is_some() && !ranks.is_alone() {
        let problem = format!(
            "--trace is for one process, but there are {}",
            ranks.count()
        );
        return Err(problem.into());
    }
    if args.deterministic {
        use_deterministic_operators();
    }
    let device = args.compute.set_up()?;
    let checkpoint = args.model.open(&args.checkpoint)?;
    args.compute.limit_threads(&checkpoint.config);
    let plan = match &args.from_image {
        Some(png) => repeated(png, &args.edit)?,
        None => planned(args, &checkpoint.config, device)?,
    };
    // Cheap refusals first: the options, then the folder, then the weights.
    plan.check(&checkpoint.config)?;
    let outputs = Outputs::new(args, &plan);
    if ranks.is_first() {
        out_folder::prepare(&args.out, &outputs.files(), args.overwrite)?;
    }
    if let Some(trace) = &args.trace {
        out_folder::prepare(trace, &[], args.overwrite)?;
    }

    let pipeline = Pipeline::load(&checkpoint, device, plan.dtype)?;
    log::info!("{}", pipeline.report());
    if let (Some(wanted), Some(png)) = (&plan.wanted_model, &args.from_image) {
        if wanted != pipeline.fingerprint() {
            return Err(format!(
                "{}: made with a model of SHA-256 {wanted}, but {} has {}",
                png.display(),
                args.checkpoint.display(),
                pipeline.fingerprint()
            )
            .into());
        }
    }
    make_pictures(&plan, &outputs, &pipeline, &ranks)
}
