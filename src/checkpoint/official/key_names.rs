//! The canonical names that every layout is brought to: the official `model` names with
//! three changes. Names of wrappers such as `module.` are left out ([`super::super::keys`]),
//! the codec's halves lose `enc.` and `dec.` (so that they are spelled as in a taming file
//! behind `content_codec.`), and the second copy of the quantizer is dropped.

use super::super::vocabulary::MERGES;

/// Names in canonical spelling.
pub const DENOISER: &str = "transformer.transformer";
pub const TEXT: &str = "transformer.condition_emb";
pub const NULL_TEXT: &str = "transformer.empty_text_embed";
pub const CODEC: &str = "content_codec";
/// Not in official files: the vector of the code mapping file.
pub const CODE_MAPPING: &str = "content_codec.full_to_quantize";

/// The canonical name of an official `model` key, without names of wrappers.
pub fn canonical_name(key: &str) -> String {
    for half in ["content_codec.enc.", "content_codec.dec."] {
        if let Some(rest) = key.strip_prefix(half) {
            return format!("{CODEC}.{rest}");
        }
    }
    key.to_string()
}

/// Why a canonical name does not matter for sampling, if it does not.
pub fn known_and_ignored(name: &str) -> Option<&'static str> {
    if is_recomputed(name) {
        return Some("a constant that is recomputed");
    }
    let reasons = [
        ("transformer.Lt_history", "loss history of training"),
        ("transformer.Lt_count", "loss history of training"),
        (
            "transformer.condition_emb.text_projection",
            "unused by the original",
        ),
        (
            "transformer.condition_emb.logit_scale",
            "unused by the original",
        ),
        (
            "content_codec.quantize.cluster_size",
            "codec training statistics",
        ),
        (
            "content_codec.quantize.embedding_avg",
            "codec training statistics",
        ),
        ("content_codec.colorize", "unused by the original"),
        (CODE_MAPPING, "the code mapping, read apart"),
        (MERGES, "the text vocabulary, read apart"),
    ];
    if let Some((_, reason)) = reasons.iter().find(|(known, _)| *known == name) {
        return Some(reason);
    }
    let prefixes = [
        ("content_codec.loss.", "codec training loss"),
        ("transformer.condition_emb.visual.", "CLIP's visual tower"),
    ];
    prefixes
        .iter()
        .find(|(prefix, _)| name.starts_with(prefix))
        .map(|(_, reason)| *reason)
}

/// Constants that a checkpoint holds only because they are buffers: the causal mask
/// that cross-attention never uses, and the schedule.
pub fn is_recomputed(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("transformer.") else {
        return false;
    };
    (rest.starts_with("transformer.blocks.") && rest.ends_with(".attn2.mask"))
        || matches!(
            rest,
            "log_at"
                | "log_bt"
                | "log_ct"
                | "log_1_min_ct"
                | "log_cumprod_at"
                | "log_cumprod_bt"
                | "log_cumprod_ct"
                | "log_1_min_cumprod_ct"
        )
}
