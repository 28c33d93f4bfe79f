//! What a file is, in words.

use std::path::Path;

use super::clip::tower::read_text_tower;
use super::codec_file::CodecFile;
use super::config_file::ConfigFile;
use super::error::LoadError;
use super::infer::{self, Unshown};
use super::native;
use super::official::{self, OfficialKind, CODEC, DENOISER, NULL_TEXT, TEXT};
use super::open::{Checkpoint, Layout, OpenOptions};
use super::safetensors_file::is_safetensors;
use super::state_dict::{read_safetensors, StateDict};
use crate::codec::CodecConfig;
use crate::model::{ModelConfig, NullText, TextCondition};
use crate::transformer::config::{
    Activation, AdaptiveNorm, FeedForwardKind, IndexEmbedding, PositionWeights,
};
use crate::transformer::{Conditioning, DenoiserConfig, NullClass};

/// What [`describe`] found.
#[derive(Clone, Debug, Default)]
pub struct Description {
    pub layout: String,
    /// Name and value of what is known.
    pub facts: Vec<(&'static str, String)>,
    /// Part of the model, its tensors, its parameters.
    pub parts: Vec<(&'static str, usize, i64)>,
    /// What is needed to sample but not in the file, and what to do.
    pub missing: Vec<String>,
    /// What the file says of licences and authors.
    pub notice: Option<String>,
}

/// Describes any file that can be read: a whole model, a codec, a code mapping.
///
/// # Errors
///
/// Only a file that is none of these, or damaged; what is merely missing for
/// sampling is part of the description.
pub fn describe(path: &Path, options: &OpenOptions) -> Result<Description, LoadError> {
    match Checkpoint::open(path, options) {
        Ok(checkpoint) => Ok(whole_model(&checkpoint, options.config.is_some())),
        Err(error @ LoadError::Missing { .. }) => incomplete(path, options, &error),
        Err(error) => match part_of_a_model(path, options) {
            Ok(Some(description)) => Ok(description),
            _ => Err(error),
        },
    }
}

fn whole_model(checkpoint: &Checkpoint, has_config: bool) -> Description {
    let mut facts = model_facts(&checkpoint.config);
    if matches!(checkpoint.layout, Layout::Official { .. }) && !has_config {
        facts.push(("assumed", assumed()));
    }
    let layout = match checkpoint.layout {
        Layout::Native => "vqdiffusion (safetensors with configuration)".to_string(),
        Layout::Official { has_ema, used } => training_layout(has_ema, used),
        Layout::Diffusers => "diffusers folder (VQDiffusionPipeline)".to_string(),
    };
    Description {
        layout,
        facts,
        parts: parts(&checkpoint.state),
        missing: Vec::new(),
        notice: checkpoint.notice.clone(),
    }
}

/// What was taken of a model that no weight shows.
fn assumed() -> String {
    format!(
        "{}: no weight shows them (OpenOptions::config says otherwise)",
        Unshown::released()
    )
}

fn training_layout(has_ema: bool, used: official::WeightSet) -> String {
    match (has_ema, used) {
        (true, official::WeightSet::Ema) => {
            "official training checkpoint, EMA weights taken".into()
        }
        (true, official::WeightSet::Model) => {
            "official training checkpoint, plain weights taken".into()
        }
        (false, _) => "official training checkpoint without EMA".into(),
    }
}

/// A checkpoint that lacks its codec or its code mapping.
fn incomplete(
    path: &Path,
    options: &OpenOptions,
    error: &LoadError,
) -> Result<Description, LoadError> {
    let (state, _) = official::read(path, options.weights)?;
    let unshown = options
        .config
        .as_deref()
        .and_then(|config| ConfigFile::read(config).ok()?.unshown().ok())
        .unwrap_or_default();
    let mut facts = match infer::model(&state, path, &unshown) {
        Ok(model) => model_facts(&model),
        Err(_) => Vec::new(),
    };
    if options.config.is_none() && !facts.is_empty() {
        facts.push(("assumed", assumed()));
    }
    let LoadError::Missing { what, remedy, .. } = error else {
        return Ok(Description::default());
    };
    Ok(Description {
        layout: "official training checkpoint".into(),
        facts,
        parts: parts(&state),
        missing: vec![format!("{what}; {remedy}")],
        notice: None,
    })
}

/// A codec file, a code mapping, or safetensors of something else; `None` if a whole
/// model is in it, so that whatever was wrong with it is the answer.
fn part_of_a_model(path: &Path, options: &OpenOptions) -> Result<Option<Description>, LoadError> {
    if is_safetensors(path)? {
        let (state, metadata) = read_safetensors(path)?;
        if state.has_prefix(DENOISER) {
            return Ok(None);
        }
        if let Ok(file) = CodecFile::open(path, options) {
            return Ok(Some(Description {
                layout: "vqdiffusion image codec (safetensors with configuration)".into(),
                facts: vec![("codec", codec_fact(&file.config))],
                parts: parts(&file.state),
                missing: vec!["a denoiser; this file cannot be sampled from".into()],
                notice: None,
            }));
        }
        if metadata.contains_key(native::ENTRY) {
            return Ok(None);
        }
        return Ok(Some(Description {
            layout: "safetensors without our header".into(),
            parts: vec![("tensors", state.len(), parameters(&state, ""))],
            missing: vec!["the configuration of a model; this file cannot be sampled from".into()],
            ..Description::default()
        }));
    }
    if let Ok(mapping) = official::read_mapping(path) {
        return Ok(Some(Description {
            layout: "code mapping".into(),
            facts: vec![(
                "codes",
                format!("{:?} {}", mapping.shape, mapping.dtype.name()),
            )],
            ..Description::default()
        }));
    }
    let Ok((state, kind)) = official::read(path, options.weights) else {
        return Ok(Some(Description {
            parts: parts(&read_text_tower(path)?),
            layout: "CLIP with its text tower".into(),
            missing: vec!["a denoiser; this file is for OpenOptions::text_encoder".into()],
            ..Description::default()
        }));
    };
    if state.has_prefix(&format!("{DENOISER}.")) {
        return Ok(None);
    }
    let (layout, facts) = match kind {
        OfficialKind::Codec => {
            let codec = infer::codec_alone(&state, path)?;
            let facts = vec![("codec", codec_fact(&codec))];
            ("image codec alone (taming)".to_string(), facts)
        }
        OfficialKind::Training { has_ema } => {
            (training_layout(has_ema, options.weights), Vec::new())
        }
    };
    Ok(Some(Description {
        layout,
        facts,
        parts: parts(&state),
        missing: vec!["a denoiser; this file cannot be sampled from".into()],
        notice: None,
    }))
}

/// Facts of a whole model.
pub fn model_facts(model: &ModelConfig) -> Vec<(&'static str, String)> {
    let d = &model.denoiser;
    let [height, width] = model.picture_size();
    let mut facts = denoiser_facts(d);
    if let Some(TextCondition { tower, null }) = &model.text {
        let null = match null {
            NullText::Learned => "learned",
            NullText::EmptyPrompt => "the empty prompt",
        };
        facts.push((
            "text",
            format!(
                "CLIP tower of {} blocks, width {}, vocabulary {}, null text: {null}",
                tower.layers, tower.width, tower.vocabulary
            ),
        ));
    }
    let codec = codec_fact(&model.codec);
    facts.push(("codec", format!("{codec}, {width}×{height} pictures")));
    facts
}

/// Facts of a denoiser.
pub fn denoiser_facts(d: &DenoiserConfig) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("variant", variant(d)),
        ("denoiser", denoiser_fact(d)),
        (
            "tokens",
            format!(
                "{}×{} of {} codes, {} diffusion steps",
                d.grid[0], d.grid[1], d.codes, d.timesteps
            ),
        ),
    ];
    if let Conditioning::Class {
        classes,
        null,
        embedding,
        norm,
    } = d.condition
    {
        let null = match null {
            NullClass::Learned => "a learned row",
            NullClass::Mean => "the mean of the classes",
            NullClass::Absent => "none",
        };
        let mut fact = format!("{classes}, null class: {null}");
        match (embedding, norm) {
            (IndexEmbedding::Table, AdaptiveNorm::Layer) => {}
            _ => fact += &format!(", {}", official::norm_name(embedding, norm)),
        }
        facts.push(("classes", fact));
    }
    facts
}

/// Its sizes, and the kinds of its parts where they are not the released ones.
fn denoiser_fact(d: &DenoiserConfig) -> String {
    let feed_forward = match d.feed_forward {
        FeedForwardKind::Fc => "dense",
        FeedForwardKind::Conv => "convolutional",
    };
    let timesteps = match d.timestep_embedding {
        IndexEmbedding::Table => "learned",
        IndexEmbedding::Sinusoid => "sinusoidal",
    };
    let mut fact = format!(
        "{} blocks, width {}, {} heads, {feed_forward} feed-forward ×{}, {timesteps} timesteps",
        d.layers, d.width, d.heads, d.expansion
    );
    if d.activation == Activation::Gelu {
        fact += ", GELU";
    }
    if d.timestep_norm == AdaptiveNorm::Instance {
        fact += ", instance norms of the time";
    }
    if d.position_weights == PositionWeights::Parameter {
        fact += ", positions as parameters";
    }
    fact
}

/// An image codec in words.
pub fn codec_fact(codec: &CodecConfig) -> String {
    format!(
        "{} quantizer, {} codes, factor {}",
        codec.quantizer,
        codec.codebook,
        codec.factor()
    )
}

/// What it is conditioned on, and the published name of its size if it has one.
fn variant(config: &DenoiserConfig) -> String {
    let kind = match config.condition {
        Conditioning::Text { .. } => "text-conditioned",
        Conditioning::Class { .. } => "class-conditional",
        Conditioning::Unconditional => "unconditional",
    };
    let size = match (config.condition, config.layers, config.width) {
        (Conditioning::Text { .. }, 19, 1024) => ", size B (COCO, CUB-200, Conceptual Captions)",
        (Conditioning::Text { .. }, 18, 192) => ", size S",
        (Conditioning::Text { .. }, 36, 1408) => ", size L (ITHQ)",
        (Conditioning::Class { .. }, 24, 512) => ", the ImageNet size",
        (Conditioning::Unconditional, 20, 512) => ", the FFHQ size",
        _ => "",
    };
    format!("{kind}{size}")
}

fn parts(state: &StateDict) -> Vec<(&'static str, usize, i64)> {
    [
        ("  denoiser", DENOISER),
        ("  text tower", TEXT),
        ("  null text", NULL_TEXT),
        ("  codec", CODEC),
    ]
    .into_iter()
    .map(|(label, prefix)| {
        let tensors = sampled(state, prefix).count();
        (label, tensors, parameters(state, prefix))
    })
    .filter(|(_, tensors, _)| *tensors > 0)
    .collect()
}

fn parameters(state: &StateDict, prefix: &str) -> i64 {
    sampled(state, prefix).map(|entry| entry.numel()).sum()
}

/// The entries below `prefix` that a model is made of.
fn sampled<'a>(
    state: &'a StateDict,
    prefix: &'a str,
) -> impl Iterator<Item = &'a super::state_dict::Entry> {
    state
        .iter()
        .filter(move |(name, _)| {
            name.starts_with(prefix) && official::known_and_ignored(name).is_none()
        })
        .map(|(_, entry)| entry)
}
