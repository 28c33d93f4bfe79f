//! A readable model written in another layout.

use std::path::{Path, PathBuf};

use super::load::check_weights;
use crate::checkpoint::decoder::replace_decoder;
use crate::checkpoint::infer::RELEASED_HEADS;
use crate::checkpoint::official::export;
use crate::checkpoint::pytorch::DType;
use crate::checkpoint::{
    diffusers, native, vocabulary, Checkpoint, LoadError, LoadReport, WriteError,
};
use crate::model::ModelConfig;

/// A layout to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One safetensors file that holds everything.
    Native,
    /// A PyTorch file for the original code; a code mapping goes to a file beside it.
    Official,
    /// A folder for diffusers' `VQDiffusionPipeline`.
    Diffusers,
}

/// How a model is written.
#[derive(Clone, Debug)]
pub struct Conversion {
    pub to: Target,
    /// Number format of the weights; as they are, bit by bit, when `None`.
    pub dtype: Option<DType>,
    /// Codec file to take the decoder from: the model's own codec, whose decoder was
    /// trained further.
    pub decoder: Option<PathBuf>,
    /// Text on licences and authors in place of the model's own.
    pub notice: Option<String>,
    /// Whether an output that is there is replaced.
    pub overwrite: bool,
}

/// What was written.
#[derive(Debug)]
pub struct Converted {
    /// What became of the model's tensors.
    pub report: LoadReport,
    /// What the layout has no place for.
    pub left_out: Vec<String>,
    /// Files beside the output, and what they hold.
    pub beside: Vec<(PathBuf, &'static str)>,
}

/// Why a model cannot be written so.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("{}: expected a name ending in .safetensors (native) or .pth (official)", path.display())]
    Unnamed { path: PathBuf },
    #[error("{}: expected a name ending in .safetensors", path.display())]
    NotNative { path: PathBuf },
    #[error("{}: the name is not that of the {target:?} layout", path.display())]
    OtherName { path: PathBuf, target: Target },
    #[error("{}: no such folder", path.display())]
    NoFolder { path: PathBuf },
    #[error("{}: exists already", path.display())]
    Exists { path: PathBuf },
    #[error("{}: is a folder, and no diffusers pipeline written by this command to replace", path.display())]
    Folder { path: PathBuf },
    #[error("{}: is a file, expected a folder", path.display())]
    File { path: PathBuf },
    #[error("an official file has no place for a notice")]
    Notice,
}

impl Target {
    /// The layout that goes with the name of `output`: native for `.safetensors`,
    /// official for `.pth`; `wanted` if there is one and it goes with the name.
    ///
    /// # Errors
    ///
    /// A name of no layout, or of another than is wanted.
    pub fn of(output: &Path, wanted: Option<Target>) -> Result<Self, ConvertError> {
        let path = output.to_path_buf();
        let named = match output.extension().and_then(|e| e.to_str()) {
            Some("safetensors") => Some(Target::Native),
            Some("pth") => Some(Target::Official),
            _ => None,
        };
        match (wanted, named) {
            (None, Some(target)) => Ok(target),
            (None, None) => Err(ConvertError::Unnamed { path }),
            (Some(Target::Native), Some(Target::Native)) => Ok(Target::Native),
            (Some(Target::Native), _) => Err(ConvertError::NotNative { path }),
            (Some(Target::Official), named) if named != Some(Target::Native) => {
                Ok(Target::Official)
            }
            (Some(Target::Diffusers), None) => Ok(Target::Diffusers),
            (Some(target), _) => Err(ConvertError::OtherName { path, target }),
        }
    }
}

impl Conversion {
    /// To a layout, with nothing changed and nothing replaced.
    pub fn to(target: Target) -> Self {
        Conversion {
            to: target,
            dtype: None,
            decoder: None,
            notice: None,
            overwrite: false,
        }
    }

    /// Whether `output` may be written, before any model is read.
    ///
    /// # Errors
    ///
    /// An output that is there or has no folder to be in, a notice that would be lost.
    pub fn check(&self, output: &Path) -> Result<(), ConvertError> {
        if self.notice.is_some() && self.to == Target::Official {
            return Err(ConvertError::Notice);
        }
        self.check_place(output)
    }

    /// Writes `checkpoint` to `output`, which appears whole or not at all. All its
    /// weights are read and checked first.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check), weights that do not make a model, a model that the
    /// layout cannot hold.
    pub fn write(
        &self,
        mut checkpoint: Checkpoint,
        output: &Path,
    ) -> Result<Converted, ConvertError> {
        self.check(output)?;
        for file in files_beside(self.to, &checkpoint.config) {
            self.check_place(&output.with_file_name(file))?;
        }
        if let Some(decoder) = &self.decoder {
            replace_decoder(&mut checkpoint, decoder)?;
        }
        let report = check_weights(&checkpoint)?;
        if let Some(dtype) = self.dtype {
            checkpoint.state = checkpoint.state.map(|entry| entry.cast(dtype));
        }
        let (model, state) = (&checkpoint.config, &checkpoint.state);
        let notice = self.notice.as_deref().or(checkpoint.notice.as_deref());
        let (left_out, beside) = match self.to {
            Target::Native => {
                native::write(output, model, state, notice)?;
                (Vec::new(), Vec::new())
            }
            Target::Official => {
                let beside = export::write(output, model, state)?;
                (left_out_of_official(model, notice), beside)
            }
            Target::Diffusers => {
                let left_out = diffusers::write(output, model, state, notice)?;
                (left_out, Vec::new())
            }
        };
        Ok(Converted {
            report,
            left_out,
            beside,
        })
    }

    /// Refuses an output that is there, or has no folder to be in.
    fn check_place(&self, output: &Path) -> Result<(), ConvertError> {
        let path = output.to_path_buf();
        if !output.exists() {
            let folder = output.parent();
            return match folder.filter(|folder| !folder.as_os_str().is_empty()) {
                Some(folder) if !folder.is_dir() => Err(ConvertError::NoFolder {
                    path: folder.to_path_buf(),
                }),
                _ => Ok(()),
            };
        }
        if !self.overwrite {
            return Err(ConvertError::Exists { path });
        }
        // Nothing but what a conversion writes is ever replaced.
        let replaceable = self.to == Target::Diffusers && diffusers::is_replaceable(output);
        if output.is_dir() && !replaceable {
            return Err(ConvertError::Folder { path });
        }
        if output.is_file() && self.to == Target::Diffusers {
            return Err(ConvertError::File { path });
        }
        Ok(())
    }
}

/// Names of the files that go beside an output in the layout `to`.
fn files_beside(to: Target, model: &ModelConfig) -> Vec<String> {
    let mut files = Vec::new();
    if to == Target::Official && model.needs_code_mapping() {
        files.push(export::mapping_name(model));
    }
    let text = model.text.as_ref().filter(|_| to == Target::Official);
    if let Some(text) = text.filter(|text| !text.tower.merges.is_clip()) {
        files.push(vocabulary::file_name(&text.tower));
    }
    files
}

fn left_out_of_official(model: &ModelConfig, notice: Option<&str>) -> Vec<String> {
    let mut left_out = Vec::new();
    let heads = model.denoiser.heads;
    if heads != RELEASED_HEADS {
        left_out.push(format!(
            "the number of attention heads, {heads}; whoever reads the file needs a \
             configuration that says it (n_head)"
        ));
    }
    left_out.extend(export::left_out(model));
    left_out.extend(notice.map(|_| "the notice (shown by vqdiffusion inspect)".into()));
    left_out
}
