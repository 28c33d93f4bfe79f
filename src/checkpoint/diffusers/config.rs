//! The configurations of a diffusers folder and the shape of our model.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::super::error::LoadError;
use super::layout::{format_error, read_json, Component, SCHEDULER, SPECIAL_TOKENS, TOKENIZER};
use crate::clip::{TextConfig, TokenRule};
use crate::codec::{CodecConfig, QuantizerKind};
use crate::diffusion::Transition;
use crate::model::{ModelConfig, NullText, TextCondition};
use crate::transformer::config::{FeedForwardKind, TimestepEmbedding};
use crate::transformer::{Conditioning, DenoiserConfig};

/// The one activation that diffusers' network and ours have in common: despite the
/// name x·σ(1.702 x) without a gate.
pub const ACTIVATION: &str = "geglu-approximate";
/// diffusers' feed-forward parts have no other expansion.
pub const EXPANSION: i64 = 4;
/// The entry of tokenizer_config.json that names one of our token rules; other readers
/// ignore it.
pub const TOKEN_RULE: &str = "vqdiffusion_token_rule";

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

#[derive(Deserialize)]
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

/// Whether the model needs the null text's weights.
pub fn has_learned_null(model: &ModelConfig) -> bool {
    matches!(&model.text, Some(text) if text.null == NullText::Learned)
}

/// A value of one configuration against one that must agree with it.
struct Agreement<'a> {
    config: &'a str,
    key: &'a str,
    declared: i64,
    other: &'a str,
    found: i64,
}

/// Reads the configurations in `folder`.
pub fn read(folder: &Path) -> Result<ModelConfig, LoadError> {
    let names = Component::ALL.map(Component::config);
    let [transformer_file, vqvae_file, text_file, null_file] = &names;
    let transformer: Transformer = read_json(&folder.join(transformer_file))?;
    let vqvae: Vqvae = read_json(&folder.join(vqvae_file))?;
    let text: Text = read_json(&folder.join(text_file))?;
    let null: NullEmbedding = read_json(&folder.join(null_file))?;
    let scheduler: Scheduler = read_json(&folder.join(SCHEDULER))?;

    let expect = |file: &str, key: &str, found: &dyn std::fmt::Debug, ok: bool, wanted: &str| {
        if ok {
            return Ok(());
        }
        let problem = format!("{key} is {found:?}, expected {wanted}");
        Err(format_error(&folder.join(file), problem))
    };
    let t = &transformer;
    let activation = t.activation_fn == ACTIVATION;
    let wanted = format!("{ACTIVATION:?}");
    expect(
        transformer_file,
        "activation_fn",
        &t.activation_fn,
        activation,
        &wanted,
    )?;
    let norms = [None, Some("layer_norm"), Some("ada_norm")];
    let norm = norms.contains(&t.norm_type.as_deref());
    expect(
        transformer_file,
        "norm_type",
        &t.norm_type,
        norm,
        "\"ada_norm\"",
    )?;
    expect(
        transformer_file,
        "attention_bias",
        &t.attention_bias,
        t.attention_bias,
        "true",
    )?;
    let plain = !t.only_cross_attention && !t.double_self_attention;
    expect(
        transformer_file,
        "only_cross_attention or double_self_attention",
        &true,
        plain,
        "false",
    )?;
    for (key, found) in [
        ("num_attention_heads", t.num_attention_heads),
        ("attention_head_dim", t.attention_head_dim),
        ("num_layers", t.num_layers),
        ("sample_size", t.sample_size),
        ("num_embeds_ada_norm", t.num_embeds_ada_norm),
    ] {
        expect(
            transformer_file,
            key,
            &found,
            (1..1 << 20).contains(&found),
            "a positive number",
        )?;
    }
    let codes = t.num_vector_embeds - 1;
    expect(
        transformer_file,
        "num_vector_embeds",
        &t.num_vector_embeds,
        codes > 0,
        "at least 2",
    )?;
    let gelu = text.hidden_act == "quick_gelu";
    expect(
        text_file,
        "hidden_act",
        &text.hidden_act,
        gelu,
        "\"quick_gelu\"",
    )?;
    let eps = text.layer_norm_eps == 1e-5;
    expect(
        text_file,
        "layer_norm_eps",
        &text.layer_norm_eps,
        eps,
        "1e-05",
    )?;
    let divides = text.num_attention_heads > 0 && text.hidden_size % text.num_attention_heads == 0;
    let wanted = format!("a divisor of hidden_size ({})", text.hidden_size);
    expect(
        text_file,
        "num_attention_heads",
        &text.num_attention_heads,
        divides,
        &wanted,
    )?;

    let mut agreements = vec![
        Agreement {
            config: SCHEDULER,
            key: "num_vec_classes",
            declared: scheduler.num_vec_classes,
            other: transformer_file,
            found: t.num_vector_embeds,
        },
        Agreement {
            config: SCHEDULER,
            key: "num_train_timesteps",
            declared: scheduler.num_train_timesteps,
            other: transformer_file,
            found: t.num_embeds_ada_norm,
        },
        Agreement {
            config: vqvae_file,
            key: "num_vq_embeddings",
            declared: vqvae.num_vq_embeddings,
            other: transformer_file,
            found: codes,
        },
        Agreement {
            config: text_file,
            key: "hidden_size",
            declared: text.hidden_size,
            other: transformer_file,
            found: t.cross_attention_dim,
        },
    ];
    if null.learnable {
        for (key, declared, found) in [
            ("hidden_size", null.hidden_size, text.hidden_size),
            ("length", null.length, text.max_position_embeddings),
        ] {
            agreements.push(Agreement {
                config: null_file,
                key,
                declared: declared.unwrap_or(0),
                other: text_file,
                found,
            });
        }
    }
    for a in agreements {
        if a.declared != a.found {
            return Err(LoadError::Mismatch {
                config: folder.join(a.config),
                key: a.key.into(),
                declared: a.declared.to_string(),
                file: folder.join(a.other),
                found: a.found.to_string(),
            });
        }
    }

    let grid = [t.sample_size; 2];
    let codec = codec(&vqvae, t.sample_size)
        .map_err(|problem| format_error(&folder.join(vqvae_file), problem))?;
    Ok(ModelConfig {
        denoiser: DenoiserConfig {
            layers: t.num_layers,
            width: t.num_attention_heads * t.attention_head_dim,
            heads: t.num_attention_heads,
            codes,
            grid,
            position_table: grid,
            timesteps: t.num_embeds_ada_norm,
            timestep_embedding: TimestepEmbedding::Table,
            feed_forward: FeedForwardKind::Fc,
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
                context: text.max_position_embeddings,
                width: text.hidden_size,
                layers: text.num_hidden_layers,
                heads: text.num_attention_heads,
                hidden: text.intermediate_size,
                tokens: token_rule(folder)?,
            },
            null: match null.learnable {
                true => NullText::Learned,
                false => NullText::EmptyPrompt,
            },
        }),
        codec,
    })
}

pub const DOWN: [&str; 2] = ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"];
pub const UP: [&str; 2] = ["UpDecoderBlock2D", "AttnUpDecoderBlock2D"];

/// The codec of `vqvae`, whose pictures are `side` tokens high.
fn codec(vqvae: &Vqvae, side: i64) -> Result<CodecConfig, String> {
    let v = vqvae;
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
        if found != wanted {
            return Err(format!("{key} is {found}, expected {wanted}"));
        }
    }
    if v.act_fn != "silu" {
        return Err(format!("act_fn is {:?}, expected \"silu\"", v.act_fn));
    }
    if let Some(norm) = v.norm_type.as_deref().filter(|&norm| norm != "group") {
        return Err(format!("norm_type is {norm:?}, expected \"group\""));
    }
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

/// How the folder's tokenizer makes ids.
fn token_rule(folder: &Path) -> Result<TokenRule, LoadError> {
    let path = folder.join(TOKENIZER);
    let config: Value = read_json(&path)?;
    if let Some(rule) = config.get(TOKEN_RULE) {
        return serde_json::from_value(rule.clone())
            .map_err(|e| format_error(&path, format!("{TOKEN_RULE}: {e}")));
    }
    // Older tokenizers keep it in the other file only; a token is a string or an object.
    let content = |pad: &Value| {
        let text = pad.as_str().or_else(|| pad["content"].as_str());
        text.map(str::to_string)
    };
    let pad = match content(&config["pad_token"]) {
        Some(pad) => Some(pad),
        None => {
            let special: Value = read_json(&folder.join(SPECIAL_TOKENS))?;
            content(&special["pad_token"])
        }
    };
    match pad.as_deref() {
        Some("!") => Ok(TokenRule::Diffusers),
        Some("<|endoftext|>") => Ok(TokenRule::DiffusersEndPadding),
        other => Err(format_error(
            &path,
            format!("pad_token is {other:?}, expected \"!\" or \"<|endoftext|>\""),
        )),
    }
}
