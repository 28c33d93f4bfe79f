//! `vqdiffusion evaluate colours`: whether pictures have the hue and the shape asked for.

use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::report::{finish, scored, write_sheet, Real, SplitReport};
use super::subject::{Split, SubjectArgs};
use crate::cli::CliResult;
use crate::evaluate::colours::{ColourAnswer, ColourScores, Objects};
use crate::evaluate::pyramid::{View, HUELESS_DISTANCE};
use crate::evaluate::retrieval::Gallery;

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
    subject: SubjectArgs,
}

/// One picture in the report.
#[derive(Serialize)]
struct Picture {
    file: std::path::PathBuf,
    concept: String,
    style: String,
    colour: Option<String>,
    hue_hit: bool,
    /// Dominant hue in degrees; null where the picture has none.
    hue: Option<f64>,
    shape_hit: bool,
    /// The real picture of the style that is nearest but for hue.
    nearest: Real,
}

pub fn run(args: &ColoursArgs) -> CliResult {
    let args = &args.subject;
    let measured = args.open()?;
    let gallery = Gallery::open(measured.gallery(), View::Hueless)?;
    let objects = Objects::new(&gallery);
    measured.check(|label| objects.check(label))?;
    let made = measured.pictures()?;
    let mut splits = Vec::new();
    for split in made
        .splits
        .iter()
        .filter(|split| !split.pictures.is_empty())
    {
        splits.push(measure(args, split, &gallery, &objects)?);
    }
    print(&splits, gallery.labels.len())?;
    let kind = ("colours", HUELESS_DISTANCE);
    finish(args, kind, gallery.labels.len(), &made, &splits)
}

fn measure(
    args: &SubjectArgs,
    split: &Split,
    gallery: &Gallery,
    objects: &Objects,
) -> Result<SplitReport<ColourScores, Picture>, Box<dyn std::error::Error>> {
    let labels = split.labels();
    let answers = objects
        .score(&split.pictures, &labels)
        .map_err(|(n, e)| split.problem(n, e))?;
    write_sheet(args, split, |n| {
        let answer = &answers[n];
        let yes_or_no = |hit: bool| if hit { "hit" } else { "miss" };
        let label = format!(
            "{}, {}: hue {}, shape {}",
            labels[n].concept,
            labels[n].style,
            yes_or_no(answer.hue_hit),
            yes_or_no(answer.shape_hit)
        );
        (vec![&gallery.pictures[answer.nearest]], label)
    })?;
    let scores = scored(split, &answers, |answers: Vec<&ColourAnswer>| {
        ColourScores::of(answers.into_iter())
    });
    let pictures = answers.iter().enumerate().map(|(n, answer)| Picture {
        file: split.files[n].clone(),
        concept: labels[n].concept.clone(),
        style: labels[n].style.clone(),
        colour: labels[n].colour.clone(),
        hue_hit: answer.hue_hit,
        hue: answer.hue,
        shape_hit: answer.shape_hit,
        nearest: (&gallery.labels[answer.nearest]).into(),
    });
    Ok(SplitReport::new(split, scores, pictures))
}

fn print(splits: &[SplitReport<ColourScores, Picture>], gallery: usize) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{gallery} real pictures, with 95 % intervals")?;
    for split in splits {
        for (style, scores) in split.by_style() {
            writeln!(
                out,
                "{} {style}: {} pictures, hue {} (chance {:.1} %), shape {} (chance {:.3} %), \
                 both {}",
                split.split,
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
