//! `vqdiffusion train-vocabulary`: the byte pairs of a data set's captions.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::choices;
use super::CliResult;
use crate::clip::merges::FIXED_ENTRIES;
use crate::clip::tokenizer::{train_vocabulary, FULL_VOCABULARY};
use crate::clip::ClipTokenizer;
use crate::data::{Dataset, Split};
use crate::files;

#[derive(Args)]
#[command(after_help = "\
Example:
  vqdiffusion train-vocabulary data/emoji/train --size 2048 --out merges.txt

The merge rules are for a text tower that is trained with the model: name the file in
weights.vocabulary, with model.text.tower.merges: own and the vocabulary's size.")]
pub struct TrainVocabularyArgs {
    /// A data set with captions, as for `tokenize`.
    #[arg(value_name = "DATA")]
    source: PathBuf,

    /// Entries: 256 bytes, the same at the end of words, two markers, and merge rules.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32)
        .range(FIXED_ENTRIES as i64 + 1..=FULL_VOCABULARY as i64))]
    size: u32,

    /// File for the merge rules (merges.txt of transformers).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Data sets with parts: which one [default: train].
    #[arg(long, value_parser = choices::split())]
    split: Option<Split>,

    /// Replace the file if it exists.
    #[arg(long)]
    overwrite: bool,
}

pub fn run(args: &TrainVocabularyArgs) -> CliResult {
    let out = args.out.display();
    if args.out.exists() && !args.overwrite {
        return Err(format!("{out}: exists already; give another name or --overwrite").into());
    }
    let dataset = Dataset::open(&args.source, args.split.unwrap_or_default(), false)?;
    for skipped in &dataset.skipped {
        log::warn!("skipped {skipped}");
    }
    let captions = || dataset.items.iter().flat_map(|item| &item.captions);
    if captions().next().is_none() {
        return Err(format!("{}: no captions", args.source.display()).into());
    }
    let size = args.size as usize;
    let merges = train_vocabulary(captions().map(String::as_str), size)?;
    if merges.vocabulary_size() < size {
        return Err(format!(
            "--size {size}: the captions of {} have byte pairs for {} entries only",
            args.source.display(),
            merges.vocabulary_size()
        )
        .into());
    }
    files::write(&args.out, merges.to_text())?;

    let tokenizer = ClipTokenizer::from_merges(merges)?;
    let mut lengths = Vec::new();
    for caption in captions() {
        lengths.push(tokenizer.tokenize(caption)?.len() + 2);
    }
    let longest = lengths.iter().max().unwrap_or(&0);
    writeln!(
        std::io::stdout(),
        "{out}: {size} entries; {} captions of {:.1} positions on average, {longest} at most",
        lengths.len(),
        lengths.iter().sum::<usize>() as f64 / lengths.len() as f64,
    )?;
    Ok(ExitCode::SUCCESS)
}
