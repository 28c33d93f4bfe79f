//! `vqdiffusion sample`: text, classes or nothing to PNG files.

mod args;
mod edit_args;
mod geneval;
mod pictures;
mod plan;
mod selected;
mod subject;

use self::args::Layout;
pub use self::args::SampleArgs;
use self::geneval::GenevalPrompts;
use self::pictures::{make_pictures, Outputs};
use self::plan::{planned, repeated};
use self::selected::make_selected;
use super::out_folder;
use super::CliResult;
use crate::cli::launch::join;
use crate::pipeline::Pipeline;
use crate::torch::device::use_deterministic_operators;
use crate::torch::graph::Recorder;

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
    if args.cuda_graph {
        Recorder::new(device)?; // refused before anything is read
    }
    let checkpoint = args.model.open(&args.checkpoint)?;
    args.compute.limit_threads(&checkpoint.config);
    let selected = args.selection.asked(None)?;
    if selected.is_some() && !ranks.is_alone() {
        let problem = format!(
            "--rerank is for one process, but there are {}",
            ranks.count()
        );
        return Err(problem.into());
    }
    let geneval = match args.layout {
        Some(Layout::Geneval) => Some(GenevalPrompts::read(args)?),
        None => None,
    };
    let plan = match &args.from_image {
        Some(png) => repeated(png, &args.edit)?,
        None => planned(args, geneval.as_ref(), &checkpoint.config, device)?,
    };
    // Cheap refusals first: the options, then the folder, then the weights.
    plan.check(&checkpoint.config)?;
    let mut outputs = Outputs::new(args, &plan);
    if let Some((_, candidates)) = selected {
        outputs.take_candidates(&plan, candidates);
    }
    if let Some(geneval) = &geneval {
        outputs.names = geneval.files(&args.out, plan.options.count);
    }
    if ranks.is_first() {
        out_folder::prepare(&args.out, &outputs.files(), args.overwrite)?;
    }
    if let Some(trace) = &args.trace {
        out_folder::prepare(trace, &[], args.overwrite)?;
    }

    let selection = args.selection.open(selected, device)?;
    if let Some(selection) = &selection {
        selection.check(&checkpoint.config)?;
    }
    let mut pipeline = Pipeline::load(&checkpoint, device, plan.dtype)?;
    if args.cuda_graph {
        pipeline = pipeline.with_cuda_graphs()?;
    }
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
    if let Some(geneval) = &geneval {
        geneval.prepare(&args.out)?;
    }
    match &selection {
        Some(selection) => make_selected(&plan, &outputs, &pipeline, selection),
        None => make_pictures(&plan, &outputs, &pipeline, &ranks),
    }
}
