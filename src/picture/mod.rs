//! Pictures as files: PNG with text chunks, labelled sheets, GIF animations, and pictures
//! read, resized and cropped.

mod bicubic;
mod error;
mod jpeg;
mod label;
mod limits;
mod read;
mod resize;
mod sheet;
mod texts;

use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use image::codecs::gif::{GifEncoder, Repeat};
use image::codecs::jpeg::JpegEncoder;
use image::{Delay, ExtendedColorType, Frame, RgbaImage};
use tch::{Kind, Tensor};

pub use bicubic::Pillow;
pub use error::{PictureError, PictureProblem};
pub use label::text_line;
pub use limits::MOST_BYTES;
pub use read::{decode, decode_mask, decode_picture, dimensions, read_picture, transparent, Mask};
pub use resize::covering;
pub use sheet::{grid, sheet, Row};
pub use texts::{png_texts, read_png_texts, PARAMETERS};

use crate::files::NewFile;
use crate::torch::host::values;

/// An 8-bit RGB picture, rows top to bottom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    /// `height · width · 3` bytes.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// From a tensor `[3, H, W]` of kind `Uint8` on any device.
    pub fn from_tensor(tensor: &Tensor) -> Self {
        let size = tensor.size();
        Picture {
            width: size[2] as u32,
            height: size[1] as u32,
            rgb: values(&tensor.permute([1, 2, 0])),
        }
    }

    /// `[3, H, W]` floats in 0…255 on the CPU.
    pub fn to_tensor(&self) -> Tensor {
        Tensor::from_slice(&self.rgb)
            .view([i64::from(self.height), i64::from(self.width), 3])
            .permute([2, 0, 1])
            .to_kind(Kind::Float)
            .contiguous()
    }

    fn rgba(&self) -> RgbaImage {
        RgbaImage::from_fn(self.width, self.height, |x, y| {
            let at = 3 * (y * self.width + x) as usize;
            image::Rgba([self.rgb[at], self.rgb[at + 1], self.rgb[at + 2], 255])
        })
    }
}

/// Writes a PNG with `texts` (keyword, value) as international text chunks.
pub fn write_png(
    path: &Path,
    picture: &Picture,
    texts: &[(&str, String)],
) -> Result<(), PictureError> {
    write_whole(path, |file| encode_png(file, picture, texts))
}

/// The bytes that [`write_png`] writes.
///
/// # Errors
///
/// A text that no PNG can hold.
pub fn png_bytes(picture: &Picture, texts: &[(&str, String)]) -> Result<Vec<u8>, PictureProblem> {
    let mut bytes = Vec::new();
    encode_png(&mut bytes, picture, texts)?;
    Ok(bytes)
}

/// A JPEG of `picture`; `quality` is 1 to 100.
///
/// # Errors
///
/// A side of more than 65,535 pixels.
pub fn jpeg_bytes(picture: &Picture, quality: u8) -> Result<Vec<u8>, PictureProblem> {
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, quality.clamp(1, 100));
    let (width, height) = (picture.width, picture.height);
    encoder.encode(&picture.rgb, width, height, ExtendedColorType::Rgb8)?;
    Ok(bytes)
}

fn encode_png(
    out: impl Write,
    picture: &Picture,
    texts: &[(&str, String)],
) -> Result<(), png::EncodingError> {
    let mut encoder = png::Encoder::new(out, picture.width, picture.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    for (keyword, value) in texts {
        let latin = value.chars().all(|c| u32::from(c) < 256);
        match *keyword == PARAMETERS && latin {
            // Its other readers know the older kind of chunk best.
            true => encoder.add_text_chunk(keyword.to_string(), value.clone())?,
            false => encoder.add_itxt_chunk(keyword.to_string(), value.clone())?,
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&picture.rgb)?;
    writer.finish()
}

/// Peak signal-to-noise ratio of two pictures of one size in dB, infinite for equal ones.
pub fn psnr(a: &Picture, b: &Picture) -> f64 {
    let errors = a.rgb.iter().zip(&b.rgb);
    let squares: u64 = errors.map(|(&x, &y)| u64::from(x.abs_diff(y)).pow(2)).sum();
    let mean = squares as f64 / a.rgb.len() as f64;
    10.0 * (255.0 * 255.0 / mean).log10()
}

/// Writes an endlessly repeating GIF, `delay` a frame and ten times that for the last.
pub fn write_gif(path: &Path, frames: &[Picture], delay: Duration) -> Result<(), PictureError> {
    write_whole(path, |file| {
        let mut encoder = GifEncoder::new_with_speed(file, 10);
        encoder.set_repeat(Repeat::Infinite)?;
        for (i, frame) in frames.iter().enumerate() {
            let shown = if i + 1 == frames.len() {
                delay * 10
            } else {
                delay
            };
            let delay = Delay::from_saturating_duration(shown);
            encoder.encode_frame(Frame::from_parts(frame.rgba(), 0, 0, delay))?;
        }
        Ok::<(), image::ImageError>(())
    })
}

/// Writes a file that appears whole or not at all.
fn write_whole<E: Into<PictureProblem>>(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), PictureError> {
    let whole = || {
        let file = NewFile::beside(path)?;
        let mut buffered = BufWriter::new(file.as_file());
        write(&mut buffered).map_err(Into::into)?;
        buffered.flush()?;
        drop(buffered);
        Ok(file.commit()?)
    };
    whole().map_err(|problem: PictureProblem| PictureError::new(path, problem))
}
