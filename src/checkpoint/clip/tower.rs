//! The text tower from a file of CLIP: OpenAI's TorchScript archive (`ViT-B-32.pt`), a
//! plain state dict of it, or the text encoder of transformers: a file, an index of
//! shards, or its folder.

use std::borrow::Cow;
use std::path::Path;

use super::super::diffusers::{read_component, read_weight_file, rename, Component};
use super::super::error::LoadError;
use super::super::keys::unwrapped;
use super::super::official::TEXT;
use super::super::state_dict::{Entry, StateDict};
use super::super::tensor_file::read_tensors;

/// The tensors of a text tower under their canonical names. Everything else that such
/// files hold (the visual tower, scalars) is left out.
///
/// # Errors
///
/// A file that holds no text tower, or cannot be read.
pub fn read_text_tower(path: &Path) -> Result<StateDict, LoadError> {
    let all = match path {
        folder if folder.is_dir() => {
            // transformers' own folder of the encoder, or one that has it inside.
            let inside = folder.join(Component::TextEncoder.name());
            let folder = if inside.is_dir() { &inside } else { folder };
            read_component(folder, Component::TextEncoder)?.ok_or_else(|| LoadError::Format {
                path: folder.to_path_buf(),
                problem: "holds no weights of a text encoder (model.safetensors or \
                          pytorch_model.bin)"
                    .into(),
            })?
        }
        index if index.extension().is_some_and(|e| e == "json") => read_weight_file(index)?,
        file => read_tensors(file)?,
    };
    let names = all.iter().map(|(name, entry)| (unwrapped(name), entry));
    let all: Vec<(Cow<str>, &Entry)> = names.collect();
    let has = |prefix: &str| all.iter().any(|(name, _)| name.starts_with(prefix));
    let mut tower = StateDict::default();
    // Alone, newer versions of transformers save it without the first part of the names.
    let theirs = [
        "text_model.",
        "embeddings.",
        "encoder.",
        "final_layer_norm.",
    ];
    if has("text_model.") || has("embeddings.token_embedding.") {
        let mut text = StateDict::default();
        for (name, entry) in &all {
            if theirs.iter().any(|start| name.starts_with(start)) {
                text.insert(name.as_ref(), (*entry).clone());
            }
        }
        rename(&text, Component::TextEncoder, 0, &mut tower)?;
        return Ok(tower);
    }
    const PARTS: [&str; 5] = [
        "token_embedding.",
        "positional_embedding",
        "transformer.resblocks.",
        "ln_final.",
        "text_projection",
    ];
    for (name, entry) in &all {
        if PARTS.iter().any(|part| name.starts_with(part)) {
            tower.insert(format!("{TEXT}.{name}"), (*entry).clone());
        }
    }
    if !tower.has_prefix(&format!("{TEXT}.token_embedding.")) {
        return Err(LoadError::Format {
            path: path.to_path_buf(),
            problem: "holds no CLIP text tower (no tensor 'token_embedding.weight')".into(),
        });
    }
    Ok(tower)
}
