//! Our model in the configurations of a diffusers folder.

use serde_json::{json, Value};

use super::config::{activation_name, DOWN, EXPANSION, UP};
use super::layout::{Component, INDEX, LAYOUT, SCHEDULER, SPECIAL_TOKENS, TOKENIZER_CONFIG};
use super::tokenizer::TOKEN_RULE;
use crate::checkpoint::WriteError;
use crate::clip::TokenRule;
use crate::diffusion::Transition;
use crate::model::{ModelConfig, NullText, TextCondition};
use crate::transformer::config::{AdaptiveNorm, FeedForwardKind, IndexEmbedding};

/// Where diffusers keeps the null text's class, which it does not export.
const NULL_TEXT_MODULE: &str = "diffusers.pipelines.deprecated.vq_diffusion.pipeline_vq_diffusion";

/// The text condition of a model that this layout can hold.
///
/// # Errors
///
/// [`WriteError::Unsupported`] for what it cannot be, by name.
pub fn representable(model: &ModelConfig) -> Result<&TextCondition, WriteError> {
    fitting(model).map_err(|problem| WriteError::Unsupported {
        layout: LAYOUT,
        problem,
    })
}

fn fitting(model: &ModelConfig) -> Result<&TextCondition, String> {
    let d = &model.denoiser;
    let Some(text) = &model.text else {
        return Err("the model is not conditioned on text (denoiser.condition)".into());
    };
    if d.feed_forward == FeedForwardKind::Conv {
        return Err("its feed-forward parts are convolutions (denoiser.feed_forward: conv)".into());
    }
    if d.timestep_embedding == IndexEmbedding::Sinusoid {
        let key = "denoiser.timestep_embedding: sinusoid";
        return Err(format!("its time embedding is not a table ({key})"));
    }
    if d.timestep_norm == AdaptiveNorm::Instance {
        let key = "denoiser.timestep_norm: instance";
        return Err(format!("its adaptive norms are not layer norms ({key})"));
    }
    if !text.tower.features.is_usual() {
        let key = "text.tower.features";
        return Err(format!(
            "its text features are not the tower's, each divided by its norm ({key})"
        ));
    }
    if d.expansion != EXPANSION {
        return Err(format!(
            "denoiser.expansion is {}, and only {EXPANSION} exists there",
            d.expansion
        ));
    }
    if d.grid[0] != d.grid[1] || d.grid != d.position_table {
        return Err(format!(
            "its token grid {:?} has a position table of {:?}, and only equal squares exist there",
            d.grid, d.position_table
        ));
    }
    if model.codec.multipliers.first() != Some(&1) {
        return Err(format!(
            "codec.multipliers is {:?}, and the first is always 1 there",
            model.codec.multipliers
        ));
    }
    if !matches!(model.transition, Transition::MaskAndReplace { .. }) {
        return Err("its noise is not mask-and-replace (transition)".into());
    }
    Ok(text)
}

/// The JSON files of `model`, which is [`representable`]: name in the folder and value.
pub fn files(model: &ModelConfig, text: &TextCondition) -> Vec<(String, Value)> {
    let (d, c, tower) = (&model.denoiser, &model.codec, &text.tower);
    let Transition::MaskAndReplace { alpha, gamma } = model.transition else {
        return Vec::new();
    };
    let kinds = |known: [&'static str; 2]| -> Vec<&'static str> {
        (0..c.multipliers.len())
            .map(|level| known[usize::from(c.has_attention(level))])
            .collect()
    };
    let (down, mut up) = (kinds(DOWN), kinds(UP));
    up.reverse();
    let channels: Vec<i64> = c.multipliers.iter().map(|m| m * c.channels).collect();
    let learned = text.null == NullText::Learned;
    let (start, end) = ("<|startoftext|>", "<|endoftext|>");
    let pad = match tower.tokens {
        TokenRule::DiffusersEndPadding => end,
        TokenRule::Official | TokenRule::Diffusers => "!",
    };
    let mut settings = json!({
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": tower.context,
        "bos_token": start, "eos_token": end, "unk_token": end, "pad_token": pad,
        "errors": "replace",
        "clean_up_tokenization_spaces": false,
    });
    if tower.tokens == TokenRule::Official {
        settings[TOKEN_RULE] = json!(tower.tokens);
    }
    let component = |component: Component, value: Value| (component.config(), value);
    vec![
        (
            INDEX.to_string(),
            json!({
                "_class_name": "VQDiffusionPipeline",
                "_diffusers_version": "0.31.0",
                "vqvae": ["diffusers", "VQModel"],
                "text_encoder": ["transformers", "CLIPTextModel"],
                "tokenizer": ["transformers", "CLIPTokenizer"],
                "transformer": ["diffusers", "Transformer2DModel"],
                "scheduler": ["diffusers", "VQDiffusionScheduler"],
                Component::NullText.name(): [NULL_TEXT_MODULE, "LearnedClassifierFreeSamplingEmbeddings"],
            }),
        ),
        component(
            Component::Transformer,
            json!({
                "_class_name": "Transformer2DModel",
                "num_attention_heads": d.heads,
                "attention_head_dim": d.width / d.heads,
                "num_layers": d.layers,
                "cross_attention_dim": tower.width,
                "attention_bias": true,
                "sample_size": d.grid[0],
                "num_vector_embeds": d.codes + 1,
                "num_embeds_ada_norm": d.timesteps,
                "activation_fn": activation_name(d.activation),
                // Written out: its absence stops current versions from loading.
                "norm_type": "ada_norm",
                "norm_num_groups": 32,
                "dropout": 0.0,
                "in_channels": null,
            }),
        ),
        component(
            Component::Vqvae,
            json!({
                "_class_name": "VQModel",
                "in_channels": 3, "out_channels": 3,
                "block_out_channels": channels,
                "down_block_types": down,
                "up_block_types": up,
                "layers_per_block": c.residual_blocks,
                "latent_channels": c.latent_channels,
                "vq_embed_dim": c.embedding_width,
                "num_vq_embeddings": d.codes,
                "norm_num_groups": c.norm_groups,
                "act_fn": "silu",
                "sample_size": c.resolution,
            }),
        ),
        component(
            Component::TextEncoder,
            json!({
                "architectures": ["CLIPTextModel"],
                "model_type": "clip_text_model",
                "hidden_act": "quick_gelu",
                "hidden_size": tower.width,
                "projection_dim": tower.width,
                "intermediate_size": tower.hidden,
                "layer_norm_eps": 1e-5,
                "max_position_embeddings": tower.context,
                "num_attention_heads": tower.heads,
                "num_hidden_layers": tower.layers,
                "vocab_size": tower.vocabulary,
                "bos_token_id": tower.vocabulary - 2,
                "eos_token_id": tower.vocabulary - 1,
                // What diffusers loads the network in, whatever its file holds; transformers
                // would take the file's.
                "torch_dtype": "float32",
            }),
        ),
        component(
            Component::NullText,
            json!({
                "_class_name": "LearnedClassifierFreeSamplingEmbeddings",
                "learnable": learned,
                "hidden_size": learned.then_some(tower.width),
                "length": learned.then_some(tower.context),
            }),
        ),
        (
            SCHEDULER.to_string(),
            json!({
                "_class_name": "VQDiffusionScheduler",
                "num_vec_classes": d.codes + 1,
                "num_train_timesteps": d.timesteps,
                "alpha_cum_start": alpha[0], "alpha_cum_end": alpha[1],
                "gamma_cum_start": gamma[0], "gamma_cum_end": gamma[1],
            }),
        ),
        (TOKENIZER_CONFIG.to_string(), settings),
        (
            SPECIAL_TOKENS.to_string(),
            json!({ "bos_token": start, "eos_token": end, "unk_token": end, "pad_token": pad }),
        ),
    ]
}
