//! All tensors of a file under the names they have there: a PyTorch state dict, a
//! TorchScript archive, or safetensors.

use std::path::Path;
use std::sync::Arc;

use super::error::LoadError;
use super::keys::unwrapped;
use super::official::{entry, tensor_at};
use super::pytorch::{NodeId, TorchFile};
use super::safetensors_file::is_safetensors;
use super::state_dict::{read_safetensors, StateDict};

/// Modules inside modules, and dicts inside dicts, at most.
const MAX_DEPTH: usize = 12;

/// All tensors of a file by the names they have there; those of a state dict under
/// `state_dict` or `model` without that, and without the names of training's wrappers.
///
/// # Errors
///
/// A file that cannot be read.
pub fn read_tensors(path: &Path) -> Result<StateDict, LoadError> {
    let state = match is_safetensors(path)? {
        true => read_safetensors(path)?.0,
        false => {
            let file = Arc::new(TorchFile::open(path)?);
            let root = ["state_dict", "model"]
                .iter()
                .find_map(|key| file.get(file.root(), key))
                .unwrap_or(file.root());
            let mut state = StateDict::default();
            collect(&file, root, "", MAX_DEPTH, &mut state)?;
            state
        }
    };
    let mut plain = StateDict::default();
    for (name, entry) in state.iter() {
        plain.insert(unwrapped(name).as_ref(), entry.clone());
    }
    Ok(plain)
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
        match tensor_at(file, &name, value)? {
            Some(tensor) => state.insert(name.clone(), entry(file, &name, tensor)),
            None if depth > 0 => collect(file, value, &name, depth - 1, state)?,
            None => {}
        }
    }
    Ok(())
}
