//! Names of tensors in diffusers' layout and in ours: one table, read both ways.

use super::super::official::{CODEC, DENOISER, NULL_TEXT, TEXT};
use super::Component;

/// How a tensor of one layout is stored in the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Same,
    /// A 1×1 convolution here `[C, C, 1, 1]`, a dense layer there `[C, C]`.
    Pointwise,
    /// A third of ours along the first dimension: queries, keys or values.
    Third(usize),
}

/// One rule: the starts of names that correspond. `{}` stands for an index, `{^}` for
/// a codec level, which the two layouts count from opposite ends; what follows the
/// start is the same in both.
struct Rule {
    component: Component,
    ours: &'static str,
    theirs: &'static str,
    form: Form,
}

const fn rule(component: Component, ours: &'static str, theirs: &'static str, form: Form) -> Rule {
    Rule {
        component,
        ours,
        theirs,
        form,
    }
}

const fn transformer(ours: &'static str, theirs: &'static str) -> Rule {
    rule(Component::Transformer, ours, theirs, Form::Same)
}

const fn codec(ours: &'static str, theirs: &'static str) -> Rule {
    rule(Component::Vqvae, ours, theirs, Form::Same)
}

const fn pointwise(ours: &'static str, theirs: &'static str) -> Rule {
    rule(Component::Vqvae, ours, theirs, Form::Pointwise)
}

const fn text(ours: &'static str, theirs: &'static str) -> Rule {
    rule(Component::TextEncoder, ours, theirs, Form::Same)
}

const fn third(ours: &'static str, theirs: &'static str, index: usize) -> Rule {
    rule(Component::TextEncoder, ours, theirs, Form::Third(index))
}

/// Names without their component's prefix ([`prefix`]); the first rule that fits counts.
#[rustfmt::skip]
const RULES: &[Rule] = &[
    transformer("content_emb", "latent_image_embedding"),
    transformer("blocks.{}.ln1", "transformer_blocks.{}.norm1"),
    transformer("blocks.{}.attn1.query", "transformer_blocks.{}.attn1.to_q"),
    transformer("blocks.{}.attn1.key", "transformer_blocks.{}.attn1.to_k"),
    transformer("blocks.{}.attn1.value", "transformer_blocks.{}.attn1.to_v"),
    transformer("blocks.{}.attn1.proj", "transformer_blocks.{}.attn1.to_out.0"),
    transformer("blocks.{}.ln1_1", "transformer_blocks.{}.norm2"),
    transformer("blocks.{}.attn2.query", "transformer_blocks.{}.attn2.to_q"),
    transformer("blocks.{}.attn2.key", "transformer_blocks.{}.attn2.to_k"),
    transformer("blocks.{}.attn2.value", "transformer_blocks.{}.attn2.to_v"),
    transformer("blocks.{}.attn2.proj", "transformer_blocks.{}.attn2.to_out.0"),
    transformer("blocks.{}.ln2", "transformer_blocks.{}.norm3"),
    transformer("blocks.{}.mlp.0", "transformer_blocks.{}.ff.net.0.proj"),
    transformer("blocks.{}.mlp.2", "transformer_blocks.{}.ff.net.2"),
    transformer("to_logits.0", "norm_out"),
    transformer("to_logits.1", "out"),

    codec("encoder.conv_in", "encoder.conv_in"),
    codec("encoder.down.{}.block.{}.nin_shortcut", "encoder.down_blocks.{}.resnets.{}.conv_shortcut"),
    codec("encoder.down.{}.block.{}", "encoder.down_blocks.{}.resnets.{}"),
    codec("encoder.down.{}.attn.{}.norm", "encoder.down_blocks.{}.attentions.{}.group_norm"),
    pointwise("encoder.down.{}.attn.{}.q", "encoder.down_blocks.{}.attentions.{}.to_q"),
    pointwise("encoder.down.{}.attn.{}.k", "encoder.down_blocks.{}.attentions.{}.to_k"),
    pointwise("encoder.down.{}.attn.{}.v", "encoder.down_blocks.{}.attentions.{}.to_v"),
    pointwise("encoder.down.{}.attn.{}.proj_out", "encoder.down_blocks.{}.attentions.{}.to_out.0"),
    codec("encoder.down.{}.downsample", "encoder.down_blocks.{}.downsamplers.0"),
    codec("encoder.mid.block_1", "encoder.mid_block.resnets.0"),
    codec("encoder.mid.block_2", "encoder.mid_block.resnets.1"),
    codec("encoder.mid.attn_1.norm", "encoder.mid_block.attentions.0.group_norm"),
    pointwise("encoder.mid.attn_1.q", "encoder.mid_block.attentions.0.to_q"),
    pointwise("encoder.mid.attn_1.k", "encoder.mid_block.attentions.0.to_k"),
    pointwise("encoder.mid.attn_1.v", "encoder.mid_block.attentions.0.to_v"),
    pointwise("encoder.mid.attn_1.proj_out", "encoder.mid_block.attentions.0.to_out.0"),
    codec("encoder.norm_out", "encoder.conv_norm_out"),
    codec("encoder.conv_out", "encoder.conv_out"),
    codec("quant_conv", "quant_conv"),
    codec("quantize.embedding", "quantize.embedding.weight"),
    codec("post_quant_conv", "post_quant_conv"),
    codec("decoder.conv_in", "decoder.conv_in"),
    codec("decoder.mid.block_1", "decoder.mid_block.resnets.0"),
    codec("decoder.mid.block_2", "decoder.mid_block.resnets.1"),
    codec("decoder.mid.attn_1.norm", "decoder.mid_block.attentions.0.group_norm"),
    pointwise("decoder.mid.attn_1.q", "decoder.mid_block.attentions.0.to_q"),
    pointwise("decoder.mid.attn_1.k", "decoder.mid_block.attentions.0.to_k"),
    pointwise("decoder.mid.attn_1.v", "decoder.mid_block.attentions.0.to_v"),
    pointwise("decoder.mid.attn_1.proj_out", "decoder.mid_block.attentions.0.to_out.0"),
    codec("decoder.up.{^}.block.{}.nin_shortcut", "decoder.up_blocks.{^}.resnets.{}.conv_shortcut"),
    codec("decoder.up.{^}.block.{}", "decoder.up_blocks.{^}.resnets.{}"),
    codec("decoder.up.{^}.attn.{}.norm", "decoder.up_blocks.{^}.attentions.{}.group_norm"),
    pointwise("decoder.up.{^}.attn.{}.q", "decoder.up_blocks.{^}.attentions.{}.to_q"),
    pointwise("decoder.up.{^}.attn.{}.k", "decoder.up_blocks.{^}.attentions.{}.to_k"),
    pointwise("decoder.up.{^}.attn.{}.v", "decoder.up_blocks.{^}.attentions.{}.to_v"),
    pointwise("decoder.up.{^}.attn.{}.proj_out", "decoder.up_blocks.{^}.attentions.{}.to_out.0"),
    codec("decoder.up.{^}.upsample", "decoder.up_blocks.{^}.upsamplers.0"),
    codec("decoder.norm_out", "decoder.conv_norm_out"),
    codec("decoder.conv_out", "decoder.conv_out"),

    text("token_embedding", "text_model.embeddings.token_embedding"),
    text("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    third("transformer.resblocks.{}.attn.in_proj_weight", "text_model.encoder.layers.{}.self_attn.q_proj.weight", 0),
    third("transformer.resblocks.{}.attn.in_proj_weight", "text_model.encoder.layers.{}.self_attn.k_proj.weight", 1),
    third("transformer.resblocks.{}.attn.in_proj_weight", "text_model.encoder.layers.{}.self_attn.v_proj.weight", 2),
    third("transformer.resblocks.{}.attn.in_proj_bias", "text_model.encoder.layers.{}.self_attn.q_proj.bias", 0),
    third("transformer.resblocks.{}.attn.in_proj_bias", "text_model.encoder.layers.{}.self_attn.k_proj.bias", 1),
    third("transformer.resblocks.{}.attn.in_proj_bias", "text_model.encoder.layers.{}.self_attn.v_proj.bias", 2),
    text("transformer.resblocks.{}.attn.out_proj", "text_model.encoder.layers.{}.self_attn.out_proj"),
    text("transformer.resblocks.{}.ln_1", "text_model.encoder.layers.{}.layer_norm1"),
    text("transformer.resblocks.{}.ln_2", "text_model.encoder.layers.{}.layer_norm2"),
    text("transformer.resblocks.{}.mlp.c_fc", "text_model.encoder.layers.{}.mlp.fc1"),
    text("transformer.resblocks.{}.mlp.c_proj", "text_model.encoder.layers.{}.mlp.fc2"),
    text("ln_final", "text_model.final_layer_norm"),

    rule(Component::NullText, "", "embeddings", Form::Same),
];

/// The canonical prefix of a component's tensors.
fn prefix(component: Component) -> &'static str {
    match component {
        Component::Transformer => DENOISER,
        Component::Vqvae => CODEC,
        Component::TextEncoder => TEXT,
        Component::NullText => NULL_TEXT,
    }
}

/// Attention names before diffusers 0.15, and the present ones.
const OLD_ATTENTION: [(&str, &str); 4] = [
    ("query", "to_q"),
    ("key", "to_k"),
    ("value", "to_v"),
    ("proj_attn", "to_out.0"),
];

/// What every name of a text encoder begins with, except where transformers 5 saves the
/// encoder alone.
const TEXT_MODEL: &str = "text_model.";

/// The canonical name of `theirs` in `component`; `levels` is the number of levels of
/// the codec. `None` if the layout has no such tensor.
pub fn to_ours(component: Component, theirs: &str, levels: usize) -> Option<(String, Form)> {
    let mut theirs = theirs.to_string();
    if component == Component::Vqvae {
        for (old, new) in OLD_ATTENTION {
            theirs = theirs.replace(&format!(".{old}."), &format!(".{new}."));
        }
    }
    if component == Component::TextEncoder && !theirs.starts_with(TEXT_MODEL) {
        theirs.insert_str(0, TEXT_MODEL);
    }
    RULES
        .iter()
        .filter(|rule| rule.component == component)
        .find_map(|rule| {
            let name = translate(&theirs, rule.theirs, rule.ours, levels)?;
            let form = form_of(rule.form, &name);
            let prefix = prefix(component);
            Some(match name.is_empty() {
                true => (prefix.to_string(), form),
                false => (format!("{prefix}.{name}"), form),
            })
        })
}

/// Where the canonical `name` goes: component, name there and form; three places for
/// joined queries, keys and values. Empty if the layout has no place for it.
pub fn to_theirs(name: &str, levels: usize) -> Vec<(Component, String, Form)> {
    let fit = |rule: &Rule| {
        let prefix = prefix(rule.component);
        let rest = match name.strip_prefix(prefix)? {
            "" => "",
            rest => rest.strip_prefix('.')?,
        };
        let theirs = translate(rest, rule.ours, rule.theirs, levels)?;
        Some((rule.component, theirs, form_of(rule.form, name)))
    };
    let mut places: Vec<_> = RULES.iter().filter_map(fit).collect();
    match places.first() {
        Some((.., Form::Third(_))) => places,
        _ => {
            places.truncate(1);
            places
        }
    }
}

/// A dense layer's bias has the same shape in both layouts.
fn form_of(form: Form, name: &str) -> Form {
    match form {
        Form::Pointwise if name.ends_with(".bias") => Form::Same,
        form => form,
    }
}

/// Rewrites the start of `name` from the pattern `from` to the pattern `to`.
fn translate(name: &str, from: &str, to: &str, levels: usize) -> Option<String> {
    let mut segments = name.split('.').filter(|s| !s.is_empty());
    let mut indices = Vec::new();
    for pattern in from.split('.').filter(|s| !s.is_empty()) {
        let segment = segments.next()?;
        match pattern {
            "{}" => indices.push(segment.parse::<usize>().ok()?),
            "{^}" => indices.push(levels.checked_sub(1 + segment.parse::<usize>().ok()?)?),
            literal if literal == segment => {}
            _ => return None,
        }
    }
    let mut indices = indices.iter();
    let mut out = Vec::new();
    for pattern in to.split('.').filter(|s| !s.is_empty()) {
        out.push(match pattern {
            "{}" | "{^}" => indices.next()?.to_string(),
            literal => literal.to_string(),
        });
    }
    out.extend(segments.map(str::to_string));
    Some(out.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for (component, theirs, ours) in [
            (
                Component::Transformer,
                "transformer_blocks.3.attn2.to_out.0.bias",
                "transformer.transformer.blocks.3.attn2.proj.bias",
            ),
            (
                Component::Vqvae,
                "decoder.up_blocks.0.resnets.2.conv_shortcut.weight",
                "content_codec.decoder.up.3.block.2.nin_shortcut.weight",
            ),
            (
                Component::Vqvae,
                "quantize.embedding.weight",
                "content_codec.quantize.embedding",
            ),
            (
                Component::TextEncoder,
                "text_model.embeddings.position_embedding.weight",
                "transformer.condition_emb.positional_embedding",
            ),
            (
                Component::NullText,
                "embeddings",
                "transformer.empty_text_embed",
            ),
        ] {
            let (name, form) = to_ours(component, theirs, 4).unwrap();
            assert_eq!(name, ours);
            assert_eq!(to_theirs(ours, 4), [(component, theirs.to_string(), form)]);
        }
    }

    #[test]
    fn old_attention_names_are_read() {
        let new = to_ours(
            Component::Vqvae,
            "encoder.mid_block.attentions.0.to_out.0.weight",
            4,
        );
        let old = to_ours(
            Component::Vqvae,
            "encoder.mid_block.attentions.0.proj_attn.weight",
            4,
        );
        assert_eq!(old, new);
        assert_eq!(old.unwrap().1, Form::Pointwise);
    }

    #[test]
    fn joined_projections_have_three_places() {
        let name = "transformer.condition_emb.transformer.resblocks.1.attn.in_proj_bias";
        let forms: Vec<_> = to_theirs(name, 4).into_iter().map(|(.., f)| f).collect();
        assert_eq!(forms, [Form::Third(0), Form::Third(1), Form::Third(2)]);
    }

    #[test]
    fn foreign_names_have_no_place() {
        assert_eq!(
            to_ours(Component::Vqvae, "encoder.down_blocks.x.a", 4),
            None
        );
        assert!(to_theirs("transformer.transformer.blocks.0.mlp.conv1.weight", 4).is_empty());
    }
}
