//! `vqdiffusion tokenize`: pictures to image tokens, as JSON, and data sets to caches.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::codec_run::CodecArgs;
use super::launch::{join, LaunchArgs};
use super::token_cache::{self, CacheArgs};
use super::CliResult;
use crate::data::Dataset;
use crate::files;

#[derive(Args)]
#[command(after_help = "\
Examples:
  vqdiffusion tokenize cat.jpg --checkpoint model.safetensors
  vqdiffusion tokenize pets/ --checkpoint codec.safetensors --out pets.tokens --views 4

A folder, a list (.jsonl, .csv, .tsv) or a .tar in place of IMAGE is a data set, whose
tokens become a cache for training: a folder of pictures with captions in .txt files
beside them, captions.jsonl (file, caption), a CSV (file,caption), webdataset shards, or
MSCOCO, CUB-200, Oxford-102, Conceptual Captions, ImageNet and FFHQ as they are laid out.")]
pub struct TokenizeArgs {
    #[command(flatten)]
    codec: CodecArgs,

    /// File for the tokens, one JSON object a line [default: standard output]; for a
    /// data set the cache's folder. An interrupted run goes on where it was.
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,

    #[command(flatten)]
    cache: CacheArgs,

    #[command(flatten)]
    launch: LaunchArgs,
}

/// One line of output.
#[derive(Serialize)]
struct TokenizedImage<'a> {
    image: &'a Path,
    /// SHA-256 of the codec's weights.
    codec_sha256: &'a str,
    /// Codes are below this.
    codes: i64,
    /// Row by row.
    tokens: Vec<Vec<i64>>,
}

pub fn run(args: &TokenizeArgs) -> CliResult {
    if let Some(code) = args.launch.run()? {
        return Ok(code);
    }
    let ranks = join()?;
    if let [source] = args.codec.images.as_slice() {
        if Dataset::is_at(source) {
            let out = args.out.as_deref();
            return token_cache::write(source, &args.codec, out, &args.cache, &ranks);
        }
    }
    if let Some(option) = args.cache.given() {
        return Err(format!("{option} is for data sets (a folder, .jsonl or .csv)").into());
    }
    let codec = args.codec.codec(None)?;
    // Alone, with nowhere else to write to: each line as soon as it is there.
    let at_once = ranks.is_alone() && args.out.is_none();
    let mut own = Vec::new();
    let images = args.codec.images.iter().enumerate();
    for (i, image) in images.filter(|(i, _)| ranks.does(*i)) {
        let (_, tokens) = args.codec.encode(&codec, i)?;
        let tokens: Vec<i64> = (&tokens.view([-1])).try_into()?;
        let line = TokenizedImage {
            image,
            codec_sha256: &codec.fingerprint,
            codes: codec.codes,
            tokens: tokens
                .chunks(codec.grid[1] as usize)
                .map(<[i64]>::to_vec)
                .collect(),
        };
        let mut line = serde_json::to_vec(&line)?;
        line.push(b'\n');
        match at_once {
            true => std::io::stdout().write_all(&line)?,
            false => own.push((i, line)),
        }
    }
    let lines = ranks.items_of_all(own)?;
    if !ranks.is_first() {
        return Ok(ExitCode::SUCCESS);
    }
    let lines: Vec<u8> = lines.into_iter().flat_map(|(_, line)| line).collect();
    match &args.out {
        Some(path) => files::write(path, lines)?,
        None => std::io::stdout().write_all(&lines)?,
    }
    Ok(ExitCode::SUCCESS)
}
