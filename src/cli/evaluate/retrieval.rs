//! `vqdiffusion evaluate retrieval`: whether the nearest real picture is the wanted one.

use std::io::Write;

use clap::Args;

use super::emoji_args::{EmojiArgs, NamedMeasure};
use crate::cli::CliResult;
use crate::evaluate::emoji::asked::LabelledSet;
use crate::evaluate::emoji::gallery::Gallery;
use crate::evaluate::emoji::pyramid::{View, RGB_DISTANCE};
use crate::evaluate::emoji::retrieval::{absent, measure, Answer, RetrievalScores};
use crate::evaluate::emoji::scores::LabelledScores;
use crate::evaluate::report::{write_sheet, SetReport};
use crate::evaluate::EvaluateError;

#[derive(Args)]
#[command(after_help = "\
Examples:
  vqdiffusion evaluate retrieval --checkpoint model.safetensors \\
      --gallery data/emoji/{train,heldout_pairs,heldout_colours} \\
      --prompts data/emoji/{train,heldout_pairs} --limit 500 --steps 50 --out retrieval
  vqdiffusion evaluate retrieval --pictures made --gallery data/emoji/train --out retrieval")]
pub struct RetrievalArgs {
    #[command(flatten)]
    emoji: EmojiArgs,
}

pub fn run(args: &RetrievalArgs) -> CliResult {
    let args = &args.emoji;
    let measured = args.open()?;
    let gallery = Gallery::open(&measured.gallery, View::Rgb)?;
    measured.asked.check(|label| match gallery.shows(label) {
        true => Ok(()),
        false => Err(absent(label)),
    })?;
    let (sets, protocol) = args.pictures(measured)?;
    let mut reports = Vec::new();
    for set in sets.iter().filter(|set| !set.pictures.is_empty()) {
        let (answers, scores) = measure(set, &gallery)?;
        sheet(args, set, &answers, &gallery)?;
        reports.push(set.report(scores));
    }
    print(&reports, gallery.labels.len())?;
    let kind = NamedMeasure {
        measure: "retrieval",
        distance: RGB_DISTANCE,
    };
    args.finish(kind, &protocol, gallery.labels.len(), &reports, &sets)
}

/// The sheet of `set`: each picture, the nearest real one and the wanted one.
fn sheet(
    args: &EmojiArgs,
    set: &LabelledSet,
    answers: &[Answer],
    gallery: &Gallery,
) -> Result<(), EvaluateError> {
    let pictures = set.pictures.iter().zip(set.labels()).zip(answers);
    let rows = pictures.map(|((made, label), answer)| {
        let nearest = &gallery.labels[answer.nearest];
        let text = match answer.rank {
            1 => format!("{}, {}: hit", label.concept, label.style),
            rank => format!(
                "{}, {}: found {}, {}; rank {rank}",
                label.concept, label.style, nearest.concept, nearest.style
            ),
        };
        let real = [answer.nearest, answer.wanted].map(|place| &gallery.pictures[place]);
        (made, real.to_vec(), text)
    });
    write_sheet(&args.sheet(&set.folder.name), rows)
}

fn print<P>(
    reports: &[SetReport<LabelledScores<RetrievalScores, P>>],
    gallery: usize,
) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(
        out,
        "nearest of {gallery} real pictures, with 95 % intervals"
    )?;
    for report in reports {
        for (style, scores) in report.scores.by_style() {
            writeln!(
                out,
                "{} {style}: {} pictures, top-1 {}, top-5 {}, concept {}, style {}, \
                 median rank {}, chance {:.3} %",
                report.split,
                scores.top1.of,
                scores.top1,
                scores.top5,
                scores.concept,
                scores.style,
                scores.median_rank,
                100.0 * scores.chance
            )?;
        }
    }
    Ok(())
}
