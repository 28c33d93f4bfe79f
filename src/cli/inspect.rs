//! `vqdiffusion inspect`: what a file is.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use sha2::{Digest, Sha256};

use super::fields::as_options;
use super::model_source::ModelSource;
use super::CliResult;
use crate::checkpoint::inspect::{describe, Description};
use crate::checkpoint::pytorch::PartsReader;
use crate::files::hex;

#[derive(Args)]
#[command(after_help = "\
Examples:
  vqdiffusion inspect coco_learnable.pth_aa
  vqdiffusion inspect configs/coco.yaml
  vqdiffusion inspect model.safetensors --sha256")]
pub struct InspectArgs {
    /// The file (of a split one, its first part or its stem), a diffusers folder, a name on
    /// the Hugging Face Hub, or a configuration (YAML).
    path: PathBuf,

    #[command(flatten)]
    model: ModelSource,

    /// Also print the SHA-256 of the file (of all parts joined).
    #[arg(long)]
    sha256: bool,
}

pub fn run(args: &InspectArgs) -> CliResult {
    let description = match crate::experiment::describe(&args.path)? {
        Some(description) => description,
        None => describe(&args.path, &args.model.options())?,
    };
    let mut out = std::io::stdout().lock();
    write_description(&mut out, &args.path, &description)?;
    if args.sha256 {
        writeln!(out, "{:<12} {}", "sha256", sha256(&args.path)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_description(out: &mut dyn Write, path: &Path, d: &Description) -> std::io::Result<()> {
    let mut line = |name: &str, value: &str| {
        let text = as_options(&format!("{name:<12} {value}"));
        writeln!(out, "{}", text.trim_end())
    };
    line("file", &path.display().to_string())?;
    line("layout", &d.layout)?;
    for (name, value) in &d.facts {
        line(name, value)?;
    }
    for (part, tensors, parameters) in &d.parts {
        line(
            part,
            &format!("{tensors} tensors, {} parameters", thousands(*parameters)),
        )?;
    }
    for missing in &d.missing {
        line("missing", missing)?;
    }
    for (i, text) in d
        .notice
        .iter()
        .flat_map(|notice| notice.lines())
        .enumerate()
    {
        line(if i == 0 { "notice" } else { "" }, text)?;
    }
    Ok(())
}

/// 388780871 → 388,780,871
fn thousands(n: i64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn sha256(path: &Path) -> Result<String, Box<dyn std::error::Error>> {
    let mut file = PartsReader::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
    }
    Ok(hex(&hash.finalize()))
}
