//! From a path to everything a model is made of.

use std::path::{Path, PathBuf};

use super::beside;
use super::clip::tower::read_text_tower;
use super::config_file::ConfigFile;
use super::diffusers;
use super::error::LoadError;
use super::hub::HubName;
use super::infer::{self, Unshown};
use super::native;
use super::official::resolve;
use super::official::{self, OfficialKind, WeightSet, CODEC, DENOISER, TEXT};
use super::pytorch::PartsReader;
use super::safetensors_file::is_safetensors;
use super::state_dict::{read_safetensors, StateDict};
use super::vocabulary;
use crate::clip::tokenizer::FULL_VOCABULARY;
use crate::clip::ClipTokenizer;
use crate::model::ModelConfig;

/// How a model file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Safetensors with our header.
    Native,
    /// PyTorch file of the official solver.
    Official { has_ema: bool, used: WeightSet },
    /// Folder of diffusers' `VQDiffusionPipeline`.
    Diffusers,
}

/// What to open, and where the things are that a checkpoint cannot hold.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Official or own YAML to check against.
    pub config: Option<PathBuf>,
    pub weights: WeightSet,
    /// Code mapping file (`taming_vqvae_2887.pt`).
    pub mapping: Option<PathBuf>,
    /// Codec file, where the checkpoint holds none.
    pub codec: Option<PathBuf>,
    /// CLIP file to take the text tower from, where the checkpoint holds none.
    pub text_encoder: Option<PathBuf>,
    /// Merge rules of the text vocabulary, where they are not CLIP's.
    pub vocabulary: Option<PathBuf>,
}

#[derive(Clone)]
/// An opened model file: its shape, and its tensors by canonical name, not yet read.
pub struct Checkpoint {
    pub path: PathBuf,
    pub layout: Layout,
    pub config: ModelConfig,
    pub state: StateDict,
    /// What the file says of licences and authors.
    pub notice: Option<String>,
}

impl OpenOptions {
    /// Refuses what a layout that holds everything does not use.
    fn refuse_parts(&self, path: &Path) -> Result<(), LoadError> {
        unused("OpenOptions::codec", &self.codec, path, HOLDS_CODEC)?;
        unused(
            "OpenOptions::text_encoder",
            &self.text_encoder,
            path,
            HOLDS_ALL,
        )?;
        unused("OpenOptions::mapping", &self.mapping, path, HOLDS_ALL)?;
        unused("OpenOptions::vocabulary", &self.vocabulary, path, HOLDS_ALL)?;
        match self.weights {
            WeightSet::Ema => Ok(()),
            WeightSet::Model => Err(LoadError::Unused {
                option: "OpenOptions::weights model".into(),
                path: path.to_path_buf(),
                reason: "holds one set of weights",
            }),
        }
    }
}

const HOLDS_CODEC: &str = "holds its own codec";
const HOLDS_ALL: &str = "holds everything that it needs";

/// Refuses the file given with `option`, if there is one.
fn unused(
    option: &str,
    file: &Option<PathBuf>,
    path: &Path,
    reason: &'static str,
) -> Result<(), LoadError> {
    match file {
        None => Ok(()),
        Some(file) => Err(LoadError::Unused {
            option: format!("{option} {}", file.display()),
            path: path.to_path_buf(),
            reason,
        }),
    }
}

/// Refuses the content of a `.pth` archive as a folder, which browsers and file managers
/// make of one.
fn refuse_unpacked(folder: &Path) -> Result<(), LoadError> {
    let inside = |folder: &Path| folder.join("data.pkl").is_file();
    let below = || -> Option<PathBuf> {
        let entries = std::fs::read_dir(folder).ok()?;
        let mut folders = entries.filter_map(|entry| Some(entry.ok()?.path()));
        folders.find(|path| inside(path))
    };
    let found = match inside(folder) {
        true => Some(folder.to_path_buf()),
        false => below(),
    };
    match found {
        None => Ok(()),
        Some(found) => Err(LoadError::Format {
            path: folder.to_path_buf(),
            problem: format!(
                "is an unpacked checkpoint ({} is in it); give the .pth file as it was before \
                 it was unpacked: download it again, or pack it with `zip -0 -r model.pth \
                 FOLDER`",
                found.join("data.pkl").display()
            ),
        }),
    }
}

impl Checkpoint {
    /// The tokenizer of its texts, if the model takes texts.
    ///
    /// # Errors
    ///
    /// Merge rules that are missing or do not fit the text tower.
    pub fn tokenizer(&self) -> Result<Option<ClipTokenizer>, LoadError> {
        let text = self.config.text.as_ref();
        text.map(|text| vocabulary::tokenizer(&text.tower, &self.state, &self.path))
            .transpose()
    }

    /// Opens a model of any layout: a file, split files by their first part or their
    /// stem, a diffusers folder, or a name on the Hugging Face Hub.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, LoadError> {
        let on_hub = match PartsReader::open(path) {
            Err(_) => HubName::parse(path),
            Ok(_) => None,
        };
        let folder = on_hub.map(|name| name.folder()).transpose()?;
        let path = folder.as_deref().unwrap_or(path);
        let config = options
            .config
            .as_deref()
            .map(ConfigFile::read)
            .transpose()?;
        if path.is_dir() {
            refuse_unpacked(path)?;
            options.refuse_parts(path)?;
            let (mut model, state, notice) = diffusers::open(path)?;
            if let Some(config) = &config {
                config.apply(&mut model, path)?;
            }
            return Ok(Checkpoint {
                path: path.to_path_buf(),
                layout: Layout::Diffusers,
                config: model,
                state,
                notice,
            });
        }
        if path.is_file() && is_safetensors(path)? {
            options.refuse_parts(path)?;
            let (state, metadata) = read_safetensors(path)?;
            let (mut model, notice) = native::read(path, &metadata)?;
            if let Some(config) = &config {
                config.apply(&mut model, path)?;
            }
            return Ok(Checkpoint {
                path: path.to_path_buf(),
                layout: Layout::Native,
                config: model,
                state,
                notice,
            });
        }
        Self::open_official(path, options, config.as_ref())
    }

    fn open_official(
        path: &Path,
        options: &OpenOptions,
        config: Option<&ConfigFile>,
    ) -> Result<Self, LoadError> {
        let (mut state, kind) = official::read(path, options.weights)?;
        let OfficialKind::Training { has_ema } = kind else {
            return Err(LoadError::Format {
                path: path.to_path_buf(),
                problem: "holds an image codec alone, expected a whole model".into(),
            });
        };
        if !state.has_prefix(&format!("{DENOISER}.")) {
            return Err(LoadError::Format {
                path: path.to_path_buf(),
                problem: format!("no denoiser in it (no tensor '{DENOISER}.*' under 'model')"),
            });
        }
        match state.has_prefix(&format!("{CODEC}.")) {
            true => unused("OpenOptions::codec", &options.codec, path, HOLDS_CODEC)?,
            false => beside::add_codec(&mut state, path, options.codec.as_deref(), config)?,
        }
        let text = format!("{TEXT}.token_embedding.");
        if state.has_prefix(&text) {
            let reason = "holds its own text tower";
            unused(
                "OpenOptions::text_encoder",
                &options.text_encoder,
                path,
                reason,
            )?;
        } else if let Some(file) = &options.text_encoder {
            for (name, entry) in read_text_tower(file)?.iter() {
                state.insert(name, entry.clone());
            }
        }
        let unshown = match config {
            Some(config) => config.unshown()?,
            None => Unshown::default(),
        };
        let mut model = infer::model(&state, path, &unshown)?;
        if model.text.is_none() {
            unused(
                "OpenOptions::text_encoder",
                &options.text_encoder,
                path,
                "takes no text",
            )?;
        }
        let named = match config {
            Some(config) => config.vocabulary_path()?,
            None => None,
        };
        let named = named.and_then(|name| resolve(name, config.map(ConfigFile::path), path));
        let beside = named.or_else(|| {
            let text = model.text.as_ref()?;
            let file = path.with_file_name(vocabulary::file_name(&text.tower));
            file.is_file().then_some(file)
        });
        match (&options.vocabulary, &mut model.text) {
            (_, None) => unused(
                "OpenOptions::vocabulary",
                &options.vocabulary,
                path,
                "takes no text",
            )?,
            (given, Some(text)) => {
                // Where converting leaves it.
                if let Some(file) = given.clone().or(beside) {
                    vocabulary::add_file(&file, &mut text.tower, &mut state)?;
                } else if text.tower.vocabulary != FULL_VOCABULARY as i64 {
                    log::warn!(
                        "{}: its text tower has {} entries; taking the first of CLIP's {} \
                         (merge rules of another vocabulary can be given)",
                        path.display(),
                        text.tower.vocabulary,
                        FULL_VOCABULARY
                    );
                }
            }
        }
        if config.is_none() {
            log::warn!(
                "{}: the number of attention heads and the kinds of activation and norms are not \
                 stored in it; taking {}, as in every released model (a configuration says otherwise)",
                path.display(),
                Unshown::released()
            );
        }
        if let Some(config) = config {
            if let Some(transition) = config.transition() {
                model.transition = transition.clone();
            }
            config.apply(&mut model, path)?;
        }
        model.check().map_err(|source| LoadError::Config {
            path: path.to_path_buf(),
            source,
        })?;
        if model.needs_code_mapping() {
            let given = options.mapping.as_deref();
            beside::add_mapping(&mut state, &model, path, given, config)?;
        } else {
            let reason = "uses all codes of its codec";
            unused("OpenOptions::mapping", &options.mapping, path, reason)?;
        }
        Ok(Checkpoint {
            path: path.to_path_buf(),
            layout: Layout::Official {
                has_ema,
                used: if has_ema {
                    options.weights
                } else {
                    WeightSet::Model
                },
            },
            config: model,
            state,
            notice: None,
        })
    }
}
