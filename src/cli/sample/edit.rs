//! Pictures to start from, as the command line and a PNG name them.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::editing::{Canvas, Margins};
use crate::files::sha256;
use crate::model::ModelConfig;
use crate::picture::{decode_mask, decode_picture};

#[derive(Args)]
#[command(next_help_heading = "Editing")]
pub struct EditArgs {
    /// Start from this PNG or JPEG of any size: scaled to the model's size, the middle
    /// cut out. Goes with --strength, --mask or --outpaint.
    #[arg(long, value_name = "IMAGE")]
    pub init_image: Option<PathBuf>,

    /// Redraw only where this PNG or JPEG is white; it covers the frame of the
    /// --init-image, whatever its size. Whole tokens are redrawn: those with any white
    /// in their cell. All other pixels are the --init-image's.
    #[arg(long, value_name = "IMAGE", requires = "init_image")]
    pub mask: Option<PathBuf>,

    /// How much to redraw, 0 to 1: the share of the steps to run, from the picture with
    /// that much noise. 0 is the codec's reconstruction; 1 keeps nothing of what is
    /// redrawn [default: 1 with --mask].
    #[arg(long, value_name = "SHARE", requires = "init_image")]
    pub strength: Option<f64>,

    /// Make these pixels around the --init-image, which is scaled to fill the rest of
    /// the model's size: sides of left, right, top and bottom, such as left=64,top=32.
    #[arg(long, value_name = "SIDES", requires = "init_image",
        conflicts_with_all = ["mask", "strength"])]
    pub outpaint: Option<Margins>,

    /// What the pictures should not show: its text takes the place of the null text in
    /// guidance.
    #[arg(long, value_name = "PROMPT")]
    pub negative_prompt: Option<String>,
}

impl FromStr for Margins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut margins = Margins::default();
        for part in text.split(',') {
            let (side, pixels) = part
                .split_once('=')
                .ok_or_else(|| format!("'{part}' is not SIDE=PIXELS"))?;
            let place = match side {
                "left" => &mut margins.left,
                "right" => &mut margins.right,
                "top" => &mut margins.top,
                "bottom" => &mut margins.bottom,
                _ => return Err(format!("'{side}' is not a side (left, right, top, bottom)")),
            };
            if *place != 0 {
                return Err(format!("'{side}' is given twice"));
            }
            *place = pixels
                .parse()
                .map_err(|_| format!("'{pixels}' is not a number of pixels"))?;
        }
        match margins == Margins::default() {
            true => Err("no side has any pixels".into()),
            false => Ok(margins),
        }
    }
}

/// What a PNG holds of the picture it was made from: all but the files themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditRecord {
    pub image_sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outpaint: Option<Margins>,
    pub strength: f64,
}

/// A picture to start from and how much of it to redraw.
pub struct Edit {
    pub canvas: Canvas,
    pub record: EditRecord,
}

/// The edit that the command line asks for.
pub fn planned(args: &EditArgs, model: &ModelConfig) -> Result<Option<Edit>, Box<dyn Error>> {
    let Some(image) = &args.init_image else {
        return Ok(None);
    };
    if args.mask.is_none() && args.strength.is_none() && args.outpaint.is_none() {
        return Err(
            "--init-image: give --strength, --mask or --outpaint with it, which say \
             what to redraw"
                .into(),
        );
    }
    let strength = args.strength.unwrap_or(1.0);
    read(image, args.mask.as_deref(), args.outpaint, strength, model).map(Some)
}

/// The edit that made the picture in `png`, by its `record`, with the files that the
/// command line gives again.
pub fn repeated(
    args: &EditArgs,
    record: Option<EditRecord>,
    png: &Path,
    model: &ModelConfig,
) -> Result<Option<Edit>, Box<dyn Error>> {
    let png = png.display();
    let Some(record) = record else {
        return match &args.init_image {
            None => Ok(None),
            Some(_) => Err(format!(
                "{png}: was not made from a picture, so --init-image has no place"
            )
            .into()),
        };
    };
    let image = args.init_image.as_deref().ok_or_else(|| {
        format!(
            "{png}: was made from the picture of SHA-256 {}; give it with --init-image",
            record.image_sha256
        )
    })?;
    match (&record.mask_sha256, &args.mask) {
        (Some(sha256), None) => {
            return Err(format!(
                "{png}: was made with the mask of SHA-256 {sha256}; give it with --mask"
            )
            .into())
        }
        (None, Some(_)) => {
            return Err(format!("{png}: was made without a mask, so --mask has no place").into())
        }
        _ => {}
    }
    let mask = args.mask.as_deref();
    let edit = read(image, mask, record.outpaint, record.strength, model)?;
    let differ = |file: &Path, wanted: &str, found: &str| {
        format!(
            "{png}: was made from the file of SHA-256 {wanted}, but {} has {found}",
            file.display()
        )
    };
    if edit.record.image_sha256 != record.image_sha256 {
        let (wanted, found) = (&record.image_sha256, &edit.record.image_sha256);
        return Err(differ(image, wanted, found).into());
    }
    if let (Some(file), Some(wanted), Some(found)) =
        (mask, &record.mask_sha256, &edit.record.mask_sha256)
    {
        if wanted != found {
            return Err(differ(file, wanted, found).into());
        }
    }
    Ok(Some(edit))
}

fn read(
    image: &Path,
    mask: Option<&Path>,
    outpaint: Option<Margins>,
    strength: f64,
    model: &ModelConfig,
) -> Result<Edit, Box<dyn Error>> {
    let bytes = read_file(image)?;
    let picture = decode_picture(&bytes, image)?;
    let mut record = EditRecord {
        image_sha256: sha256(&bytes),
        mask_sha256: None,
        outpaint,
        strength,
    };
    let canvas = match (mask, outpaint) {
        (Some(file), _) => {
            let bytes = read_file(file)?;
            record.mask_sha256 = Some(sha256(&bytes));
            let mask = decode_mask(&bytes, file)?;
            Canvas::masked(&picture, &mask, &file.display().to_string(), model)?
        }
        (None, Some(margins)) => Canvas::outpainted(&picture, margins, model)?,
        (None, None) => Canvas::new(&picture, model),
    };
    Ok(Edit { canvas, record })
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}
