//! An official configuration as an experiment: its recipe, and the model and the files
//! that it names, so that a run starts from the original's own file.

use std::path::{Path, PathBuf};

use serde_yaml::Value;

use super::{Experiment, ExperimentError};
use crate::checkpoint::clip::tower::read_text_tower;
use crate::checkpoint::config_file::ConfigFile;
use crate::checkpoint::infer::tower_alone;
use crate::checkpoint::official::{places, OfficialConfig};
use crate::checkpoint::{Checkpoint, CodecFile, LoadError, OpenOptions};
use crate::clip::TextConfig;
use crate::train::diffusion::{DataConfig, WeightsConfig};
use crate::train::official::OfficialRecipe;
use crate::yaml::{Place, YamlFile};

/// The experiment of an official configuration; `None` of any other document. Its data
/// are those of `dataloader.data_root` where that folder is there, else they come from an
/// override.
pub fn translated(file: &YamlFile) -> Result<Option<Value>, ExperimentError> {
    if !OfficialConfig::recognises(&file.root) {
        return Ok(None);
    }
    let path = file.path.as_path();
    let yaml = OfficialConfig::new(path, file.root.clone())?;
    yaml.check_training()?;
    let refused = |source| ExperimentError::Official(yaml.refused(source));
    let recipe = OfficialRecipe::read(yaml.document()).map_err(refused)?;
    let data = yaml.document().word("dataloader.data_root");
    let data = data.map_err(refused)?.map(PathBuf::from);
    if !recipe.notes.is_empty() {
        log::warn!(
            "{}: left aside: {}",
            path.display(),
            recipe.notes.join(", ")
        );
    }
    let experiment = Experiment {
        model: None,
        weights: WeightsConfig {
            config: Some(path.to_path_buf()),
            // Only where conditions are dropped would it ever be trained.
            learned_null: recipe.drop_rate > 0.0 && yaml.learns_null()?,
            ..WeightsConfig::default()
        },
        data: DataConfig {
            train: data.filter(|root| root.is_dir()).unwrap_or_default(),
            validation: None,
            drop_rate: recipe.drop_rate,
        },
        train: recipe.train,
    };
    match serde_yaml::to_value(experiment) {
        Ok(value) => Ok(Some(value)),
        Err(e) => Err(ExperimentError::Format {
            place: Place::File {
                path: path.to_path_buf(),
                line: None,
            },
            problem: e.to_string(),
        }),
    }
}

impl Experiment {
    /// Takes the model's shape from the configuration `weights.config`, where neither it
    /// nor a model file to go on from is given; of an official configuration also the
    /// codec, mapping, CLIP and vocabulary files that it names and that are not given.
    ///
    /// # Errors
    ///
    /// A file that is named, but neither there nor given; one that is not what the
    /// configuration declares.
    pub fn complete(&mut self) -> Result<(), LoadError> {
        if self.model.is_some() || self.weights.init_from.is_some() {
            return Ok(());
        }
        let Some(path) = self.weights.config.take() else {
            return Ok(());
        };
        let yaml = match ConfigFile::read(&path)? {
            ConfigFile::Own { model, .. } => {
                self.model = Some(*model);
                return Ok(());
            }
            ConfigFile::Official(yaml) => yaml,
        };
        let weights = &mut self.weights;
        for (file, named, key, what) in [
            (
                &mut weights.codec,
                yaml.codec_path()?,
                "codec",
                "image codec",
            ),
            (
                &mut weights.mapping,
                yaml.mapping_path()?,
                "mapping",
                "code mapping",
            ),
            (
                &mut weights.text,
                yaml.clip_path()?,
                "text",
                "CLIP text tower",
            ),
            (
                &mut weights.vocabulary,
                yaml.vocabulary_path()?,
                "vocabulary",
                "text vocabulary",
            ),
        ] {
            if let (None, Some(name)) = (&file, named) {
                *file = Some(named_file(&yaml, name, key, what)?);
            }
        }
        let Some(codec) = &weights.codec else {
            return Err(LoadError::Missing {
                path,
                what: "names no image codec (content_codec_config)".into(),
                remedy: "give its file as weights.codec".into(),
            });
        };
        let options = OpenOptions {
            mapping: weights.mapping.clone(),
            ..OpenOptions::default()
        };
        let file = CodecFile::open(codec, &options)?;
        let tower = match &weights.text {
            Some(text) => Some((tower_of(text, &options)?, text.clone())),
            None => None,
        };
        let model = yaml.model(&file.config, codec, tower)?;
        let side = "dataloader.train_datasets.0.params.im_preprocessor_config.params.size";
        let [height, width] = model.picture_size();
        let declared = yaml.document().integer(side).map_err(|e| yaml.refused(e))?;
        if declared.is_some_and(|side| [side; 2] != [height, width]) {
            let expected = format!("{height}, as high and wide as the model's pictures");
            return Err(yaml.refused(yaml.document().refused(side, expected)));
        }
        self.model = Some(model);
        Ok(())
    }
}

/// The file that `yaml` means by `name`.
fn named_file(
    yaml: &OfficialConfig,
    name: &str,
    key: &str,
    what: &str,
) -> Result<PathBuf, LoadError> {
    if let Some(file) = yaml.resolve(name) {
        return Ok(file);
    }
    let first = places(name, Some(yaml.path()), yaml.path()).nth(1);
    let beside = first.map_or_else(String::new, |file| {
        format!(" nor at {} or in a folder above", file.display())
    });
    Err(LoadError::Missing {
        path: yaml.path().to_path_buf(),
        what: format!("its {what}, {name}, is not in the working directory{beside}"),
        remedy: format!("put it there, or give the file as weights.{key}"),
    })
}

/// The shape of the text tower in `file`, a model file or one of CLIP.
fn tower_of(file: &Path, options: &OpenOptions) -> Result<TextConfig, LoadError> {
    let whole = Checkpoint::open(file, options)
        .or_else(|_| Checkpoint::open(file, &OpenOptions::default()));
    match whole.map(|model| model.config.text) {
        Ok(Some(text)) => Ok(text.tower),
        _ => tower_alone(&read_text_tower(file)?, file),
    }
}
