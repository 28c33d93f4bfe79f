//! The data-set side of `vqdiffusion tokenize`: a token cache for training.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use clap::Args;

use super::choices;
use super::codec_run::CodecArgs;
use super::progress::{say, ProgressDisplay};
use super::signals::{stop_on_signals, STOPPED};
use super::CliResult;
use crate::data::cache::{self, codec_identity, CacheRecipe, CacheWriter, CodeChoice, ShardReport};
use crate::data::{CropRule, Dataset, Split, Transform};
use crate::files::FolderLock;
use crate::ranks::Ranks;

#[derive(Args)]
pub struct CacheArgs {
    /// Data sets: squares taken of each picture [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    views: Option<u32>,

    /// Data sets: which squares [default: random].
    #[arg(long, value_parser = choices::crop_rule())]
    crop: Option<CropRule>,

    /// Data sets: side of the squares in pixels, which gives another token grid than the
    /// model's, for training on it [default: the model's].
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u16).range(1..))]
    resolution: Option<u16>,

    /// Data sets: mirror every other square.
    #[arg(long)]
    flip: bool,

    /// Data sets with parts: which one [default: train].
    #[arg(long, value_parser = choices::split())]
    split: Option<Split>,

    /// Data sets: stop at the first item that cannot be used instead of skipping it.
    #[arg(long)]
    strict: bool,

    /// Data sets: squares encoded together [default: 16].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: Option<u16>,
}

impl CacheArgs {
    /// An option that was given, if any.
    pub fn given(&self) -> Option<&'static str> {
        let options = [
            (self.views.is_some(), "--views"),
            (self.crop.is_some(), "--crop"),
            (self.resolution.is_some(), "--resolution"),
            (self.flip, "--flip"),
            (self.split.is_some(), "--split"),
            (self.strict, "--strict"),
            (self.batch_size.is_some(), "--batch-size"),
        ];
        options
            .iter()
            .find(|(given, _)| *given)
            .map(|(_, name)| *name)
    }
}

pub fn write(
    source: &Path,
    codec_args: &CodecArgs,
    out: Option<&Path>,
    args: &CacheArgs,
    ranks: &Ranks,
) -> CliResult {
    let out = out.ok_or("--out: a data set needs a folder for its token cache")?;
    let dataset = Dataset::open(source, args.split.unwrap_or_default(), args.strict)?;
    if let Some(split) = args.split.filter(|_| !dataset.has_parts) {
        let problem = format!(
            "--split {}: {} is a data set without parts",
            split.name(),
            source.display()
        );
        return Err(problem.into());
    }
    // Before the codec is loaded, which takes a while.
    let speaks = ranks.is_first();
    let _locked = speaks.then(|| FolderLock::take(out)).transpose()?;
    let stop = stop_on_signals()?;
    let loaded = codec_args.codec(args.resolution.map(i64::from))?;
    let [height, width] = loaded.picture_size();
    if height != width {
        let problem = format!("the codec's pictures are {width} by {height}, expected squares");
        return Err(problem.into());
    }
    let recipe = CacheRecipe {
        transform: Transform {
            size: u32::try_from(height)?,
            crop: args.crop.unwrap_or(CropRule::Random),
            flip: args.flip,
        },
        views: args.views.unwrap_or(1),
        choice: match codec_args.sampled {
            true => CodeChoice::Sampled,
            false => CodeChoice::Argmax,
        },
        seed: codec_args.seed.unwrap_or(0),
    };
    let identity = codec_identity(&loaded.fingerprint, &loaded.codec)?;
    let codec = cache::Codec {
        codec: &loaded.codec,
        fingerprint: &identity,
        codes: loaded.codes,
        device: loaded.device,
    };
    let items = dataset.items.len();
    let mut progress = ProgressDisplay::new(items as u64, "tokenizing", !speaks);
    let batch = args.batch_size.unwrap_or(16).into();
    // The first process makes and locks the folder.
    ranks.any(false)?;
    let writer = CacheWriter::new(out, dataset, &codec, &recipe, batch, args.strict)?;
    // Before any of them writes there, all have looked at it.
    ranks.any(false)?;
    let (shards, stopped) = writer.write_shards(|n| ranks.does(n), &mut |done| {
        progress.reach(done as u64);
        match stop.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    let stopped = ranks.any(stopped)?;
    let mut own = Vec::new();
    for (n, shard) in shards {
        own.push((n, serde_json::to_vec(&shard)?));
    }
    let all = ranks.items_of_all(own)?;
    progress.finish();
    if !speaks {
        return Ok(match stopped {
            true => ExitCode::from(STOPPED),
            false => ExitCode::SUCCESS,
        });
    }
    let shards: Result<Vec<ShardReport>, _> = all
        .iter()
        .map(|(_, shard)| serde_json::from_slice(shard))
        .collect();
    let summary = writer.finish(shards?, stopped)?;
    if summary.stopped {
        say(format_args!(
            "stopped by a signal: {} of {items} pictures are in {}; the same command goes on",
            summary.items,
            out.display()
        ));
        return Ok(ExitCode::from(STOPPED));
    }

    let mut stdout = std::io::stdout();
    writeln!(
        stdout,
        "{}: {} pictures of {items}, {} views each{}",
        out.display(),
        summary.items,
        recipe.views,
        match summary.kept {
            0 => String::new(),
            kept => format!(" ({kept} from a former run)"),
        },
    )?;
    writeln!(
        stdout,
        "codes used: {} of {}, perplexity {:.1}",
        summary.usage.iter().filter(|&&count| count > 0).count(),
        summary.usage.len(),
        crate::codec::usage::perplexity(&summary.usage),
    )?;
    if !summary.skipped.is_empty() {
        writeln!(stdout, "skipped {}:", summary.skipped.len())?;
        for skipped in &summary.skipped {
            writeln!(stdout, "  {skipped}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
