//! `vqdiffusion evaluate compare`: two runs of the same prompts and seeds.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::cli::out_folder::refuse_to_replace;
use crate::cli::CliResult;
use crate::evaluate::compare::paired::{Paired, Ratio};
use crate::evaluate::compare::Comparison;
use crate::files;

#[derive(Args)]
#[command(after_help = "\
Example:
  vqdiffusion evaluate compare fast slow --out fast-slow.json

Differences are those of the first run from the second, with 95 % intervals by the bootstrap over
the prompts. A further pair of folders, such as the same two runs with another seed, is taken
together with the first.")]
pub struct CompareArgs {
    /// Folders that evaluate retrieval or evaluate colours wrote, or their report.json: a run
    /// and the one that it is compared with, in pairs.
    #[arg(value_name = "A B", num_args = 2.., required = true)]
    folders: Vec<PathBuf>,

    /// Also write the comparison, a JSON file.
    #[arg(long, value_name = "REPORT")]
    out: Option<PathBuf>,

    /// Replace a comparison that is there.
    #[arg(long)]
    overwrite: bool,
}

pub fn run(args: &CompareArgs) -> CliResult {
    let folders: Vec<&Path> = args.folders.iter().map(PathBuf::as_path).collect();
    let (pairs, left) = folders.as_chunks::<2>();
    if let [left] = left {
        return Err(format!(
            "{}: has no folder to be compared with, expected pairs of folders",
            left.display()
        )
        .into());
    }
    if let Some(path) = args.out.as_deref().filter(|_| !args.overwrite) {
        refuse_to_replace(path)?;
    }
    let found = Comparison::of(pairs)?;
    print(&found)?;
    if let Some(path) = &args.out {
        let mut text = serde_json::to_vec_pretty(&found)?;
        text.push(b'\n');
        files::write(path, text)?;
        writeln!(std::io::stdout(), "wrote {}", path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a figure is called, and how many decimals it has; shares are shown in percent.
fn named(figure: &str) -> (&str, usize) {
    match figure {
        "hit" => ("top-1", 1),
        "concept_hit" => ("concept", 1),
        "style_hit" => ("style", 1),
        "hue_hit" => ("hue", 1),
        "shape_hit" => ("shape", 1),
        "both_hit" => ("hue and shape", 1),
        "wanted_distance" => ("distance of the wanted", 2),
        "nearest_distance" => ("distance of the nearest", 2),
        "bound" => ("bound, nats a picture", 1),
        "token_entropy" => ("token entropy, nats", 4),
        other => (other, 3),
    }
}

fn print(found: &Comparison) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    for (a, b) in found.a.iter().zip(&found.b) {
        let [a, b] = [a, b].map(|source| source.folder.display());
        writeln!(out, "{a} against {b}, with 95 % intervals")?;
    }
    for split in &found.splits {
        let [a, b] = split.of;
        let of = match split.pictures == a.max(b) {
            true => String::new(),
            false => format!(" that both have, of {a} and {b}"),
        };
        writeln!(
            out,
            "{}: {} pictures of {} prompts{of}",
            split.split, split.pictures, split.prompts
        )?;
        for (name, figure) in &split.figures {
            writeln!(out, "  {}", line(name, figure))?;
        }
    }
    for line in &found.left_out {
        let (name, why) = line.split_once(": ").unwrap_or((line, ""));
        writeln!(out, "not compared: {}, {why}", named(name).0)?;
    }
    Ok(())
}

fn line(name: &str, figure: &Paired) -> String {
    let (name, decimals) = named(name);
    let (scale, unit) = match figure.mcnemar {
        Some(_) => (100.0, " %"),
        None => (1.0, ""),
    };
    let [low, high] = figure.interval.map(|value| scale * value);
    let mut line = format!(
        "{name:<24} {:.decimals$}{unit} against {:.decimals$}{unit}: {:+.decimals$} \
         ({low:+.decimals$} to {high:+.decimals$})",
        scale * figure.a,
        scale * figure.b,
        scale * figure.difference,
    );
    if let Some(Ratio { ratio, interval }) = figure.ratio {
        let [low, high] = interval;
        line += &format!(", ratio {ratio:.3} ({low:.3} to {high:.3})");
    }
    if let Some(test) = figure.mcnemar {
        line += &format!(
            ", {} gained, {} lost, p {:.3}",
            test.only_a, test.only_b, test.p
        );
    }
    line
}
