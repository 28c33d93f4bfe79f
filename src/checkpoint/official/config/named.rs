//! The files that the original's configuration names, and where they may lie.

use std::path::{Path, PathBuf};

use super::super::super::error::LoadError;
use super::super::options::{CODEC, CONDITION, TOKENIZER};
use super::{Network, OfficialConfig};
use crate::files;

impl OfficialConfig {
    /// The code mapping file it names, if it maps codes at all.
    pub fn mapping_path(&self) -> Result<Option<&str>, LoadError> {
        let path = self.word(CODEC, "mapping_path")?;
        let default = match self.class(CODEC)? {
            Some("TamingGumbelVQVAE") => {
                Some((2887, "help_folder/statistics/taming_vqvae_2887.pt"))
            }
            Some("TamingVQVAE") => Some((974, "help_folder/statistics/taming_vqvae_974.pt")),
            _ => None,
        };
        let mapped = self.integer(CODEC, "quantize_number")?;
        let mapped = mapped.or(default.map(|(mapped, _)| mapped)).unwrap_or(0);
        let path = path.or(default.map(|(_, path)| path));
        Ok(path.filter(|path| mapped != 0 && *path != "None"))
    }

    /// The codec's checkpoint file it names; a class without one has it in its code.
    pub fn codec_path(&self) -> Result<Option<&str>, LoadError> {
        let named = self.word(CODEC, "ckpt_path")?;
        Ok(named.or(match self.class(CODEC)? {
            Some("TamingGumbelVQVAE") => {
                Some("OUTPUT/pretrained_model/taming_dvae/taming_f8_8192_openimages_last.pth")
            }
            Some("TamingVQVAE") => {
                Some("OUTPUT/pretrained_model/taming_dvae/vqgan_imagenet_f16_16384.pth")
            }
            Some("TamingFFHQVQVAE") => {
                Some("OUTPUT/pretrained_model/taming_dvae/vqgan_ffhq_f16_1024.pth")
            }
            Some("PatchVQVAE") => Some("OUTPUT/pretrained_model/taming_dvae/ithq_vqvae.pth"),
            _ => None,
        }))
    }

    /// The CLIP file it names, for a model of texts.
    pub fn clip_path(&self) -> Result<Option<&str>, LoadError> {
        if self.network()? != Network::Text {
            return Ok(None);
        }
        let named = self.word(CONDITION, "clip_name")?.unwrap_or("ViT-B/32");
        Ok(Some(match named {
            "ViT-B/32" => "OUTPUT/pretrained_model/ViT-B-32.pt",
            file => file,
        }))
    }

    /// The merge rules it names (`bpe_path`), where they are not CLIP's own.
    pub fn vocabulary_path(&self) -> Result<Option<&str>, LoadError> {
        self.word(TOKENIZER, "bpe_path")
    }

    /// The file that `name` stands for, if it is there ([`resolve`]).
    pub fn resolve(&self, name: &str) -> Option<PathBuf> {
        resolve(name, Some(&self.path), &self.path)
    }
}

/// Where a relative path of a configuration may lie: the working directory, the
/// configuration's folder and its parents, the checkpoint's folder.
pub fn resolve(name: &str, config: Option<&Path>, checkpoint: &Path) -> Option<PathBuf> {
    places(name, config, checkpoint).find(|path| path.is_file())
}

/// Every place that a relative path of a configuration may mean.
pub fn places(
    name: &str,
    config: Option<&Path>,
    checkpoint: &Path,
) -> impl Iterator<Item = PathBuf> {
    // A home folder that is not known leaves the name as it is.
    let wanted = files::expand_home(Path::new(name)).unwrap_or_else(|_| name.into());
    let mut roots = vec![PathBuf::from(".")];
    if let Some(config) = config.and_then(|c| c.canonicalize().ok()) {
        roots.extend(config.ancestors().skip(1).map(Path::to_path_buf));
    }
    roots.extend(checkpoint.parent().map(Path::to_path_buf));
    roots.into_iter().map(move |root| root.join(&wanted))
}
