//! A model's shape from the shapes of its weights.

use std::path::Path;

use super::error::LoadError;
use super::official::{CODEC, DENOISER, NULL_TEXT, TEXT};
use super::state_dict::StateDict;
use crate::clip::text::{FeatureConfig, MergeSource};
use crate::clip::{TextConfig, TokenRule};
use crate::codec::config::RELEASED_GROUPS;
use crate::codec::{CodecConfig, QuantizerKind};
use crate::diffusion::Transition;
use crate::model::{ModelConfig, NullText, TextCondition};
use crate::transformer::config::{
    Activation, AdaptiveNorm, FeedForwardKind, IndexEmbedding, PositionWeights,
};
use crate::transformer::{Conditioning, DenoiserConfig, NullClass};

/// Heads of every released denoiser.
pub const RELEASED_HEADS: i64 = 16;

/// Side in pixels of every released model's pictures.
const RELEASED_SIDE: i64 = 256;

/// Levels at which pictures of [`RELEASED_SIDE`] are one position.
const LEVELS: i64 = 9;

/// Classes of the released class-conditional models (ImageNet); one row more is their
/// learned null class.
pub const RELEASED_CLASSES: i64 = 1000;

/// What no weight shows of a model; where it is not said either, it is as in the released
/// ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unshown {
    /// Attention heads of the denoiser.
    pub heads: Option<i64>,
    pub activation: Option<Activation>,
    pub timestep_norm: Option<AdaptiveNorm>,
    pub class_norm: Option<AdaptiveNorm>,
    /// Classes, with one for "none" if there is one, where no table of them shows it.
    pub class_rows: Option<i64>,
    /// Whether the text features are divided by their norms.
    pub normalized_text: Option<bool>,
    /// Token grid, which may be smaller than the position table.
    pub grid: Option<[i64; 2]>,
}

impl Unshown {
    /// That of `model`.
    pub fn of(model: &ModelConfig) -> Self {
        let d = &model.denoiser;
        let (class_norm, class_rows) = match d.condition {
            Conditioning::Class {
                classes,
                null,
                norm,
                ..
            } => {
                let rows = classes + i64::from(null == NullClass::Learned);
                (Some(norm), Some(rows))
            }
            _ => (None, None),
        };
        let features = model.text.as_ref().map(|text| text.tower.features);
        Unshown {
            heads: Some(d.heads),
            activation: Some(d.activation),
            timestep_norm: Some(d.timestep_norm),
            class_norm,
            class_rows,
            normalized_text: features.map(|features| features.normalized),
            grid: Some(d.grid),
        }
    }

    /// What is taken for a model of which nothing is said.
    pub fn released() -> String {
        format!("{RELEASED_HEADS} attention heads, the activation GELU2, adaptive layer norms")
    }
}

/// The classes of a model with `rows` class embeddings, and what stands for none.
pub fn classes_of(rows: i64, embedding: IndexEmbedding, norm: AdaptiveNorm) -> (i64, NullClass) {
    match rows - RELEASED_CLASSES {
        1 => (RELEASED_CLASSES, NullClass::Learned),
        _ if (embedding, norm) == (IndexEmbedding::Table, AdaptiveNorm::Layer) => {
            (rows, NullClass::Mean)
        }
        _ => (rows, NullClass::Absent),
    }
}

/// Reads shapes of one file and names the tensor when one is not as it must be.
struct Shapes<'a> {
    state: &'a StateDict,
    path: &'a Path,
}

impl Shapes<'_> {
    /// The shape of `name`, which must have N dimensions, none of them 0.
    fn of<const N: usize>(&self, name: &str) -> Result<[i64; N], LoadError> {
        let problem = |problem: String| LoadError::Tensor {
            file: self.path.to_path_buf(),
            key: name.to_string(),
            problem,
        };
        let shape = self
            .state
            .shape(name)
            .ok_or_else(|| problem("missing; without it the model's size is unknown".into()))?;
        match <[i64; N]>::try_from(shape) {
            Ok(shape) if shape.iter().all(|&n| n > 0) => Ok(shape),
            _ => Err(problem(format!(
                "shape {shape:?}, expected {N} dimensions, none of them 0"
            ))),
        }
    }
}

/// The whole model.
///
/// # Errors
///
/// Tensors that are missing or misshapen where the model's size depends on them.
pub fn model(state: &StateDict, path: &Path, unshown: &Unshown) -> Result<ModelConfig, LoadError> {
    let shapes = Shapes { state, path };
    let mut denoiser = denoiser(&shapes, unshown)?;
    let table = denoiser.position_table;
    let mut codec = codec(&shapes)?;
    let text = match denoiser.condition {
        Conditioning::Text { width, .. } => {
            let mut text = text(&shapes)?;
            text.tower.features = FeatureConfig {
                normalized: unshown.normalized_text.unwrap_or(true),
                doubled: width == 2 * text.tower.width,
            };
            Some(text)
        }
        _ => {
            // The released class and unconditional models use a part of their table.
            denoiser.grid = part_of_table(table, &codec);
            None
        }
    };
    codec.set_resolution(denoiser.grid[0] * codec.factor());
    let mut model = ModelConfig {
        text,
        transition: Transition::released(),
        denoiser,
        codec,
        sampling: None,
    };
    if let Some(grid) = unshown.grid {
        use_grid(&mut model, grid);
    }
    Ok(model)
}

/// The token grid of a model without text, by its position table.
fn part_of_table(table: [i64; 2], codec: &CodecConfig) -> [i64; 2] {
    table.map(|side| side.min(RELEASED_SIDE / codec.factor()).max(1))
}

/// The token grid that [`model`] would find for a model like this one.
pub fn usual_grid(model: &ModelConfig) -> [i64; 2] {
    let table = model.denoiser.position_table;
    match model.text {
        Some(_) => table,
        None => part_of_table(table, &model.codec),
    }
}

/// Sets the token grid of `model`. A grid that has more tokens than the position table is
/// not taken over.
fn use_grid(model: &mut ModelConfig, grid: [i64; 2]) {
    let table = model.denoiser.position_table;
    let tokens = grid[0].checked_mul(grid[1]);
    if grid.iter().any(|&side| side < 1) || tokens.is_none_or(|n| n > table[0] * table[1]) {
        return;
    }
    model.codec.set_resolution(grid[0] * model.codec.factor());
    model.denoiser.grid = grid;
}

fn denoiser(shapes: &Shapes, unshown: &Unshown) -> Result<DenoiserConfig, LoadError> {
    let name = |rest: &str| format!("{DENOISER}.{rest}");
    let state = shapes.state;
    let [tokens, width] = shapes.of(&name("content_emb.emb.weight"))?;
    let (position_weights, position_table) = positions(shapes)?;
    let condition = conditioning(shapes, unshown)?;
    let table = name("blocks.0.ln1.emb.weight");
    let (timesteps, timestep_embedding) = if state.contains(&table) {
        let [steps, _] = shapes.of(&table)?;
        (steps, IndexEmbedding::Table)
    } else {
        let [steps] = shapes.of("transformer.log_at")?;
        (steps, IndexEmbedding::Sinusoid)
    };
    let conv = name("blocks.0.mlp.conv1.weight");
    let (hidden, feed_forward) = if state.contains(&conv) {
        let [hidden, ..] = shapes.of::<4>(&conv)?;
        (hidden, FeedForwardKind::Conv)
    } else {
        let [hidden, _] = shapes.of(&name("blocks.0.mlp.0.weight"))?;
        (hidden, FeedForwardKind::Fc)
    };
    if hidden % width != 0 {
        return Err(LoadError::Format {
            path: shapes.path.to_path_buf(),
            problem: format!(
                "its feed-forward parts are {hidden} wide, expected a multiple of the width \
                 {width} (mlp_hidden_times)"
            ),
        });
    }
    let heads = unshown.heads.unwrap_or(RELEASED_HEADS);
    if heads < 1 || width % heads != 0 {
        return Err(LoadError::Format {
            path: shapes.path.to_path_buf(),
            problem: format!(
                "{heads} attention heads do not divide the width {width}; give the number of \
                 heads (n_head) with a configuration"
            ),
        });
    }
    Ok(DenoiserConfig {
        layers: state.count_indexed(&name("blocks.")),
        width,
        heads,
        codes: tokens - 1,
        grid: position_table,
        position_table,
        position_weights,
        timesteps,
        timestep_embedding,
        timestep_norm: unshown.timestep_norm.unwrap_or_default(),
        feed_forward,
        activation: unshown.activation.unwrap_or_default(),
        expansion: hidden / width,
        condition,
    })
}

/// How the position tables are kept, and their rows for heights and widths.
fn positions(shapes: &Shapes) -> Result<(PositionWeights, [i64; 2]), LoadError> {
    let name = |rest: &str| format!("{DENOISER}.content_emb.{rest}");
    if shapes.state.contains(&name("height_emb")) {
        let [_, rows, _] = shapes.of(&name("height_emb"))?;
        let [_, columns, _] = shapes.of(&name("width_emb"))?;
        return Ok((PositionWeights::Parameter, [rows, columns]));
    }
    let [rows, _] = shapes.of(&name("height_emb.weight"))?;
    let [columns, _] = shapes.of(&name("width_emb.weight"))?;
    Ok((PositionWeights::Embedding, [rows, columns]))
}

/// What the blocks take besides tokens and time.
fn conditioning(shapes: &Shapes, unshown: &Unshown) -> Result<Conditioning, LoadError> {
    let name = |rest: &str| format!("{DENOISER}.blocks.0.{rest}");
    let state = shapes.state;
    if state.has_prefix(&name("attn2.")) {
        let [_, width] = shapes.of(&name("attn2.key.weight"))?;
        let [positions, _] = shapes.of(&format!("{TEXT}.positional_embedding"))?;
        return Ok(Conditioning::Text { positions, width });
    }
    if !state.has_prefix(&name("attn.")) {
        return Err(LoadError::Format {
            path: shapes.path.to_path_buf(),
            problem: format!(
                "its denoiser is of an unknown kind (no tensor '{0}1.*' or '{0}.*')",
                name("attn")
            ),
        });
    }
    if !state.contains(&name("ln2.linear.weight")) {
        return Ok(Conditioning::Unconditional);
    }
    let table = name("ln2.emb.weight");
    let (rows, embedding) = match state.contains(&table) {
        true => {
            let [rows, _] = shapes.of(&table)?;
            (rows, IndexEmbedding::Table)
        }
        false => {
            let rows = unshown.class_rows.unwrap_or(RELEASED_CLASSES);
            (rows, IndexEmbedding::Sinusoid)
        }
    };
    let norm = unshown.class_norm.unwrap_or_default();
    let (classes, null) = classes_of(rows, embedding, norm);
    Ok(Conditioning::Class {
        classes,
        null,
        embedding,
        norm,
    })
}

/// The text tower of a file that holds nothing else.
pub fn tower_alone(state: &StateDict, path: &Path) -> Result<TextConfig, LoadError> {
    Ok(text(&Shapes { state, path })?.tower)
}

fn text(shapes: &Shapes) -> Result<TextCondition, LoadError> {
    let name = |rest: &str| format!("{TEXT}.{rest}");
    let [vocabulary, width] = shapes.of(&name("token_embedding.weight"))?;
    let [context, _] = shapes.of(&name("positional_embedding"))?;
    let [hidden, _] = shapes.of(&name("transformer.resblocks.0.mlp.c_fc.weight"))?;
    let tower = TextConfig {
        vocabulary,
        merges: MergeSource::Clip,
        context,
        width,
        layers: shapes.state.count_indexed(&name("transformer.resblocks.")),
        heads: (width / 64).max(1),
        hidden,
        tokens: TokenRule::Official,
        features: FeatureConfig::default(),
    };
    let null = if shapes.state.contains(NULL_TEXT) {
        NullText::Learned
    } else {
        NullText::EmptyPrompt
    };
    Ok(TextCondition { tower, null })
}

/// The codec of a file that holds nothing else.
pub fn codec_alone(state: &StateDict, path: &Path) -> Result<CodecConfig, LoadError> {
    codec(&Shapes { state, path })
}

/// The codec, as made for pictures of [`RELEASED_SIDE`].
fn codec(shapes: &Shapes) -> Result<CodecConfig, LoadError> {
    let name = |rest: &str| format!("{CODEC}.{rest}");
    let state = shapes.state;
    let [channels, ..] = shapes.of::<4>(&name("encoder.conv_in.weight"))?;
    let levels = state.count_indexed(&name("encoder.down."));
    if levels > LEVELS {
        return Err(LoadError::Format {
            path: shapes.path.to_path_buf(),
            problem: format!("its codec has {levels} levels, expected at most {LEVELS}"),
        });
    }
    let mut multipliers = Vec::new();
    let mut attention_resolutions = Vec::new();
    for level in 0..levels.max(1) {
        let down = name(&format!("encoder.down.{level}"));
        let [width, ..] = shapes.of::<4>(&format!("{down}.block.0.conv1.weight"))?;
        multipliers.push(width / channels);
        if state.has_prefix(&format!("{down}.attn.")) {
            attention_resolutions.push(RELEASED_SIDE >> level);
        }
    }
    let [latent_channels, ..] = shapes.of::<4>(&name("encoder.conv_out.weight"))?;
    let tables = [
        ("embed.weight", QuantizerKind::Gumbel),
        ("embedding.weight", QuantizerKind::Vector),
        ("embedding", QuantizerKind::Ema),
    ]
    .map(|(table, kind)| (name(&format!("quantize.{table}")), kind));
    let [.., last] = &tables;
    let (table, quantizer) = tables
        .iter()
        .find(|(table, _)| state.contains(table))
        .unwrap_or(last);
    let [codebook, embedding_width] = shapes.of(table)?;
    Ok(CodecConfig {
        resolution: RELEASED_SIDE,
        channels,
        multipliers,
        residual_blocks: state.count_indexed(&name("encoder.down.0.block.")),
        attention_resolutions,
        latent_channels,
        embedding_width,
        codebook,
        quantizer: *quantizer,
        norm_groups: RELEASED_GROUPS,
    })
}
