//! `vqdiffusion evaluate colours`: whether pictures have the hue and the shape asked for.

use std::io::Write;

use clap::Args;

use super::emoji_args::{Asking, EmojiArgs, NamedMeasure};
use crate::cli::CliResult;
use crate::evaluate::emoji::asked::LabelledSet;
use crate::evaluate::emoji::colours::{measure, ColourAnswer, ColourScores, Objects};
use crate::evaluate::emoji::gallery::Gallery;
use crate::evaluate::emoji::pyramid::{View, HUELESS_DISTANCE};
use crate::evaluate::emoji::scores::LabelledScores;
use crate::evaluate::report::{write_sheet, SetReport};
use crate::evaluate::EvaluateError;

#[derive(Args)]
#[command(after_help = "\
Examples:
  vqdiffusion evaluate colours --checkpoint model.safetensors \\
      --gallery data/emoji/{train,heldout_pairs,heldout_colours} \\
      --prompts data/emoji/heldout_colours --steps 50 --out colours
  vqdiffusion evaluate colours --pictures retrieval/heldout_colours \\
      --gallery data/emoji/train --out colours")]
pub struct ColoursArgs {
    #[command(flatten)]
    emoji: EmojiArgs,
}

pub fn run(args: &ColoursArgs) -> CliResult {
    let args = &args.emoji;
    let measured = args.open(Asking::default())?;
    let gallery = Gallery::open(&measured.gallery, View::Hueless)?;
    let objects = Objects::new(&gallery);
    measured.asked.check(|label| objects.check(label))?;
    let (sets, protocol) = args.pictures(measured)?;
    let mut reports = Vec::new();
    for set in sets.iter().filter(|set| !set.pictures.is_empty()) {
        let (answers, scores) = measure(set, &objects)?;
        sheet(args, set, &answers, &gallery)?;
        reports.push(set.report(scores));
    }
    print(&reports, gallery.labels.len())?;
    let kind = NamedMeasure {
        measure: "colours",
        distance: HUELESS_DISTANCE,
    };
    args.finish(kind, &protocol, &gallery, &reports, &sets)
}

/// The sheet of `set`: each picture and the nearest real one of its style.
fn sheet(
    args: &EmojiArgs,
    set: &LabelledSet,
    answers: &[ColourAnswer],
    gallery: &Gallery,
) -> Result<(), EvaluateError> {
    let yes_or_no = |hit: bool| if hit { "hit" } else { "miss" };
    let pictures = set.pictures.iter().zip(set.labels()).zip(answers);
    let rows = pictures.map(|((made, label), answer)| {
        let text = format!(
            "{}, {}: hue {}, shape {}",
            label.concept,
            label.style,
            yes_or_no(answer.hue_hit),
            yes_or_no(answer.shape_hit)
        );
        (made, vec![&gallery.pictures[answer.nearest]], text)
    });
    write_sheet(&args.sheet(&set.folder.name), rows)
}

fn print<P>(
    reports: &[SetReport<LabelledScores<ColourScores, P>>],
    gallery: usize,
) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{gallery} real pictures, with 95 % intervals")?;
    for report in reports {
        for (style, scores) in report.scores.by_style() {
            writeln!(
                out,
                "{} {style}: {} pictures, hue {} (chance {:.1} %), shape {} (chance {:.3} %), \
                 both {}",
                report.split,
                scores.hue.of,
                scores.hue,
                100.0 * scores.hue_chance,
                scores.shape,
                100.0 * scores.shape_chance,
                scores.both
            )?;
        }
    }
    Ok(())
}
