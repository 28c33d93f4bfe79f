//! `vqdiffusion reconstruct`: pictures through the codec and back.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use tch::Tensor;

use super::codec_run::CodecArgs;
use super::out_folder::{prepare, refuse_to_replace};
use super::CliResult;
use crate::codec::image_codec::to_bytes;
use crate::codec::Rounding;
use crate::picture::{psnr, write_png, Picture};

#[derive(Args)]
pub struct ReconstructArgs {
    #[command(flatten)]
    codec: CodecArgs,

    /// Folder for the pictures, each a PNG of its input's name; made if missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Replace pictures of the same name.
    #[arg(long)]
    overwrite: bool,
}

pub fn run(args: &ReconstructArgs) -> CliResult {
    let names = output_names(&args.codec.images, &args.out)?;
    if !args.overwrite {
        names.iter().try_for_each(|name| refuse_to_replace(name))?;
    }
    let codec = args.codec.codec(None)?;
    for (i, name) in names.iter().enumerate() {
        let (original, tokens) = args.codec.encode(&codec, i)?;
        let decoded: Tensor = {
            let _no_grad = tch::no_grad_guard();
            codec
                .codec
                .decode(&tokens.to_device(codec.device), codec.grid)
        };
        let picture = Picture::from_tensor(&to_bytes(&decoded, Rounding::Nearest).get(0));
        // Here, so that pictures that cannot be read leave no empty folder.
        prepare(&args.out, &[], true)?;
        write_png(name, &picture, &[])?;
        writeln!(
            std::io::stdout(),
            "{}: PSNR {:.2} dB",
            name.display(),
            psnr(&original, &picture)
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `DIR/STEM.png` of every input; they must differ from each other and from the inputs.
fn output_names(images: &[PathBuf], out: &Path) -> Result<Vec<PathBuf>, String> {
    let mut names: Vec<PathBuf> = Vec::new();
    for image in images {
        let stem = image
            .file_stem()
            .ok_or_else(|| format!("{}: not the name of a picture", image.display()))?;
        let mut file = stem.to_os_string();
        file.push(".png");
        let name = out.join(file);
        if let Some(same) = names.iter().position(|n| *n == name) {
            return Err(format!(
                "{} and {} would both become {}",
                images[same].display(),
                image.display(),
                name.display()
            ));
        }
        names.push(name);
    }
    let real = |path: &Path| path.canonicalize().ok();
    for (i, name) in names.iter().enumerate() {
        let target = real(name);
        if let Some(image) = images
            .iter()
            .find(|image| target.is_some() && real(image) == target)
        {
            return Err(format!(
                "{}: would be replaced by the reconstruction of {}; give another --out",
                image.display(),
                images[i].display()
            ));
        }
    }
    Ok(names)
}
