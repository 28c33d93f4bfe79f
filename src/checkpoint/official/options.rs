//! The constructors that an official configuration calls: which options they have, and
//! which values of them this library has no counterpart for.

use super::document::{shown, Document, OptionError};

pub const MODEL: &str = "model";
pub const DIFFUSION: &str = "model.params.diffusion_config";
pub const NETWORK: &str = "model.params.diffusion_config.params.transformer_config";
pub const CONDITION: &str = "model.params.diffusion_config.params.condition_emb_config";
pub const CONTENT: &str = "model.params.diffusion_config.params.content_emb_config";
pub const CODEC: &str = "model.params.content_codec_config";
pub const TOKENIZE: &str = "model.params.condition_codec_config";
pub const TOKENIZER: &str = "model.params.condition_codec_config.params.tokenizer_config";

/// Where it is called, the class, and the names of its options.
type Constructor = (&'static str, &'static str, &'static str);

const CONSTRUCTORS: &[Constructor] = &[
    (
        MODEL,
        "DALLE",
        "content_info condition_info learnable_cf content_codec_config condition_codec_config \
         diffusion_config",
    ),
    (
        MODEL,
        "C_DALLE",
        "content_info condition_info guidance_scale learnable_cf content_codec_config \
         diffusion_config",
    ),
    (
        MODEL,
        "UC_DALLE",
        "content_info content_codec_config diffusion_config",
    ),
    (
        DIFFUSION,
        "DiffusionTransformer",
        "content_emb_config condition_emb_config transformer_config diffusion_step \
         alpha_init_type auxiliary_loss_weight adaptive_auxiliary_loss mask_weight learnable_cf",
    ),
    (
        NETWORK,
        "Text2ImageTransformer",
        "condition_seq_len n_layer n_embd n_head content_seq_len attn_pdrop resid_pdrop \
         mlp_hidden_times block_activate attn_type content_spatial_size condition_dim \
         diffusion_step timestep_type content_emb_config mlp_type checkpoint",
    ),
    (
        NETWORK,
        "Condition2ImageTransformer",
        "class_type class_number n_layer n_embd n_head content_seq_len attn_pdrop resid_pdrop \
         mlp_hidden_times block_activate attn_type content_spatial_size diffusion_step \
         timestep_type content_emb_config mlp_type",
    ),
    (
        NETWORK,
        "UnCondition2ImageTransformer",
        "class_type n_layer n_embd n_head content_seq_len attn_pdrop resid_pdrop \
         mlp_hidden_times block_activate attn_type content_spatial_size diffusion_step \
         timestep_type content_emb_config mlp_type",
    ),
    (
        CONTENT,
        "DalleMaskImageEmbedding",
        "num_embed spatial_size embed_dim trainable pos_emb_type",
    ),
    (
        CONDITION,
        "CLIPTextEmbedding",
        "clip_name num_embed normalize pick_last_embedding keep_seq_len_dim \
         additional_last_embedding embed_dim",
    ),
    (
        CONDITION,
        "ClassEmbedding",
        "num_embed embed_dim identity trainable",
    ),
    (CODEC, "TamingGumbelVQVAE", TAMING),
    (CODEC, "TamingVQVAE", TAMING),
    (CODEC, "TamingFFHQVQVAE", TAMING),
    (CODEC, "PatchVQVAE", "trainable token_shape"),
    (
        TOKENIZE,
        "Tokenize",
        "context_length add_start_and_end just_token with_mask pad_value clip_embedding \
         condition_emb_config tokenizer_config",
    ),
    (TOKENIZER, "SimpleTokenizer", "end_idx bpe_path"),
];

const TAMING: &str =
    "trainable token_shape config_path ckpt_path num_tokens quantize_number mapping_path";

/// The place that an option belongs to, its name, the values that have a counterpart
/// here, and what the constructor takes where it is absent, if that is none of them.
type Choice = (
    &'static str,
    &'static str,
    &'static [&'static str],
    Option<(&'static str, &'static str)>,
);

const CHOICES: &[Choice] = &[
    (DIFFUSION, "alpha_init_type", &["alpha1"], None),
    (NETWORK, "block_activate", &["GELU2", "GELU"], None),
    (
        NETWORK,
        "attn_type",
        &["selfcross", "selfcondition", "self"],
        None,
    ),
    (NETWORK, "timestep_type", ADAPTIVE_NORMS, None),
    (NETWORK, "class_type", ADAPTIVE_NORMS, None),
    (NETWORK, "mlp_type", &["fc", "conv_mlp"], None),
    (CONTENT, "pos_emb_type", &["embedding", "parameter"], None),
    // The last position alone is no sequence that cross-attention could read.
    (
        CONDITION,
        "pick_last_embedding",
        &["false"],
        Some(("CLIPTextEmbedding", "true")),
    ),
    (CONDITION, "additional_last_embedding", &["false"], None),
    (
        CONDITION,
        "identity",
        &["true"],
        Some(("ClassEmbedding", "false")),
    ),
    (
        TOKENIZE,
        "add_start_and_end",
        &["true"],
        Some(("Tokenize", "false")),
    ),
    (TOKENIZE, "clip_embedding", &["false"], None),
    (TOKENIZE, "just_token", &["false"], None),
];

/// The norms that time and classes can modulate.
pub const ADAPTIVE_NORMS: &[&str] = &[
    "adalayernorm",
    "adalayernorm_abs",
    "adainsnorm",
    "adainsnorm_abs",
];

/// Refuses a constructor or an option that the original does not have, and a value that
/// has no counterpart here.
pub fn check(document: &Document) -> Result<(), OptionError> {
    for place in [
        MODEL, DIFFUSION, NETWORK, CONTENT, CONDITION, CODEC, TOKENIZE, TOKENIZER,
    ] {
        check_names(document, place)?;
    }
    for (place, option, allowed, absent) in CHOICES {
        let key = format!("{place}.params.{option}");
        let expected = || allowed.join(" or ");
        match (document.at(&key), absent) {
            (Some(value), _) => {
                let value = match document.flag(&key) {
                    Ok(Some(flag)) => flag.to_string(),
                    _ => shown(value),
                };
                if !allowed.contains(&value.as_str()) {
                    return Err(document.refused(&key, expected()));
                }
            }
            (None, Some((class, default))) if document.class(place)? == Some(class) => {
                return Err(OptionError {
                    key,
                    found: format!("absent ({default})"),
                    expected: expected(),
                });
            }
            (None, _) => {}
        }
    }
    check_values(document)
}

fn check_names(document: &Document, place: &str) -> Result<(), OptionError> {
    let Some(class) = document.class(place)? else {
        return Ok(());
    };
    let here = CONSTRUCTORS.iter().filter(|(at, ..)| *at == place);
    let Some((.., options)) = here.clone().find(|(_, name, _)| *name == class) else {
        let known: Vec<&str> = here.map(|(_, name, _)| *name).collect();
        return Err(document.refused(&format!("{place}.target"), known.join(" or ")));
    };
    let params = format!("{place}.params");
    let known: Vec<&str> = options.split_whitespace().collect();
    match document.names(&params).find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(name) => Err(document.refused(
            &format!("{params}.{name}"),
            format!("an option of {class}: {}", known.join(", ")),
        )),
    }
}

/// Values that are not a choice of words.
fn check_values(document: &Document) -> Result<(), OptionError> {
    let class = document.class(MODEL)?;
    let condition = match class {
        Some("C_DALLE") => "label",
        _ => "text",
    };
    for (key, expected) in [("content_info", "image"), ("condition_info", condition)] {
        let key = format!("{MODEL}.params.{key}.key");
        if document.word(&key)?.is_some_and(|found| found != expected) {
            return Err(document.refused(&key, expected));
        }
    }
    let times = format!("{NETWORK}.params.mlp_hidden_times");
    if document.number(&times)?.is_some() && document.integer(&times).is_err() {
        return Err(document.refused(&times, "a whole number"));
    }
    let pad = format!("{TOKENIZE}.params.pad_value");
    if document.integer(&pad)?.is_some_and(|value| value > 0) {
        return Err(document.refused(&pad, "0 or a negative number, which is read as 0"));
    }
    for option in ["attn_pdrop", "resid_pdrop"] {
        let key = format!("{NETWORK}.params.{option}");
        let rate = document.number(&key)?;
        if rate.is_some_and(|rate| !(0.0..1.0).contains(&rate)) {
            return Err(document.refused(&key, "a rate from 0 to below 1"));
        }
    }
    Ok(())
}

/// Refuses options that are nothing to a trained model, but would train another one.
pub fn check_training(document: &Document) -> Result<(), OptionError> {
    let key = format!("{CONTENT}.params.trainable");
    if document.flag(&key)? == Some(false) {
        return Err(document.refused(&key, "true: the whole denoiser is trained here"));
    }
    Ok(())
}
