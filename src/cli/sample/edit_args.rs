//! Arguments that name pictures to start from.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;

use crate::pipeline::{Edit, Margins};

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
    strength: Option<f64>,

    /// Make these pixels around the --init-image, which is scaled to fill the rest of
    /// the model's size: sides of left, right, top and bottom, such as left=64,top=32.
    #[arg(long, value_name = "SIDES", requires = "init_image", value_parser = margins,
        conflicts_with_all = ["mask", "strength"])]
    outpaint: Option<Margins>,

    /// What the pictures should not show: its text takes the place of the null text in
    /// guidance.
    #[arg(long, value_name = "PROMPT")]
    pub negative_prompt: Option<String>,
}

impl EditArgs {
    /// The edit that the command line asks for.
    pub fn edit(&self) -> Result<Option<Edit>, Box<dyn Error>> {
        let Some(image) = &self.init_image else {
            return Ok(None);
        };
        if self.mask.is_none() && self.strength.is_none() && self.outpaint.is_none() {
            return Err(
                "--init-image: give --strength, --mask or --outpaint with it, which say \
                 what to redraw"
                    .into(),
            );
        }
        let edit = Edit::of(image)?.strength(self.strength.unwrap_or(1.0));
        Ok(Some(match (&self.mask, self.outpaint) {
            (Some(mask), _) => edit.mask(mask)?,
            (None, Some(margins)) => edit.outpaint(margins),
            (None, None) => edit,
        }))
    }
}

/// Margins from `SIDE=PIXELS,…`.
fn margins(text: &str) -> Result<Margins, String> {
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
