//! What official checkpoints leave to other files: the image codec, and which of its codes
//! they use.

use std::path::Path;

use super::config_file::ConfigFile;
use super::error::LoadError;
use super::official::export::mapping_name;
use super::official::resolve;
use super::official::{self, OfficialKind, WeightSet, CODE_MAPPING, DENOISER};
use super::pytorch::DType;
use super::state_dict::StateDict;
use crate::model::ModelConfig;

/// Adds the codec of the file `given`, else of the one that `config` names, to the tensors of
/// the checkpoint at `path`.
///
/// # Errors
///
/// No such file, or one that is no codec alone.
pub fn add_codec(
    state: &mut StateDict,
    path: &Path,
    given: Option<&Path>,
    config: Option<&ConfigFile>,
) -> Result<(), LoadError> {
    let named = match config {
        Some(config) => config.codec_path()?,
        None => None,
    };
    let found = given
        .map(Path::to_path_buf)
        .or_else(|| named.and_then(|name| resolve(name, config.map(ConfigFile::path), path)));
    let Some(codec) = found else {
        return Err(LoadError::Missing {
            path: path.to_path_buf(),
            what: "holds no image codec (no tensor 'content_codec.*')".into(),
            remedy: format!(
                "give its file with OpenOptions::codec (the original keeps it at {})",
                named.map_or_else(|| usual_codec(state), String::from)
            ),
        });
    };
    let (tensors, kind) = official::read(&codec, WeightSet::Model)?;
    if kind != OfficialKind::Codec {
        return Err(LoadError::Format {
            path: codec,
            problem: "not an image codec alone: expected 'encoder.*', may be under 'state_dict'"
                .into(),
        });
    }
    for (name, entry) in tensors.iter() {
        state.insert(name, entry.clone());
    }
    Ok(())
}

/// Where the original keeps the codec of a denoiser such as that in `state`.
fn usual_codec(state: &StateDict) -> String {
    let has = |part: &str| state.has_prefix(&format!("{DENOISER}.blocks.0.{part}."));
    let name = match (has("attn2"), has("ln2.emb")) {
        (true, _) => "taming_f8_8192_openimages_last.pth",
        (false, true) => "vqgan_imagenet_f16_16384.pth",
        (false, false) => "vqgan_ffhq_f16_1024.pth",
    };
    format!("OUTPUT/pretrained_model/taming_dvae/{name}")
}

/// Adds the code mapping of the file `given`, else of the one that `config` names or that
/// lies beside the checkpoint at `path`.
///
/// # Errors
///
/// No such file, or one of another codec.
pub fn add_mapping(
    state: &mut StateDict,
    model: &ModelConfig,
    path: &Path,
    given: Option<&Path>,
    config: Option<&ConfigFile>,
) -> Result<(), LoadError> {
    let usual = format!(
        "help_folder/statistics/taming_vqvae_{}.pt",
        model.denoiser.codes
    );
    let named = match config {
        Some(config) => config.mapping_path()?,
        None => None,
    };
    let named = named.unwrap_or(&usual);
    let found = given
        .map(Path::to_path_buf)
        .or_else(|| resolve(named, config.map(ConfigFile::path), path))
        // Where converting leaves it.
        .or_else(|| Some(path.with_file_name(mapping_name(model))).filter(|file| file.is_file()));
    let Some(mapping) = found else {
        return Err(LoadError::Missing {
            path: path.to_path_buf(),
            what: format!(
                "uses {} of the codec's {} codes, and which ones is not stored in it",
                model.denoiser.codes, model.codec.codebook
            ),
            remedy: format!(
                "give the mapping with OpenOptions::mapping (in the original repository: {named})"
            ),
        });
    };
    let entry = official::read_mapping(&mapping)?;
    if entry.shape != [model.codec.codebook] || entry.dtype != DType::I64 {
        return Err(LoadError::Format {
            path: mapping,
            problem: format!(
                "{} tensor of shape {:?}, expected int64 of shape [{}] (the codec's codebook)",
                entry.dtype.name(),
                entry.shape,
                model.codec.codebook
            ),
        });
    }
    state.insert(CODE_MAPPING, entry);
    Ok(())
}
