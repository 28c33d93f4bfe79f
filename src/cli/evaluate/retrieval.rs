//! `vqdiffusion evaluate retrieval`: whether the nearest real picture is the wanted one.

use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::report::{finish, scored, write_sheet, Real, SplitReport};
use super::subject::{Split, SubjectArgs};
use crate::cli::CliResult;
use crate::evaluate::labelled::Label;
use crate::evaluate::pyramid::{View, RGB_DISTANCE};
use crate::evaluate::retrieval::{retrieve, Answer, Gallery, Scores};

#[derive(Args)]
#[command(after_help = "\
Examples:
  vqdiffusion evaluate retrieval --checkpoint model.safetensors \\
      --gallery data/emoji/{train,heldout_pairs,heldout_colours} \\
      --prompts data/emoji/{train,heldout_pairs} --limit 500 --steps 50 --out retrieval
  vqdiffusion evaluate retrieval --pictures made --gallery data/emoji/train --out retrieval")]
pub struct RetrievalArgs {
    #[command(flatten)]
    subject: SubjectArgs,
}

/// One picture in the report.
#[derive(Serialize)]
struct Picture {
    file: std::path::PathBuf,
    concept: String,
    style: String,
    hit: bool,
    /// 1 more than the number of real pictures nearer than the nearest with concept and style.
    rank: usize,
    nearest: Real,
    nearest_distance: f64,
    wanted: Real,
    wanted_distance: f64,
}

pub fn run(args: &RetrievalArgs) -> CliResult {
    let args = &args.subject;
    let measured = args.open()?;
    let gallery = Gallery::open(measured.gallery(), View::Rgb)?;
    measured.check(|label| match gallery.shows(label) {
        true => Ok(()),
        false => Err(absent(label)),
    })?;
    let made = measured.pictures()?;
    let mut splits = Vec::new();
    for split in made
        .splits
        .iter()
        .filter(|split| !split.pictures.is_empty())
    {
        splits.push(measure(args, split, &gallery)?);
    }
    print(&splits, gallery.labels.len())?;
    let kind = ("retrieval", RGB_DISTANCE);
    finish(args, kind, gallery.labels.len(), &made, &splits)
}

fn absent(label: &Label) -> String {
    format!(
        "the gallery has no picture of {:?} in style {:?}",
        label.concept, label.style
    )
}

fn measure(
    args: &SubjectArgs,
    split: &Split,
    gallery: &Gallery,
) -> Result<SplitReport<Scores, Picture>, Box<dyn std::error::Error>> {
    let labels = split.labels();
    let answers = retrieve(&split.pictures, &labels, gallery)
        .map_err(|n| split.problem(n, absent(labels[n])))?;
    write_sheet(args, split, |n| {
        let answer = &answers[n];
        let nearest = &gallery.labels[answer.nearest];
        let label = match answer.rank {
            1 => format!("{}, {}: hit", labels[n].concept, labels[n].style),
            rank => format!(
                "{}, {}: found {}, {}; rank {rank}",
                labels[n].concept, labels[n].style, nearest.concept, nearest.style
            ),
        };
        let real = [answer.nearest, answer.wanted];
        (real.map(|place| &gallery.pictures[place]).to_vec(), label)
    })?;
    let scores = scored(split, &answers, |answers: Vec<&Answer>| {
        Scores::of(answers.into_iter())
    });
    let pictures = answers.iter().enumerate().map(|(n, answer)| Picture {
        file: split.files[n].clone(),
        concept: labels[n].concept.clone(),
        style: labels[n].style.clone(),
        hit: answer.rank == 1,
        rank: answer.rank,
        nearest: (&gallery.labels[answer.nearest]).into(),
        nearest_distance: answer.nearest_distance,
        wanted: (&gallery.labels[answer.wanted]).into(),
        wanted_distance: answer.wanted_distance,
    });
    Ok(SplitReport::new(split, scores, pictures))
}

fn print(splits: &[SplitReport<Scores, Picture>], gallery: usize) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(
        out,
        "nearest of {gallery} real pictures, with 95 % intervals"
    )?;
    for split in splits {
        for (style, scores) in split.by_style() {
            writeln!(
                out,
                "{} {style}: {} pictures, top-1 {}, top-5 {}, concept {}, style {}, \
                 median rank {}, chance {:.3} %",
                split.split,
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
