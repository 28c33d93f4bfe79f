//! A model's shape from the shapes of its weights.

use std::path::Path;

use super::error::LoadError;
use super::official::{CODEC, DENOISER, NULL_TEXT, TEXT};
use super::state_dict::StateDict;
use crate::clip::TextConfig;
use crate::codec::{CodecConfig, QuantizerKind};
use crate::diffusion::Transition;
use crate::model::{ModelConfig, NullText};
use crate::transformer::config::{DenoiserConfig, FeedForwardKind, TimestepEmbedding};

/// Heads of every released denoiser: the one number that no weight shows.
pub const RELEASED_HEADS: i64 = 16;

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
    let null_text = if state.contains(NULL_TEXT) {
        NullText::Learned
    } else {
        NullText::EmptyPrompt
    };
    let denoiser = denoiser(&shapes, heads)?;
    let codec = codec(&shapes, denoiser.grid[0])?;
    Ok(ModelConfig {
        text: text(&shapes)?,
        transition: Transition::released(),
        null_text,
        denoiser,
        codec,
    })
}

/// Sets the token grid of `model`, which [`model`] takes to be as large as the
/// position table. A grid that has more tokens than the table is not taken over.
pub fn use_grid(model: &mut ModelConfig, grid: [i64; 2]) {
    let table = model.denoiser.position_table;
    let tokens = grid[0].checked_mul(grid[1]);
    if grid.iter().any(|&side| side < 1) || tokens.is_none_or(|n| n > table[0] * table[1]) {
        return;
    }
    let codec = &mut model.codec;
    for side in codec.attention_resolutions.iter_mut() {
        *side = *side * grid[0] / model.denoiser.grid[0];
    }
    codec.resolution = codec.resolution * grid[0] / model.denoiser.grid[0];
    model.denoiser.grid = grid;
}

fn denoiser(shapes: &Shapes, heads: Option<i64>) -> Result<DenoiserConfig, LoadError> {
    let name = |rest: &str| format!("{DENOISER}.{rest}");
    let state = shapes.state;
    if !state.has_prefix(&name("blocks.0.attn2.")) {
        let problem = if state.has_prefix(&name("blocks.0.attn.")) {
            "this is a class-conditional or unconditional model; only text-conditioned ones are read"
        } else {
            "no text-conditioned denoiser in it (no tensor 'blocks.0.attn2.*')"
        };
        return Err(LoadError::Format {
            path: shapes.path.to_path_buf(),
            problem: problem.into(),
        });
    }
    let [classes, width] = shapes.of(&name("content_emb.emb.weight"))?;
    let [rows, _] = shapes.of(&name("content_emb.height_emb.weight"))?;
    let [columns, _] = shapes.of(&name("content_emb.width_emb.weight"))?;
    let [_, text_width] = shapes.of(&name("blocks.0.attn2.key.weight"))?;
    let [text_positions, _] = shapes.of(&format!("{TEXT}.positional_embedding"))?;
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
        codes: classes - 1,
        grid: [rows, columns],
        position_table: [rows, columns],
        timesteps,
        timestep_embedding,
        feed_forward,
        expansion: hidden / width,
        text_width,
        text_positions,
    })
}

fn text(shapes: &Shapes) -> Result<TextConfig, LoadError> {
    let name = |rest: &str| format!("{TEXT}.{rest}");
    let [vocabulary, width] = shapes.of(&name("token_embedding.weight"))?;
    let [context, _] = shapes.of(&name("positional_embedding"))?;
    let [hidden, _] = shapes.of(&name("transformer.resblocks.0.mlp.c_fc.weight"))?;
    Ok(TextConfig {
        vocabulary,
        context,
        width,
        layers: shapes.state.count_indexed(&name("transformer.resblocks.")),
        heads: (width / 64).max(1),
        hidden,
    })
}

/// The codec, whose pictures are `grid` tokens high.
fn codec(shapes: &Shapes, grid: i64) -> Result<CodecConfig, LoadError> {
    let name = |rest: &str| format!("{CODEC}.{rest}");
    let state = shapes.state;
    let [channels, ..] = shapes.of::<4>(&name("encoder.conv_in.weight"))?;
    let levels = state.count_indexed(&name("encoder.down."));
    let resolution = grid << (levels - 1).clamp(0, 16);
    let mut multipliers = Vec::new();
    let mut attention_resolutions = Vec::new();
    for level in 0..levels {
        let down = name(&format!("encoder.down.{level}"));
        let [width, ..] = shapes.of::<4>(&format!("{down}.block.0.conv1.weight"))?;
        multipliers.push(width / channels);
        if state.has_prefix(&format!("{down}.attn.")) {
            attention_resolutions.push(resolution >> level);
        }
    }
    let [latent_channels, ..] = shapes.of::<4>(&name("encoder.conv_out.weight"))?;
    let gumbel = name("quantize.embed.weight");
    let ([codebook, embedding_width], quantizer) = if state.contains(&gumbel) {
        (shapes.of(&gumbel)?, QuantizerKind::Gumbel)
    } else {
        (shapes.of(&name("quantize.embedding"))?, QuantizerKind::Ema)
    };
    Ok(CodecConfig {
        resolution,
        channels,
        multipliers,
        residual_blocks: state.count_indexed(&name("encoder.down.0.block.")),
        attention_resolutions,
        latent_channels,
        embedding_width,
        codebook,
        quantizer,
    })
}
