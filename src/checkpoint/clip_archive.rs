//! The text tower from a file of CLIP: OpenAI's TorchScript archive (`ViT-B-32.pt`), a
//! plain state dict of it, or the text encoder of transformers.

use std::path::Path;
use std::sync::Arc;

use super::diffusers::{rename, Component};
use super::error::LoadError;
use super::official::{entry, TEXT};
use super::open::is_safetensors;
use super::pytorch::{NodeId, TorchFile};
use super::state_dict::{read_safetensors, StateDict};

/// Modules inside modules, and dicts inside dicts, at most.
const MAX_DEPTH: usize = 12;

/// The tensors of a text tower under their canonical names. Everything else that such
/// files hold (the visual tower, scalars) is left out.
///
/// # Errors
///
/// A file that holds no text tower, or cannot be read.
pub fn read_text_tower(path: &Path) -> Result<StateDict, LoadError> {
    let all = match is_safetensors(path)? {
        true => read_safetensors(path)?.0,
        false => {
            let file = Arc::new(TorchFile::open(path)?);
            let root = ["state_dict", "model"]
                .iter()
                .find_map(|key| file.get(file.root(), key))
                .unwrap_or(file.root());
            let mut all = StateDict::default();
            collect(&file, root, "", MAX_DEPTH, &mut all)?;
            all
        }
    };
    let mut tower = StateDict::default();
    if all.has_prefix("text_model.") {
        let mut text = StateDict::default();
        for (name, entry) in all.iter() {
            if name.starts_with("text_model.") {
                text.insert(name, entry.clone());
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
    for (name, entry) in all.iter() {
        if PARTS.iter().any(|part| name.starts_with(part)) {
            tower.insert(format!("{TEXT}.{name}"), entry.clone());
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

/// Adds the tensors of a dict or module and of what is inside it, names joined by dots.
fn collect(
    file: &Arc<TorchFile>,
    node: NodeId,
    prefix: &str,
    depth: usize,
    state: &mut StateDict,
) -> Result<(), LoadError> {
    for (key, value) in file.entries(node) {
        let name = match prefix {
            "" => key.to_string(),
            prefix => format!("{prefix}.{key}"),
        };
        // Half of such an archive; its tensors are of no use here.
        if name == "visual" || name.starts_with("visual.") {
            continue;
        }
        match file.tensor(value)? {
            Some(tensor) => state.insert(name.clone(), entry(file, &name, tensor)),
            None if depth > 0 => collect(file, value, &name, depth - 1, state)?,
            None => {}
        }
    }
    Ok(())
}
