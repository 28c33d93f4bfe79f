//! What a PNG says of how it was made, and how it is made again.

use std::num::ParseIntError;
use std::path::{Path, PathBuf};

use super::edit::{Edit, EditRecord};
use super::options::{PictureOptions, PictureSettings};
use super::subject::{Request, Subject};
use crate::picture::{read_png_texts, PictureError};
use crate::torch::device::Precision;

/// Keywords of the PNG's text chunks.
mod keyword {
    pub const PROMPT: &str = "prompt";
    pub const CLASS: &str = "class";
    pub const SEED: &str = "seed";
    pub const SETTINGS: &str = "vqdiffusion";
    pub const MODEL: &str = "model-sha256";
    pub const EDIT: &str = "edit";
    pub const NEGATIVE_PROMPT: &str = "negative-prompt";
}

/// How a picture was made: everything but the model and the pictures it was made from,
/// which are named by their SHA-256.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub request: Request,
    pub settings: PictureSettings,
    /// SHA-256 of the model's weights ([`Pipeline::fingerprint`](super::Pipeline::fingerprint)).
    pub model_sha256: String,
    pub edit: Option<EditRecord>,
    pub negative_prompt: Option<String>,
}

/// Why a picture cannot be made again.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error(transparent)]
    Picture(#[from] PictureError),
    #[error("{}: has no text chunk '{keyword}', so it was not made by this program", path.display())]
    Missing {
        path: PathBuf,
        keyword: &'static str,
    },
    #[error("{}: text chunk '{keyword}' is {value:?}: {source}", path.display())]
    Number {
        path: PathBuf,
        keyword: &'static str,
        value: String,
        source: ParseIntError,
    },
    #[error("{}: text chunk '{keyword}': {source}", path.display())]
    Settings {
        path: PathBuf,
        keyword: &'static str,
        source: serde_json::Error,
    },
    #[error("was made from the picture of SHA-256 {sha256}")]
    NeedsPicture { sha256: String },
    #[error("was not made from a picture")]
    NeedsNoPicture,
    #[error("was made with the mask of SHA-256 {sha256}")]
    NeedsMask { sha256: String },
    #[error("was made without a mask")]
    NeedsNoMask,
    #[error("was made from the file of SHA-256 {wanted}, but {} has {found}", path.display())]
    OtherPicture {
        path: PathBuf,
        wanted: String,
        found: String,
    },
    #[error("made with a model of SHA-256 {wanted}, but this one has {found}")]
    OtherModel { wanted: String, found: String },
    #[error("made by a model in {wanted}, but this one is in {found}")]
    OtherPrecision { wanted: Precision, found: Precision },
}

impl Record {
    /// What the PNG at `path` says.
    ///
    /// # Errors
    ///
    /// A file that is no PNG, or of another program.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, RecordError> {
        let path = path.as_ref();
        Self::of_texts(&read_png_texts(path)?, path)
    }

    /// What the text chunks (keyword, value) of a PNG say; `name` is its in messages.
    ///
    /// # Errors
    ///
    /// Texts of another program.
    pub fn of_texts(
        texts: &[(String, String)],
        name: impl AsRef<Path>,
    ) -> Result<Self, RecordError> {
        let path = name.as_ref();
        let find = |keyword: &str| {
            let mut found = texts.iter().filter(|(k, _)| k == keyword);
            found.next().map(|(_, value)| value.clone())
        };
        let text = |keyword| {
            find(keyword).ok_or_else(|| RecordError::Missing {
                path: path.to_path_buf(),
                keyword,
            })
        };
        let number = |keyword, value: String, source| RecordError::Number {
            path: path.to_path_buf(),
            keyword,
            value,
            source,
        };
        let settings = |keyword| {
            move |source| RecordError::Settings {
                path: path.to_path_buf(),
                keyword,
                source,
            }
        };
        let seed = text(keyword::SEED)?;
        let seed = seed.parse().map_err(|e| number(keyword::SEED, seed, e))?;
        let subject = match (find(keyword::PROMPT), find(keyword::CLASS)) {
            (Some(prompt), _) => Subject::Text(prompt),
            (None, Some(class)) => {
                let index = class.parse();
                Subject::Class(index.map_err(|e| number(keyword::CLASS, class, e))?)
            }
            (None, None) => Subject::Anything,
        };
        let options = text(keyword::SETTINGS)?;
        let edit = find(keyword::EDIT)
            .map(|text| serde_json::from_str(&text).map_err(settings(keyword::EDIT)))
            .transpose()?;
        Ok(Record {
            request: Request { subject, seed },
            settings: serde_json::from_str(&options).map_err(settings(keyword::SETTINGS))?,
            edit,
            negative_prompt: find(keyword::NEGATIVE_PROMPT),
            model_sha256: text(keyword::MODEL)?,
        })
    }

    /// The text chunks (keyword, value) of the picture's PNG.
    pub fn texts(&self) -> Vec<(&'static str, String)> {
        let mut texts = match &self.request.subject {
            Subject::Text(prompt) => vec![(keyword::PROMPT, prompt.clone())],
            Subject::Class(class) => vec![(keyword::CLASS, class.to_string())],
            Subject::Anything => Vec::new(),
        };
        texts.extend([
            (keyword::SEED, self.request.seed.to_string()),
            (keyword::SETTINGS, json(&self.settings)),
            (keyword::MODEL, self.model_sha256.clone()),
        ]);
        texts.extend(self.edit.as_ref().map(|edit| (keyword::EDIT, json(edit))));
        let negative = self.negative_prompt.clone();
        texts.extend(negative.map(|prompt| (keyword::NEGATIVE_PROMPT, prompt)));
        texts
    }

    /// The edit that made the picture, from the files it was made from.
    ///
    /// # Errors
    ///
    /// Files that are missing, too many, unreadable or others than those.
    pub fn edit(
        &self,
        image: Option<&Path>,
        mask: Option<&Path>,
    ) -> Result<Option<Edit>, RecordError> {
        let Some(record) = &self.edit else {
            return match image {
                None => Ok(None),
                Some(_) => Err(RecordError::NeedsNoPicture),
            };
        };
        let image = image.ok_or_else(|| RecordError::NeedsPicture {
            sha256: record.image_sha256.clone(),
        })?;
        let edit = match (&record.mask_sha256, mask) {
            (Some(sha256), None) => {
                let sha256 = sha256.clone();
                return Err(RecordError::NeedsMask { sha256 });
            }
            (None, Some(_)) => return Err(RecordError::NeedsNoMask),
            (_, Some(mask)) => Edit::of(image)?.mask(mask)?,
            (_, None) => match record.outpaint {
                Some(margins) => Edit::of(image)?.outpaint(margins),
                None => Edit::of(image)?,
            },
        };
        let edit = edit.strength(record.strength);
        same(image, &record.image_sha256, &edit.record().image_sha256)?;
        let masks = (mask, &record.mask_sha256, &edit.record().mask_sha256);
        if let (Some(mask), Some(wanted), Some(found)) = masks {
            same(mask, wanted, found)?;
        }
        Ok(Some(edit))
    }

    /// Whether a model of this SHA-256 in this number format makes the same picture.
    ///
    /// # Errors
    ///
    /// Another model or number format.
    pub fn check(&self, model_sha256: &str, precision: Precision) -> Result<(), RecordError> {
        if self.model_sha256 != model_sha256 {
            return Err(RecordError::OtherModel {
                wanted: self.model_sha256.clone(),
                found: model_sha256.to_string(),
            });
        }
        if self.settings.dtype != precision {
            return Err(RecordError::OtherPrecision {
                wanted: self.settings.dtype,
                found: precision,
            });
        }
        Ok(())
    }

    /// The options that made the picture, starting from `edit`.
    pub fn options(&self, edit: Option<Edit>) -> PictureOptions {
        let mut options = PictureOptions::of(&self.settings).seed(self.request.seed);
        options.negative_prompt = self.negative_prompt.clone();
        options.edit = edit;
        options
    }
}

/// Whether the file at `path` is the one that was used.
fn same(path: &Path, wanted: &str, found: &str) -> Result<(), RecordError> {
    match wanted == found {
        true => Ok(()),
        false => Err(RecordError::OtherPicture {
            path: path.to_path_buf(),
            wanted: wanted.to_string(),
            found: found.to_string(),
        }),
    }
}

/// One line of JSON of a struct of named fields.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("named fields are JSON")
}
