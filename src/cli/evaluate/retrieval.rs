//! `vqdiffusion evaluate retrieval`: whether the nearest real picture is the wanted one.

use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::emoji_args::{Asking, EmojiArgs, NamedMeasure};
use crate::cli::arguments::whole;
use crate::cli::choices;
use crate::cli::CliResult;
use crate::evaluate::emoji::asked::{Ask, LabelledSet};
use crate::evaluate::emoji::gallery::Gallery;
use crate::evaluate::emoji::pyramid::{View, RGB_DISTANCE};
use crate::evaluate::emoji::retrieval::{absent, measure, Answer, RetrievalFound};
use crate::evaluate::report::{write_sheet, SetReport};
use crate::evaluate::EvaluateError;

#[derive(Args)]
#[command(after_help = "\
Examples:
  vqdiffusion evaluate retrieval --checkpoint model.safetensors \\
      --gallery data/emoji/{train,heldout_pairs,heldout_colours} \\
      --prompts data/emoji/{train,heldout_pairs} --limit 500 --steps 50 --out retrieval
  vqdiffusion evaluate retrieval --pictures made --gallery data/emoji/train --out retrieval

Few-step samplers differ where a prompt leaves something open, and in the tokens:
  vqdiffusion evaluate retrieval --checkpoint model.safetensors --gallery data/emoji/train \
      --prompts data/emoji/train --ask name --limit 200 --bound 6 --steps 8 --times cosine --out fast
  vqdiffusion evaluate compare fast slow")]
pub struct RetrievalArgs {
    #[command(flatten)]
    emoji: EmojiArgs,

    /// What is asked for. With the bare name only the concept counts, in whatever style.
    #[arg(long, value_parser = choices::ask(), default_value = "caption")]
    ask: Ask,

    /// Pictures of each prompt. Of several the entropy of their tokens is reported: how much
    /// they differ.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<usize>(1..=10_000),
        conflicts_with = "pictures")]
    seeds: usize,

    /// Also bound −log p of each picture's tokens by the network without guidance, in nats: how
    /// likely they are to the model itself. N evaluations for each quarter of the times.
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..=100_000), conflicts_with = "pictures")]
    bound: Option<usize>,
}

/// What a report says of the measure.
#[derive(Serialize)]
struct RetrievalMeasure {
    #[serde(flatten)]
    named: NamedMeasure,
    ask: Ask,
    /// Pictures of each prompt.
    seeds: usize,
    /// Evaluations of the bound for each quarter of the times and picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    bound_draws: Option<usize>,
}

pub fn run(args: &RetrievalArgs) -> CliResult {
    let RetrievalArgs {
        emoji: args,
        ask,
        seeds,
        bound,
    } = args;
    let measured = args.open(Asking {
        ask: *ask,
        each: *seeds,
        bound: *bound,
    })?;
    let gallery = Gallery::open(&measured.gallery, View::Rgb)?;
    measured
        .asked
        .check(|label| match gallery.shows(label, *ask) {
            true => Ok(()),
            false => Err(absent(label, *ask)),
        })?;
    let (sets, protocol) = args.pictures(measured)?;
    let mut reports = Vec::new();
    for set in sets.iter().filter(|set| !set.pictures.is_empty()) {
        let (answers, scores) = measure(set, &gallery)?;
        sheet(args, set, &answers, &gallery)?;
        reports.push(set.report(scores));
    }
    print(&reports, gallery.labels.len())?;
    let kind = RetrievalMeasure {
        named: NamedMeasure {
            measure: "retrieval",
            distance: RGB_DISTANCE,
        },
        ask: *ask,
        seeds: *seeds,
        bound_draws: *bound,
    };
    args.finish(kind, &protocol, &gallery, &reports, &sets)
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
        let wanted = match set.ask {
            Ask::Caption => format!("{}, {}", label.concept, label.style),
            Ask::Name => label.concept.clone(),
        };
        let text = match answer.rank {
            1 => format!("{wanted}: hit"),
            rank => format!(
                "{wanted}: found {}, {}; rank {rank}",
                nearest.concept, nearest.style
            ),
        };
        let real = [answer.nearest, answer.wanted].map(|place| &gallery.pictures[place]);
        (made, real.to_vec(), text)
    });
    write_sheet(&args.sheet(&set.folder.name), rows)
}

fn print(reports: &[SetReport<RetrievalFound>], gallery: usize) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(
        out,
        "nearest of {gallery} real pictures, with 95 % intervals"
    )?;
    for report in reports {
        for (style, scores) in report.scores.scores.by_style() {
            write!(
                out,
                "{} {style}: {} pictures, top-1 {}, top-5 {}",
                report.split, scores.top1.of, scores.top1, scores.top5,
            )?;
            if let Some(style) = scores.style {
                write!(out, ", concept {}, style {style}", scores.concept)?;
            }
            writeln!(
                out,
                ", median rank {}, chance {:.3} %",
                scores.median_rank,
                100.0 * scores.chance
            )?;
            write!(
                out,
                "  distance of the wanted {}, of the nearest {}",
                scores.wanted_distance, scores.nearest_distance
            )?;
            if let Some(bound) = scores.bound {
                write!(out, ", bound {bound} nats a picture")?;
            }
            if let Some(entropy) = scores.token_entropy {
                write!(out, ", token entropy {entropy} nats")?;
            }
            writeln!(out)?;
        }
    }
    Ok(())
}
