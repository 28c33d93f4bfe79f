//! Pictures from files. Every picture of the program is decoded here.

use std::io::Cursor;
use std::path::Path;

use image::codecs::{gif::GifDecoder, jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::error::{PictureError, PictureProblem};
use super::limits::{MOST_BYTES, MOST_METADATA, MOST_PIXELS, NARROWEST};
use super::{jpeg, Picture};
use crate::files;
use crate::guard::guarded;

/// Reads a PNG, JPEG, WebP or GIF (its first frame) as [`decode`] does.
///
/// # Errors
///
/// A file that cannot be read, and what [`decode`] refuses.
pub fn read_picture(path: &Path) -> Result<Picture, PictureError> {
    let problem = |problem: PictureProblem| PictureError::new(path, problem);
    let bytes = files::read(path, MOST_BYTES).map_err(|e| problem(e.into()))?;
    decode(&bytes).map_err(problem)
}

/// As [`decode`]; `path` names the picture in errors.
pub fn decode_picture(bytes: &[u8], path: &Path) -> Result<Picture, PictureError> {
    decode(bytes).map_err(|problem| PictureError::new(path, problem))
}

/// The file's picture as 8-bit RGB: turned as its EXIF orientation says, transparency laid
/// on white; otherwise as Pillow's `convert("RGB")` has it: grey repeated, CMYK converted
/// (stored inverted, as Adobe does), the high byte of 16-bit colours.
///
/// # Errors
///
/// Bytes of another format, damaged or cut short, of more than `MOST_PIXELS`, with a
/// side more than `NARROWEST` times the other, or of 16-bit grey.
pub fn decode(bytes: &[u8]) -> Result<Picture, PictureProblem> {
    let image = pixels(bytes)?;
    let (width, height) = (image.width(), image.height());
    let high = |samples: Vec<u16>| samples.into_iter().map(|s| (s >> 8) as u8).collect();
    let rgb = match image {
        DynamicImage::ImageLuma16(_) | DynamicImage::ImageLumaA16(_) => {
            return Err(PictureProblem::DeepGrey)
        }
        DynamicImage::ImageRgb16(image) => high(image.into_raw()),
        DynamicImage::ImageRgba16(image) => {
            let rgba: Vec<u8> = high(image.into_raw());
            on_white(&rgba)
        }
        image if image.color().has_alpha() => on_white(&image.into_rgba8()),
        image => image.into_rgb8().into_raw(),
    };
    Ok(Picture { width, height, rgb })
}

/// Width and height of the picture in `bytes`, which is not decoded.
///
/// # Errors
///
/// Bytes of no picture format, or with a damaged head.
pub fn dimensions(bytes: &[u8]) -> Result<[u32; 2], PictureProblem> {
    guarded(|| {
        let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
        match reader.ok().filter(|reader| reader.format().is_some()) {
            Some(reader) => reader.into_dimensions().map(|(w, h)| [w, h]),
            None if bytes.is_empty() => return Err(PictureProblem::Empty),
            None => return Err(PictureProblem::NotAPicture),
        }
        .map_err(PictureProblem::from)
    })?
}

/// The pixels in the file's own colours.
fn pixels(bytes: &[u8]) -> Result<DynamicImage, PictureProblem> {
    guarded(|| match image::guess_format(bytes).ok() {
        _ if bytes.is_empty() => Err(PictureProblem::Empty),
        Some(ImageFormat::Png) => upright(PngDecoder::with_limits(
            Cursor::new(bytes),
            limits(MOST_METADATA),
        )?),
        Some(ImageFormat::Jpeg) => {
            upright(JpegDecoder::new(Cursor::new(jpeg::first_picture(bytes)?))?)
        }
        Some(ImageFormat::WebP) => upright(WebPDecoder::new(Cursor::new(bytes))?),
        Some(ImageFormat::Gif) => upright(GifDecoder::new(Cursor::new(bytes))?),
        Some(other) => {
            let name = other.extensions_str().first().copied().unwrap_or("picture");
            Err(PictureProblem::Format(name.to_uppercase()))
        }
        None => Err(PictureProblem::NotAPicture),
    })?
}

fn limits(bytes: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(bytes);
    limits
}

fn upright(mut decoder: impl ImageDecoder) -> Result<DynamicImage, PictureProblem> {
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(PictureProblem::TooLarge(width, height));
    }
    if width.max(height) / NARROWEST >= width.min(height).max(1) {
        return Err(PictureProblem::TooNarrow(width, height));
    }
    decoder.set_limits(limits(8 * MOST_PIXELS))?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

fn on_white(rgba: &[u8]) -> Vec<u8> {
    let blend = |pixel: &[u8]| {
        let alpha = u32::from(pixel[3]);
        let over = |c: u8| ((u32::from(c) * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        [over(pixel[0]), over(pixel[1]), over(pixel[2])]
    };
    rgba.chunks_exact(4).flat_map(blend).collect()
}

/// A picture of two colours, as a selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    pub width: u32,
    pub height: u32,
    /// `height · width`, rows top to bottom: whether the pixel is selected.
    pub selected: Vec<bool>,
}

/// A mask from a picture's bytes: the pixels of at least half brightness (luma times
/// opacity) are selected.
///
/// # Errors
///
/// As [`read_picture`].
pub fn decode_mask(bytes: &[u8], path: &Path) -> Result<Mask, PictureError> {
    let image = pixels(bytes).map_err(|problem| PictureError::new(path, problem))?;
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

/// The pixels of a picture that are fully transparent; none of one without transparency.
///
/// # Errors
///
/// As [`decode`].
pub fn transparent(bytes: &[u8]) -> Result<Mask, PictureProblem> {
    let image = pixels(bytes)?;
    let (width, height) = (image.width(), image.height());
    let alpha = image.into_luma_alpha8();
    Ok(Mask {
        width,
        height,
        selected: alpha.pixels().map(|p| p.0[1] == 0).collect(),
    })
}

impl Mask {
    /// White where it selects, black elsewhere.
    pub fn to_picture(&self) -> Picture {
        let white = |&selected: &bool| [if selected { 255 } else { 0 }; 3];
        Picture {
            width: self.width,
            height: self.height,
            rgb: self.selected.iter().flat_map(white).collect(),
        }
    }
}
