//! What a configuration file says, in words.

use std::path::Path;

use super::codec::CodecExperiment;
use super::official::translated;
use super::{Experiment, ExperimentError};
use crate::checkpoint::config_file::ConfigFile;
use crate::checkpoint::inspect::{codec_fact, denoiser_facts, model_facts, Description};
use crate::checkpoint::official::OfficialConfig;
use crate::train::diffusion::TrainConfig;
use crate::train::official::OfficialRecipe;
use crate::yaml::{Layers, YamlFile};

/// Describes an official configuration or an experiment of ours; `None` of a path that is
/// no YAML file by its name.
///
/// # Errors
///
/// A file that cannot be read or is neither, by the key that is wrong.
pub fn describe(path: &Path) -> Result<Option<Description>, ExperimentError> {
    let is_yaml = path.extension().is_some_and(|extension| {
        ["yaml", "yml"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    });
    if !is_yaml || !path.is_file() {
        return Ok(None);
    }
    let file = YamlFile::read(path).map_err(ExperimentError::Layers)?;
    if OfficialConfig::recognises(&file.root) {
        return Ok(Some(official(&OfficialConfig::new(path, file.root)?)?));
    }
    let layers = Layers::of(file, &[], translated)?;
    let root = layers.root();
    let given = |key: &str| root.get(key).is_some();
    if given("codec") && !given("model") {
        let experiment = CodecExperiment::read(path, &[])?;
        return Ok(Some(Description {
            layout: "vqdiffusion experiment of an image codec".into(),
            facts: vec![
                ("codec", codec_fact(&experiment.codec)),
                ("data", experiment.data.train.display().to_string()),
                (
                    "training",
                    format!(
                        "{} steps in batches of {}",
                        experiment.train.steps, experiment.train.batch_size
                    ),
                ),
            ],
            ..Description::default()
        }));
    }
    // A model without data is one of our configurations too.
    if given("model") && !given("data") {
        if let ConfigFile::Own { model, .. } = ConfigFile::read(path)? {
            return Ok(Some(Description {
                layout: "vqdiffusion configuration of a model".into(),
                facts: model_facts(&model),
                ..Description::default()
            }));
        }
    }
    Ok(Some(own(&Experiment::read(path, &[])?)))
}

fn own(experiment: &Experiment) -> Description {
    let mut facts = experiment
        .model
        .as_ref()
        .map(model_facts)
        .unwrap_or_default();
    let weights = &experiment.weights;
    for (name, file) in [
        ("starts from", &weights.init_from),
        ("codec file", &weights.codec),
        ("mapping file", &weights.mapping),
        ("text file", &weights.text),
    ] {
        if let Some(file) = file {
            facts.push((name, file.display().to_string()));
        }
    }
    facts.push(("data", experiment.data.train.display().to_string()));
    facts.extend(recipe(&experiment.train));
    Description {
        layout: "vqdiffusion experiment".into(),
        facts,
        ..Description::default()
    }
}

fn official(yaml: &OfficialConfig) -> Result<Description, ExperimentError> {
    let mut facts = denoiser_facts(&yaml.denoiser()?);
    let mut missing = Vec::new();
    for (name, file) in [
        ("codec file", yaml.codec_path()?),
        ("mapping file", yaml.mapping_path()?),
        ("text file", yaml.clip_path()?),
    ] {
        let Some(file) = file else { continue };
        facts.push((name, file.to_string()));
        if yaml.resolve(file).is_none() {
            missing.push(format!("{file} (looked for where relative paths may lie)"));
        }
    }
    let mut layout = "official configuration";
    if yaml.document().at("solver").is_some() {
        let read = OfficialRecipe::read(yaml.document());
        let read = read.map_err(|e| ExperimentError::Official(yaml.refused(e)))?;
        if let Some(root) = yaml.document().at("dataloader.data_root") {
            facts.push(("data", root.as_str().unwrap_or_default().to_string()));
        }
        facts.extend(recipe(&read.train));
        layout = "official configuration with its recipe of training";
    }
    Ok(Description {
        layout: layout.into(),
        facts,
        missing,
        ..Description::default()
    })
}

fn recipe(train: &TrainConfig) -> Vec<(&'static str, String)> {
    let length = match train.epochs {
        Some(epochs) => format!("{epochs} epochs"),
        None => format!("{} steps", train.steps),
    };
    let rate = &train.learning_rate;
    vec![
        (
            "training",
            format!("{length} in batches of {}", train.effective_batch()),
        ),
        (
            "rate",
            format!(
                "{:e}, in {} steps to {:e}",
                rate.start, rate.warmup, rate.peak
            ),
        ),
    ]
}
