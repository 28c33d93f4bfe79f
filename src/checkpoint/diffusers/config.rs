//! The configurations of a diffusers folder and the shape of our model.

use std::fmt::Debug;
use std::path::Path;

use serde::Deserialize;

use super::super::error::LoadError;
use super::layout::{format_error, read_json, Component, SCHEDULER};
use super::tokenizer::token_rule;
use crate::clip::merges::FULL_VOCABULARY;
use crate::clip::text::{FeatureConfig, MergeSource};
use crate::clip::TextConfig;
use crate::codec::{CodecConfig, QuantizerKind};
use crate::diffusion::Transition;
use crate::model::{ModelConfig, NullText, TextCondition};
use crate::transformer::config::{
    Activation, AdaptiveNorm, FeedForwardKind, IndexEmbedding, PositionWeights,
};
use crate::transformer::{Conditioning, DenoiserConfig};

/// The activations that diffusers' network and ours have in common; the first is, despite
/// its name, x·σ(1.702 x) without a gate.
const ACTIVATIONS: [(&str, Activation); 2] = [
    ("geglu-approximate", Activation::Gelu2),
    ("gelu", Activation::Gelu),
];
/// diffusers' feed-forward parts have no other expansion.
pub const EXPANSION: i64 = 4;

#[derive(Deserialize)]
struct Transformer {
    num_attention_heads: i64,
    attention_head_dim: i64,
    num_layers: i64,
    cross_attention_dim: i64,
    attention_bias: bool,
    sample_size: i64,
    num_vector_embeds: i64,
    num_embeds_ada_norm: i64,
    activation_fn: String,
    /// Absent before 2023, "layer_norm" where a later version saved such a model again.
    #[serde(default)]
    norm_type: Option<String>,
    #[serde(default)]
    only_cross_attention: bool,
    #[serde(default)]
    double_self_attention: bool,
}

#[derive(Deserialize)]
struct Vqvae {
    in_channels: i64,
    out_channels: i64,
    block_out_channels: Vec<i64>,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    layers_per_block: i64,
    latent_channels: i64,
    #[serde(default)]
    vq_embed_dim: Option<i64>,
    num_vq_embeddings: i64,
    norm_num_groups: i64,
    act_fn: String,
    /// "spatial" normalises by the codes (MOVQ).
    #[serde(default)]
    norm_type: Option<String>,
}

/// What transformers leaves out of a file has its default.
#[derive(Deserialize)]
#[serde(default)]
struct Text {
    hidden_act: String,
    hidden_size: i64,
    intermediate_size: i64,
    layer_norm_eps: f64,
    max_position_embeddings: i64,
    num_attention_heads: i64,
    num_hidden_layers: i64,
    vocab_size: i64,
}

impl Default for Text {
    /// `CLIPTextConfig` of transformers.
    fn default() -> Self {
        Text {
            hidden_act: "quick_gelu".into(),
            hidden_size: 512,
            intermediate_size: 2048,
            layer_norm_eps: 1e-5,
            max_position_embeddings: 77,
            num_attention_heads: 8,
            num_hidden_layers: 12,
            vocab_size: FULL_VOCABULARY as i64,
        }
    }
}

#[derive(Deserialize)]
struct Scheduler {
    num_vec_classes: i64,
    num_train_timesteps: i64,
    alpha_cum_start: f64,
    alpha_cum_end: f64,
    gamma_cum_start: f64,
    gamma_cum_end: f64,
}

#[derive(Deserialize)]
struct NullEmbedding {
    learnable: bool,
    #[serde(default)]
    hidden_size: Option<i64>,
    #[serde(default)]
    length: Option<i64>,
}

/// The `activation_fn` of an activation.
pub fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::Gelu2 => ACTIVATIONS[0].0,
        Activation::Gelu => ACTIVATIONS[1].0,
    }
}

fn activation(name: &str) -> Option<Activation> {
    let known = ACTIVATIONS.iter().find(|(known, _)| *known == name);
    known.map(|(_, activation)| *activation)
}

/// Whether the model needs the null text's weights.
pub fn has_learned_null(model: &ModelConfig) -> bool {
    matches!(&model.text, Some(text) if text.null == NullText::Learned)
}

/// `key` is `found`, and that is what this model can be; else the problem.
fn expect(ok: bool, key: &str, found: &dyn Debug, wanted: &str) -> Result<(), String> {
    match ok {
        true => Ok(()),
        false => Err(format!("{key} is {found:?}, expected {wanted}")),
    }
}

fn expect_positive(sizes: &[(&str, i64)]) -> Result<(), String> {
    for (key, size) in sizes {
        let ok = (1..1 << 20).contains(size);
        expect(ok, key, size, "a positive number below 2^20")?;
    }
    Ok(())
}

impl Transformer {
    fn check(&self) -> Result<(), String> {
        let (name, norm) = (&self.activation_fn, self.norm_type.as_deref());
        let wanted = ACTIVATIONS
            .map(|(name, _)| format!("{name:?}"))
            .join(" or ");
        expect(activation(name).is_some(), "activation_fn", name, &wanted)?;
        let known = matches!(norm, None | Some("layer_norm" | "ada_norm"));
        expect(known, "norm_type", &norm.unwrap_or(""), "\"ada_norm\"")?;
        for (key, found, wanted) in [
            ("attention_bias", self.attention_bias, true),
            ("only_cross_attention", self.only_cross_attention, false),
            ("double_self_attention", self.double_self_attention, false),
        ] {
            expect(found == wanted, key, &found, &wanted.to_string())?;
        }
        expect_positive(&[
            ("num_attention_heads", self.num_attention_heads),
            ("attention_head_dim", self.attention_head_dim),
            ("num_layers", self.num_layers),
            ("sample_size", self.sample_size),
            ("num_embeds_ada_norm", self.num_embeds_ada_norm),
            ("cross_attention_dim", self.cross_attention_dim),
        ])?;
        let classes = self.num_vector_embeds;
        expect(classes > 1, "num_vector_embeds", &classes, "at least 2")
    }
}

impl Text {
    fn check(&self) -> Result<(), String> {
        let (act, eps) = (&self.hidden_act, self.layer_norm_eps);
        expect(act == "quick_gelu", "hidden_act", act, "\"quick_gelu\"")?;
        expect(eps == 1e-5, "layer_norm_eps", &eps, "1e-05")?;
        expect_positive(&[
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("num_attention_heads", self.num_attention_heads),
            ("num_hidden_layers", self.num_hidden_layers),
            ("vocab_size", self.vocab_size),
        ])?;
        let heads = self.num_attention_heads;
        let wanted = format!("a divisor of hidden_size ({})", self.hidden_size);
        let divides = self.hidden_size % heads == 0;
        expect(divides, "num_attention_heads", &heads, &wanted)
    }
}

/// Whether the text encoder in `folder` has as many entries as CLIP's vocabulary.
pub fn has_clip_vocabulary(folder: &Path) -> bool {
    let text: Result<Text, _> = read_json(&folder.join(Component::TextEncoder.config()));
    text.is_ok_and(|text| text.vocab_size == FULL_VOCABULARY as i64)
}

/// Reads the configurations in `folder`.
///
/// # Errors
///
/// One that is missing or no JSON of its kind, a value that this model cannot have, two
/// that contradict each other.
pub fn read(folder: &Path) -> Result<ModelConfig, LoadError> {
    let names = Component::ALL.map(Component::config);
    let [transformer_file, vqvae_file, text_file, null_file] = names.map(|n| folder.join(n));
    let scheduler_file = folder.join(SCHEDULER);
    let transformer: Transformer = read_json(&transformer_file)?;
    let vqvae: Vqvae = read_json(&vqvae_file)?;
    let text: Text = read_json(&text_file)?;
    let null: NullEmbedding = read_json(&null_file)?;
    let scheduler: Scheduler = read_json(&scheduler_file)?;
    let t = &transformer;
    t.check().map_err(|e| format_error(&transformer_file, e))?;
    text.check().map_err(|e| format_error(&text_file, e))?;
    let codec =
        codec(&vqvae, t.sample_size).map_err(|problem| format_error(&vqvae_file, problem))?;

    let agree = |config: &Path, key: &str, declared: i64, other: &Path, found: i64| {
        if declared == found {
            return Ok(());
        }
        Err(LoadError::Mismatch {
            config: config.to_path_buf(),
            key: key.into(),
            declared: declared.to_string(),
            file: other.to_path_buf(),
            found: found.to_string(),
        })
    };
    let codes = t.num_vector_embeds - 1;
    let (of_network, width) = (&transformer_file, t.cross_attention_dim);
    for (file, key, declared, found) in [
        (
            &scheduler_file,
            "num_vec_classes",
            scheduler.num_vec_classes,
            codes + 1,
        ),
        (
            &scheduler_file,
            "num_train_timesteps",
            scheduler.num_train_timesteps,
            t.num_embeds_ada_norm,
        ),
        (
            &vqvae_file,
            "num_vq_embeddings",
            vqvae.num_vq_embeddings,
            codes,
        ),
        (&text_file, "hidden_size", text.hidden_size, width),
    ] {
        agree(file, key, declared, of_network, found)?;
    }
    if null.learnable {
        let positions = text.max_position_embeddings;
        let (size, length) = (null.hidden_size.unwrap_or(0), null.length.unwrap_or(0));
        agree(&null_file, "hidden_size", size, of_network, width)?;
        agree(&null_file, "length", length, &text_file, positions)?;
    }

    let grid = [t.sample_size; 2];
    let model = ModelConfig {
        denoiser: DenoiserConfig {
            layers: t.num_layers,
            width: t.num_attention_heads * t.attention_head_dim,
            heads: t.num_attention_heads,
            codes,
            grid,
            position_table: grid,
            position_weights: PositionWeights::Embedding,
            timesteps: t.num_embeds_ada_norm,
            timestep_embedding: IndexEmbedding::Table,
            timestep_norm: AdaptiveNorm::Layer,
            feed_forward: FeedForwardKind::Fc,
            activation: activation(&t.activation_fn).unwrap_or_default(),
            expansion: EXPANSION,
            condition: Conditioning::Text {
                positions: text.max_position_embeddings,
                width: t.cross_attention_dim,
            },
        },
        transition: Transition::MaskAndReplace {
            alpha: [scheduler.alpha_cum_start, scheduler.alpha_cum_end],
            gamma: [scheduler.gamma_cum_start, scheduler.gamma_cum_end],
        },
        text: Some(TextCondition {
            tower: TextConfig {
                vocabulary: text.vocab_size,
                merges: MergeSource::Clip,
                context: text.max_position_embeddings,
                width: text.hidden_size,
                layers: text.num_hidden_layers,
                heads: text.num_attention_heads,
                hidden: text.intermediate_size,
                tokens: token_rule(folder)?,
                features: FeatureConfig::default(),
            },
            null: match null.learnable {
                true => NullText::Learned,
                false => NullText::EmptyPrompt,
            },
        }),
        codec,
        sampling: None,
    };
    model.check().map_err(|e| LoadError::Config {
        path: folder.to_path_buf(),
        source: e.of_part("its configurations together"),
    })?;
    Ok(model)
}

pub const DOWN: [&str; 2] = ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"];
pub const UP: [&str; 2] = ["UpDecoderBlock2D", "AttnUpDecoderBlock2D"];

/// The codec of `vqvae`, whose pictures are `side` tokens high.
fn codec(vqvae: &Vqvae, side: i64) -> Result<CodecConfig, String> {
    let v = vqvae;
    expect_positive(&[
        ("layers_per_block", v.layers_per_block),
        ("latent_channels", v.latent_channels),
        ("vq_embed_dim", v.vq_embed_dim.unwrap_or(1)),
    ])?;
    let levels = v.block_out_channels.len();
    let channels = v.block_out_channels.first().copied().unwrap_or(0);
    let multiples = channels > 0 && v.block_out_channels.iter().all(|c| c % channels == 0);
    if !multiples || levels > 16 {
        return Err(format!(
            "block_out_channels is {:?}, expected multiples of the first",
            v.block_out_channels
        ));
    }
    // Attention by level: 0 without, 1 with.
    let kinds = |names: &[String], known: [&str; 2]| -> Option<Vec<bool>> {
        names
            .iter()
            .map(|name| known.iter().position(|k| k == name).map(|i| i == 1))
            .collect()
    };
    let (down, up) = (
        kinds(&v.down_block_types, DOWN),
        kinds(&v.up_block_types, UP),
    );
    let attention = match (down, up) {
        (Some(down), Some(up)) if down.len() == levels && up.iter().rev().eq(&down) => down,
        _ => {
            return Err(format!(
                "down_block_types is {:?} and up_block_types {:?}, expected {levels} of {DOWN:?} \
                 mirrored in {UP:?}",
                v.down_block_types, v.up_block_types
            ))
        }
    };
    for (key, found, wanted) in [
        ("in_channels", v.in_channels, 3),
        ("out_channels", v.out_channels, 3),
    ] {
        expect(found == wanted, key, &found, &wanted.to_string())?;
    }
    expect(v.act_fn == "silu", "act_fn", &v.act_fn, "\"silu\"")?;
    let norm = v.norm_type.as_deref();
    let group = matches!(norm, None | Some("group"));
    expect(group, "norm_type", &norm.unwrap_or(""), "\"group\"")?;
    let resolution = side << (levels - 1);
    Ok(CodecConfig {
        resolution,
        channels,
        multipliers: v.block_out_channels.iter().map(|c| c / channels).collect(),
        residual_blocks: v.layers_per_block,
        attention_resolutions: (0..levels)
            .filter(|&level| attention[level])
            .map(|level| resolution >> level)
            .collect(),
        latent_channels: v.latent_channels,
        embedding_width: v.vq_embed_dim.unwrap_or(v.latent_channels),
        codebook: v.num_vq_embeddings,
        quantizer: QuantizerKind::Ema,
        norm_groups: v.norm_num_groups,
    })
}
