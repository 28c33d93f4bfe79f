//! A model's shape from the shapes of its weights.

use std::path::Path;

use super::error::LoadError;
use super::official::{CODEC, DENOISER, NULL_TEXT, TEXT};
use super::state_dict::StateDict;
use crate::clip::text::MergeSource;
use crate::clip::{TextConfig, TokenRule};
use crate::codec::config::RELEASED_GROUPS;
use crate::codec::{CodecConfig, QuantizerKind};
use crate::diffusion::Transition;
use crate::model::{ModelConfig, NullText, TextCondition};
use crate::transformer::config::{FeedForwardKind, TimestepEmbedding};
use crate::transformer::{Conditioning, DenoiserConfig, NullClass};

/// Heads of every released denoiser: the one number that no weight shows.
pub const RELEASED_HEADS: i64 = 16;

/// Side in pixels of every released model's pictures.
const RELEASED_SIDE: i64 = 256;

/// Levels at which pictures of [`RELEASED_SIDE`] are one position.
const LEVELS: i64 = 9;

/// Classes of the released class-conditional models (ImageNet); one row more is their
/// learned null class.
pub const RELEASED_CLASSES: i64 = 1000;

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

/// The whole model. `heads` overrides the denoiser's number of attention heads.
pub fn model(state: &StateDict, path: &Path, heads: Option<i64>) -> Result<ModelConfig, LoadError> {
    let shapes = Shapes { state, path };
    let mut denoiser = denoiser(&shapes, heads)?;
    let table = denoiser.position_table;
    let mut codec = codec(&shapes)?;
    let text = match denoiser.condition {
        Conditioning::Text { .. } => Some(text(&shapes)?),
        _ => {
            // The released class and unconditional models use a part of their table.
            denoiser.grid = part_of_table(table, &codec);
            None
        }
    };
    codec.set_resolution(denoiser.grid[0] * codec.factor());
    Ok(ModelConfig {
        text,
        transition: Transition::released(),
        denoiser,
        codec,
        sampling: None,
    })
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

/// Sets the token grid of `model`, which no weight shows. A grid that has more tokens
/// than the position table is not taken over.
pub fn use_grid(model: &mut ModelConfig, grid: [i64; 2]) {
    let table = model.denoiser.position_table;
    let tokens = grid[0].checked_mul(grid[1]);
    if grid.iter().any(|&side| side < 1) || tokens.is_none_or(|n| n > table[0] * table[1]) {
        return;
    }
    model.codec.set_resolution(grid[0] * model.codec.factor());
    model.denoiser.grid = grid;
}

fn denoiser(shapes: &Shapes, heads: Option<i64>) -> Result<DenoiserConfig, LoadError> {
    let name = |rest: &str| format!("{DENOISER}.{rest}");
    let state = shapes.state;
    let [tokens, width] = shapes.of(&name("content_emb.emb.weight"))?;
    let [rows, _] = shapes.of(&name("content_emb.height_emb.weight"))?;
    let [columns, _] = shapes.of(&name("content_emb.width_emb.weight"))?;
    let condition = conditioning(shapes)?;
    let table = name("blocks.0.ln1.emb.weight");
    let (timesteps, timestep_embedding) = if state.contains(&table) {
        let [steps, _] = shapes.of(&table)?;
        (steps, TimestepEmbedding::Table)
    } else {
        let [steps] = shapes.of("transformer.log_at")?;
        (steps, TimestepEmbedding::Sinusoid)
    };
    let conv = name("blocks.0.mlp.conv1.weight");
    let (hidden, feed_forward) = if state.contains(&conv) {
        let [hidden, ..] = shapes.of::<4>(&conv)?;
        (hidden, FeedForwardKind::Conv)
    } else {
        let [hidden, _] = shapes.of(&name("blocks.0.mlp.0.weight"))?;
        (hidden, FeedForwardKind::Fc)
    };
    let heads = heads.unwrap_or(RELEASED_HEADS);
    if heads < 1 || width % heads != 0 {
        return Err(LoadError::Format {
            path: shapes.path.to_path_buf(),
            problem: format!(
                "{heads} attention heads do not divide the width {width}; give the number of \
                 heads (n_head) with --config"
            ),
        });
    }
    Ok(DenoiserConfig {
        layers: state.count_indexed(&name("blocks.")),
        width,
        heads,
        codes: tokens - 1,
        grid: [rows, columns],
        position_table: [rows, columns],
        timesteps,
        timestep_embedding,
        feed_forward,
        expansion: hidden / width,
        condition,
    })
}

/// What the blocks take besides tokens and time.
fn conditioning(shapes: &Shapes) -> Result<Conditioning, LoadError> {
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
    let table = name("ln2.emb.weight");
    if !state.contains(&table) {
        return Ok(Conditioning::Unconditional);
    }
    let [rows, _] = shapes.of(&table)?;
    let (classes, null) = match rows - RELEASED_CLASSES {
        1 => (RELEASED_CLASSES, NullClass::Learned),
        _ => (rows, NullClass::Mean),
    };
    Ok(Conditioning::Class { classes, null })
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
