//! `vqdiffusion code-usage`: which codes a data set uses, and the mapping that leaves the
//! others out.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tch::Tensor;

use super::arguments::whole;
use super::CliResult;
use crate::checkpoint::official::export::write_mapping;
use crate::checkpoint::Entry;
use crate::codec::usage::{perplexity, reduction};
use crate::data::TokenCache;

#[derive(Args)]
#[command(after_help = "\
Example:
  vqdiffusion tokenize birds/ --checkpoint codec.safetensors --out all.tokens
  vqdiffusion code-usage all.tokens --at-least 10 --mapping-out birds.pt
  vqdiffusion tokenize birds/ --checkpoint codec.safetensors --mapping birds.pt --out birds.tokens")]
pub struct CodeUsageArgs {
    /// Token cache of the data set, made without a mapping.
    #[arg(value_name = "CACHE")]
    cache: PathBuf,

    /// A code counts as used from this many occurrences on.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<u64>(1..=u64::MAX))]
    at_least: u64,

    /// File for the mapping, as the original's taming_vqvae_2887.pt: used codes become
    /// 1, 2 … in increasing order, all others 0, which is decoded as code 0.
    #[arg(long, value_name = "FILE")]
    mapping_out: Option<PathBuf>,

    /// Replace the mapping file if it exists.
    #[arg(long)]
    overwrite: bool,
}

pub fn run(args: &CodeUsageArgs) -> CliResult {
    if let Some(path) = args.mapping_out.as_ref().filter(|path| path.exists()) {
        if !args.overwrite {
            let path = path.display();
            return Err(format!("{path}: exists already; give another name or --overwrite").into());
        }
    }
    let usage = TokenCache::open(&args.cache)?.usage()?;
    let total: u64 = usage.iter().sum();
    let used = usage
        .iter()
        .filter(|&&count| count >= args.at_least)
        .count();
    let (mapping, codes) = reduction(&usage, args.at_least);
    let kept = usage.iter().zip(&mapping).enumerate();
    let kept: u64 = kept
        .filter(|(code, (_, &reduced))| *code == 0 || reduced > 0)
        .map(|(_, (count, _))| count)
        .sum();
    if let Some(path) = &args.mapping_out {
        let entry = Entry::in_memory("mapping", &Tensor::from_slice(&mapping))?;
        write_mapping(path, &entry)?;
    }
    let mut out = std::io::stdout();
    writeln!(out, "tokens {total}")?;
    writeln!(out, "codes {}", usage.len())?;
    writeln!(out, "used {used} (at least {} times)", args.at_least)?;
    writeln!(out, "perplexity {:.1}", perplexity(&usage))?;
    writeln!(
        out,
        "mapping {codes} codes, which keep {:.4} % of the tokens",
        100.0 * kept as f64 / total as f64
    )?;
    if let Some(path) = &args.mapping_out {
        writeln!(out, "wrote {}", path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}
