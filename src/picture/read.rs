//! Pictures from files.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::{Picture, PictureError};

/// Pixels of the largest picture that is read (Pillow warns of a decompression bomb
/// there).
pub const MOST_PIXELS: u64 = 89_478_485;
/// Sides ratio of the narrowest picture that is read: scaled to cover a square, it
/// would grow without bound.
pub const NARROWEST: u32 = 100;

/// Reads a PNG or JPEG as 8-bit RGB: turned as its EXIF orientation says, grey and
/// CMYK converted, 16 bits reduced to 8, transparency laid on white.
///
/// # Errors
///
/// A file that cannot be read, is of another format, damaged, of more than
/// [`MOST_PIXELS`], or with a side more than [`NARROWEST`] times the other.
pub fn read_picture(path: &Path) -> Result<Picture, PictureError> {
    let bytes = std::fs::read(path).map_err(|e| PictureError::new(path, e))?;
    decode_picture(&bytes, path)
}

/// As [`read_picture`], from the file's bytes; `path` names it in errors.
pub fn decode_picture(bytes: &[u8], path: &Path) -> Result<Picture, PictureError> {
    let image = decode(bytes).map_err(|problem| PictureError::new(path, problem))?;
    let (width, height) = (image.width(), image.height());
    let rgb = if image.color().has_alpha() {
        image.into_rgba8().pixels().flat_map(on_white).collect()
    } else {
        image.into_rgb8().into_raw()
    };
    Ok(Picture { width, height, rgb })
}

/// The pixels of a PNG or JPEG in its own colours.
fn decode(bytes: &[u8]) -> Result<DynamicImage, String> {
    let reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| e.to_string())?;
    match reader.format() {
        Some(ImageFormat::Png | ImageFormat::Jpeg) => {}
        Some(other) => return Err(format!("a {other:?} file, expected PNG or JPEG")),
        None => return Err("not a picture, expected PNG or JPEG".into()),
    }
    if reader.format() == Some(ImageFormat::Jpeg) && ends_early(bytes) {
        return Err("the JPEG data end too early".into());
    }
    let mut decoder = reader.into_decoder().map_err(|e| e.to_string())?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(format!(
            "{width} by {height} pixels, expected at most {MOST_PIXELS} in all"
        ));
    }
    if width.max(height) / NARROWEST >= width.min(height).max(1) {
        return Err(format!(
            "{width} by {height} pixels, expected sides up to {NARROWEST} times each other"
        ));
    }
    let orientation = decoder.orientation().map_err(|e| e.to_string())?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| e.to_string())?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// Whether no end marker follows the last scan of a JPEG: the decoder would fill the
/// rest with grey.
fn ends_early(bytes: &[u8]) -> bool {
    let scan = bytes.windows(2).rposition(|pair| pair == [0xFF, 0xDA]);
    scan.is_some_and(|at| !bytes[at..].windows(2).any(|pair| pair == [0xFF, 0xD9]))
}

fn on_white(pixel: &image::Rgba<u8>) -> [u8; 3] {
    let [r, g, b, alpha] = pixel.0.map(u32::from);
    [r, g, b].map(|c| ((c * alpha + 255 * (255 - alpha) + 127) / 255) as u8)
}

/// A picture of two colours, as a selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    pub width: u32,
    pub height: u32,
    /// `height · width`, rows top to bottom: whether the pixel is selected.
    pub selected: Vec<bool>,
}

/// A mask from the bytes of a PNG or JPEG: the pixels of at least half brightness
/// (luma times opacity) are selected.
///
/// # Errors
///
/// As [`read_picture`].
pub fn decode_mask(bytes: &[u8], path: &Path) -> Result<Mask, PictureError> {
    let image = decode(bytes).map_err(|problem| PictureError::new(path, problem))?;
    let (width, height) = (image.width(), image.height());
    let selected = image
        .into_luma_alpha8()
        .pixels()
        .map(|p| u32::from(p.0[0]) * u32::from(p.0[1]) >= 128 * 255)
        .collect();
    Ok(Mask {
        width,
        height,
        selected,
    })
}
