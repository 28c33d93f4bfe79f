//! A picture to start from, and what of it to redraw.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::canvas::{Canvas, EditError, Margins};
use super::kept_tokens::KeptTokens;
use super::load::Pipeline;
use crate::files::{self, sha256};
use crate::model::ModelConfig;
use crate::picture::{
    decode_mask, decode_picture, png_texts, Mask, Picture, PictureError, MOST_BYTES,
};

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

/// A picture to start from, and what of it to redraw: everything, where a mask is white
/// (inpainting), or margins around it (outpainting).
#[derive(Clone, Debug)]
pub struct Edit {
    picture: Picture,
    /// The mask and its name in messages.
    mask: Option<(Mask, PathBuf)>,
    /// The picture's own tokens, if its file holds them.
    tokens: Option<KeptTokens>,
    record: EditRecord,
}

impl Edit {
    /// Starts from the PNG or JPEG at `image`, of any size: scaled to cover the model's,
    /// the middle cut out. All is redrawn at full [strength](Self::strength), so that one
    /// of the other methods should follow.
    ///
    /// # Errors
    ///
    /// A file that cannot be read ([`read_picture`](crate::picture::read_picture)).
    pub fn of(image: impl AsRef<Path>) -> Result<Self, PictureError> {
        let image = image.as_ref();
        Self::of_bytes(&read(image)?, image)
    }

    /// As [`of`](Self::of), from the file's bytes; `name` is the picture's in messages.
    pub fn of_bytes(bytes: &[u8], name: impl AsRef<Path>) -> Result<Self, PictureError> {
        let picture = decode_picture(bytes, name.as_ref())?;
        Ok(Edit {
            tokens: png_texts(bytes)
                .ok()
                .and_then(|texts| KeptTokens::of(&texts, &picture)),
            picture,
            mask: None,
            record: EditRecord {
                image_sha256: sha256(bytes),
                mask_sha256: None,
                outpaint: None,
                strength: 1.0,
            },
        })
    }

    /// Redraws only where the PNG or JPEG at `mask` is white. It covers the picture's
    /// frame, whatever its size; tokens with any white in their cell are redrawn.
    ///
    /// # Errors
    ///
    /// A file that cannot be read.
    pub fn mask(self, mask: impl AsRef<Path>) -> Result<Self, PictureError> {
        let mask = mask.as_ref();
        let bytes = read(mask)?;
        self.mask_bytes(&bytes, mask)
    }

    /// As [`mask`](Self::mask), from the file's bytes.
    pub fn mask_bytes(
        mut self,
        bytes: &[u8],
        name: impl AsRef<Path>,
    ) -> Result<Self, PictureError> {
        let name = name.as_ref();
        self.mask = Some((decode_mask(bytes, name)?, name.to_path_buf()));
        self.record.mask_sha256 = Some(sha256(bytes));
        self.record.outpaint = None;
        Ok(self)
    }

    /// Makes `margins` around the picture, which is scaled to cover what they leave of
    /// the model's size.
    pub fn outpaint(mut self, margins: Margins) -> Self {
        self.mask = None;
        self.record.mask_sha256 = None;
        self.record.outpaint = Some(margins);
        self
    }

    /// How much to redraw, 0 to 1: the share of the steps to run, from the picture with
    /// that much noise. 0 is the codec's reconstruction; 1 keeps nothing of what is
    /// redrawn.
    pub fn strength(mut self, share: f64) -> Self {
        self.record.strength = share;
        self
    }

    pub fn record(&self) -> &EditRecord {
        &self.record
    }

    /// The same edit with no more pixels than `model` has use for: the picture covers the
    /// model's size, the mask has a pixel for each token. (Margins are laid around the
    /// picture as it is.)
    ///
    /// # Errors
    ///
    /// As [`canvas`](Self::canvas).
    pub fn fitted(self, model: &ModelConfig) -> Result<Self, EditError> {
        if self.record.outpaint.is_some() {
            return Ok(self);
        }
        let canvas = self.canvas(model)?;
        let [rows, columns] = model.denoiser.grid;
        let name = self.mask.map(|(_, name)| name).unwrap_or_default();
        let mask = canvas.redrawn.map(|selected| Mask {
            width: columns as u32,
            height: rows as u32,
            selected,
        });
        // Tokens are those of the pixels as they were.
        let tokens = self.tokens.filter(|_| self.picture == canvas.picture);
        Ok(Edit {
            picture: canvas.picture,
            mask: mask.map(|mask| (mask, name)),
            tokens,
            record: self.record,
        })
    }

    /// The picture's tokens, if its file holds them, of `pipeline`'s model.
    pub(super) fn tokens(&self, pipeline: &Pipeline) -> Option<&[i64]> {
        let KeptTokens {
            model_sha256,
            tokens,
        } = self.tokens.as_ref()?;
        let denoiser = &pipeline.config().denoiser;
        let [height, width] = pipeline.config().picture_size();
        let size = [
            i64::from(self.picture.height),
            i64::from(self.picture.width),
        ];
        let fits = model_sha256 == pipeline.fingerprint()
            && self.record.outpaint.is_none()
            && size == [height, width]
            && tokens.len() as i64 == denoiser.tokens()
            && tokens
                .iter()
                .all(|token| (0..denoiser.codes).contains(token));
        fits.then_some(tokens)
    }

    /// The picture at the size of `model`, with the tokens to redraw.
    ///
    /// # Errors
    ///
    /// A mask that selects no token, margins that do not fit the model's size.
    pub fn canvas(&self, model: &ModelConfig) -> Result<Canvas, EditError> {
        match (&self.mask, self.record.outpaint) {
            (Some((mask, name)), _) => {
                Canvas::masked(&self.picture, mask, &name.display().to_string(), model)
            }
            (None, Some(margins)) => Canvas::outpainted(&self.picture, margins, model),
            (None, None) => Ok(Canvas::new(&self.picture, model)),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, PictureError> {
    files::read(path, MOST_BYTES).map_err(|e| PictureError {
        path: path.to_path_buf(),
        problem: e.into(),
    })
}
