//! Finished pictures in the format and size that a client wants.

use base64::prelude::{Engine, BASE64_STANDARD};

use super::error::ApiError;
use super::jobs::Made;
use super::settings::LARGEST_SIDE;
use crate::picture::PARAMETERS;
use crate::picture::{jpeg_bytes, png_bytes, Picture};

/// The file format of pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Png,
    /// With a quality of 1 to 100.
    Jpeg(u8),
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Format::Png => "png",
            Format::Jpeg(_) => "jpeg",
        }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Format::Png => "image/png",
            Format::Jpeg(_) => "image/jpeg",
        }
    }
}

/// How pictures are given to a client.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    pub format: Format,
    /// Width and height to fit into; the model's own if absent.
    pub within: Option<[u32; 2]>,
}

impl Shown {
    /// The size of pictures that the model makes in `own` (width, height): the largest of
    /// their shape that fits.
    pub fn size(&self, own: [u32; 2]) -> [u32; 2] {
        let Some([width, height]) = self.within.map(|size| size.map(u64::from)) else {
            return own;
        };
        let [w, h] = own.map(u64::from);
        let [fitted_w, fitted_h] = match width * h <= height * w {
            true => [width, (width * h / w).max(1)],
            false => [(height * w / h).max(1), height],
        };
        [fitted_w as u32, fitted_h as u32]
    }

    fn scaled(&self, picture: &Picture) -> Option<Picture> {
        let own = [picture.width, picture.height];
        let [width, height] = self.size(own);
        ([width, height] != own).then(|| picture.resize(width, height))
    }

    /// The file of a finished picture; a PNG says how it was made, in its own size for this
    /// program too.
    pub fn file(&self, made: &Made) -> Result<Vec<u8>, ApiError> {
        let own = &made.picture.picture;
        match (self.scaled(own), self.format) {
            (None, Format::Png) => made.png().map(<[u8]>::to_vec),
            (Some(scaled), Format::Png) => png_bytes(&scaled, &[(PARAMETERS, made.parameters())]),
            (scaled, Format::Jpeg(quality)) => jpeg_bytes(scaled.as_ref().unwrap_or(own), quality),
        }
        .map_err(|_| ApiError::internal())
    }

    /// The file of a picture that nothing is said of.
    pub fn bare_file(&self, picture: &Picture) -> Result<Vec<u8>, ApiError> {
        let scaled = self.scaled(picture);
        let picture = scaled.as_ref().unwrap_or(picture);
        match self.format {
            Format::Png => png_bytes(picture, &[]),
            Format::Jpeg(quality) => jpeg_bytes(picture, quality),
        }
        .map_err(|_| ApiError::internal())
    }
}

/// `width` and `height` as a size to fit into.
///
/// # Errors
///
/// Sides beyond what is possible.
pub fn size_of(width: i64, height: i64, param: &str) -> Result<[u32; 2], ApiError> {
    let most = i64::from(LARGEST_SIDE);
    if (1..=most).contains(&width) && (1..=most).contains(&height) {
        return Ok([width as u32, height as u32]);
    }
    let message = format!("{param} is {width}x{height}, expected sides of 1 to {most}");
    Err(ApiError::field(param, message))
}

/// `bytes` as text.
pub fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_fit_and_keep_their_shape() {
        let size = |within, own| {
            let format = Format::Png;
            Shown { format, within }.size(own)
        };
        assert_eq!(size(None, [64, 64]), [64, 64]);
        assert_eq!(size(Some([512, 768]), [64, 64]), [512, 512]);
        assert_eq!(size(Some([1024, 100]), [64, 64]), [100, 100]);
        assert_eq!(size(Some([100, 100]), [64, 32]), [100, 50]);
        assert_eq!(size(Some([1, 1]), [64, 32]), [1, 1]);
    }
}
