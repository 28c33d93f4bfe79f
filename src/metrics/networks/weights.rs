//! A network on the weights of the user's file, and what the layouts of such files have in
//! common.

use std::path::{Path, PathBuf};

use tch::{Device, Kind};

use crate::checkpoint::{Entry, LoadError, Loader, StateDict};
use crate::torch::Params;

/// A network and the file it came from.
pub struct Loaded<T> {
    pub network: T,
    pub path: PathBuf,
    /// SHA-256 of the weights: the same whatever file held them.
    pub fingerprint: String,
}

/// Builds a network of the weights in `state`, which came from `path`.
///
/// # Errors
///
/// Weights that are missing, misshapen, not finite, or left over and not `known` to be of
/// no use.
pub fn load<T>(
    state: &StateDict,
    path: &Path,
    device: Device,
    known: impl Fn(&str) -> Option<&'static str>,
    build: impl FnOnce(&Params) -> T,
) -> Result<Loaded<T>, LoadError> {
    let loader = Loader::new(state, path);
    let network = build(&Params::new(&loader, device, Kind::Float));
    let fingerprint = loader.fingerprint();
    loader.finish(known)?;
    Ok(Loaded {
        network,
        path: path.to_path_buf(),
        fingerprint,
    })
}

/// The shape of a tensor that tells a layout apart.
///
/// # Errors
///
/// No such tensor: the file is something else than `expected`.
pub(super) fn telling_shape<'a>(
    state: &'a StateDict,
    path: &Path,
    name: &str,
    dimensions: usize,
    expected: &str,
) -> Result<&'a [i64], LoadError> {
    match state.shape(name) {
        Some(shape) if shape.len() == dimensions => Ok(shape),
        found => Err(LoadError::Format {
            path: path.to_path_buf(),
            problem: match found {
                None => format!("not {expected}: no tensor '{name}'"),
                Some(shape) => format!(
                    "not {expected}: '{name}' has shape {shape:?}, expected {dimensions} dimensions"
                ),
            },
        }),
    }
}

/// Query, key and value weights or biases as one, where all three are there.
pub(super) fn join_qkv(state: &StateDict, names: [String; 3]) -> Result<Option<Entry>, LoadError> {
    let parts: Vec<Entry> = names.iter().filter_map(|n| state.get(n).cloned()).collect();
    match parts.len() {
        3 => Entry::joined(&parts).map(Some),
        _ => Ok(None),
    }
}

/// The transposed matrix, read now.
pub(super) fn transposed(entry: &Entry) -> Result<Entry, LoadError> {
    if entry.shape.len() != 2 {
        return Err(LoadError::Tensor {
            file: entry.file.clone(),
            key: entry.key.clone(),
            problem: format!("shape {:?}, expected a matrix", entry.shape),
        });
    }
    let matrix = entry.read()?.to_kind(Kind::Float).tr().contiguous();
    Ok(Entry {
        file: entry.file.clone(),
        ..Entry::in_memory(entry.key.clone(), &matrix)?
    })
}
