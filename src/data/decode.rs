//! Picture files of a data set to 8-bit RGB, with what could pass unseen refused.

use std::io::Cursor;
use std::path::Path;

use image::{ImageDecoder, ImageFormat, ImageReader};

use crate::picture::{decode_picture, Picture};

/// Decodes a PNG or JPEG as [`decode_picture`] does, for pictures nobody looks at:
///
/// # Errors
///
/// Why the bytes cannot be used: what [`decode_picture`] refuses, CMYK, or more than 8
/// bits a channel.
pub fn decode(bytes: &[u8]) -> Result<Picture, String> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    if image::guess_format(bytes).ok() == Some(ImageFormat::Jpeg) {
        check_jpeg(bytes)?;
    }
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let decoder = reader.map_err(|e| e.to_string())?.into_decoder();
    if let Ok(decoder) = decoder {
        let color = decoder.color_type();
        let bits = color.bits_per_pixel() / u16::from(color.channel_count());
        if bits != 8 {
            return Err(format!("{bits} bits a channel, expected 8"));
        }
    }
    decode_picture(bytes, Path::new("")).map_err(|e| e.problem)
}

/// What the decoder lets pass: a truncated file decodes to a picture with a grey rest,
/// and four components are taken for CMYK of one kind or another.
fn check_jpeg(bytes: &[u8]) -> Result<(), String> {
    let truncated = || "the JPEG data end too early".to_string();
    let byte = |at: usize| bytes.get(at).copied().ok_or_else(truncated);
    let mut at = 2; // behind the start marker
    loop {
        while byte(at)? != 0xFF {
            at += 1;
        }
        while byte(at)? == 0xFF {
            at += 1;
        }
        let marker = byte(at)?;
        let segment = at + 1;
        match marker {
            0xC4 | 0xC8 | 0xCC => {}
            // A frame header: length (2), bits, height (2), width (2), components.
            0xC0..=0xCF => match (byte(segment + 2)?, byte(segment + 7)?) {
                (8, 1 | 3) => {}
                (8, 4) => return Err("CMYK colours, expected RGB or grey".into()),
                (8, other) => return Err(format!("{other} colour components")),
                (bits, _) => return Err(format!("{bits} bits a channel, expected 8")),
            },
            0xDA => break, // the scan begins
            _ => {}
        }
        let length = u16::from_be_bytes([byte(segment)?, byte(segment + 1)?]);
        at = segment + usize::from(length);
    }
    // In the scan, FF is followed by the end marker at its end alone.
    if bytes[at..].windows(2).any(|pair| pair == [0xFF, 0xD9]) {
        Ok(())
    } else {
        Err(truncated())
    }
}
