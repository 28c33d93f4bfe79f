//! Reads the official training checkpoint, its `model` and `ema` state dicts, and the
//! files beside it: codec and code mapping.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::super::error::LoadError;
use super::super::keys::unwrapped;
use super::super::pytorch::{Node, NodeId, TensorRef, TorchFile};
use super::super::state_dict::{Entry, Source, StateDict};
use super::key_names::{canonical_name, CODEC};

/// Which of the two weight sets of a training checkpoint to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WeightSet {
    /// The exponential moving average where there is one, else the plain weights.
    #[default]
    Ema,
    /// The plain weights.
    Model,
}

/// What kind of PyTorch file it is, by its top-level keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfficialKind {
    /// `{model, ema?, …}` of the official solver.
    Training { has_ema: bool },
    /// A codec alone, in a layout of taming.
    Codec,
}

/// Reads the canonical state dict of an official PyTorch file. Only the wanted state
/// dicts are looked at; whatever else the file holds is skipped.
pub fn read(path: &Path, set: WeightSet) -> Result<(StateDict, OfficialKind), LoadError> {
    let file = Arc::new(TorchFile::open(path)?);
    let root = file.root();
    let mut state = StateDict::default();
    // A codec's dict may be under `state_dict` (taming), under `model` (ITHQ's VQ-VAE), or
    // the whole file.
    let nodes = ["state_dict", "model"].map(|key| file.get(root, key));
    for node in nodes.into_iter().flatten().chain([root]) {
        if collect_codec(&file, node, &mut state)? {
            return Ok((state, OfficialKind::Codec));
        }
    }
    if let Some(model) = file.get(root, "model") {
        collect(&file, model, &mut state, canonical_name)?;
        let has_ema = match file.get(root, "ema") {
            Some(ema) => add_average(&file, ema, set, &mut state)?,
            None => false,
        };
        return Ok((state, OfficialKind::Training { has_ema }));
    }
    Err(LoadError::Format {
        path: path.to_path_buf(),
        problem: format!(
            "not a VQ-Diffusion checkpoint: expected the key 'model' (training checkpoint), or \
             a codec ('encoder.*', may be under 'state_dict'), found {}",
            describe_keys(&file, root)
        ),
    })
}

/// Puts the averaged weights in the dict `ema` in the place of the plain ones if `set` asks
/// for them; whether there are any. Something else under that key is said, and the plain
/// weights stay.
fn add_average(
    file: &Arc<TorchFile>,
    ema: NodeId,
    set: WeightSet,
    state: &mut StateDict,
) -> Result<bool, LoadError> {
    let mut average = StateDict::default();
    collect(file, ema, &mut average, |key| format!("transformer.{key}"))?;
    if average.iter().any(|(name, _)| state.contains(name)) {
        if set == WeightSet::Ema {
            for (name, entry) in average.iter() {
                state.insert(name, entry.clone());
            }
        }
        return Ok(true);
    }
    let holds = describe_keys(file, ema);
    let (values, node) = (file.pickle(), file.pickle().node(ema));
    let is_empty = match node {
        None | Some(Node::None) => true,
        Some(Node::Dict(_) | Node::List(_) | Node::Tuple(_) | Node::Object(_)) => {
            values.pairs(ema).next().is_none() && values.items(ema).is_empty()
        }
        Some(_) => false,
    };
    if set == WeightSet::Ema {
        let path = file.path().display();
        match is_empty {
            true => log::info!("{path}: 'ema' is empty; its plain weights are used"),
            false => log::warn!(
                "{path}: 'ema' holds no averaged weights that are understood (found {holds}, \
                 expected the names under 'model'); its plain weights are used"
            ),
        }
    }
    Ok(false)
}

/// Adds the codec in the dict `node`; whether there is one. In the checkpoint of an
/// autoregressive taming model (FFHQ) it is the first stage, and the rest is not read.
fn collect_codec(
    file: &Arc<TorchFile>,
    node: NodeId,
    state: &mut StateDict,
) -> Result<bool, LoadError> {
    let prefix = ["", "first_stage_model."].into_iter().find(|prefix| {
        let encoder = format!("{prefix}encoder.");
        file.entries(node)
            .any(|(key, _)| unwrapped(key).starts_with(&encoder))
    });
    let Some(prefix) = prefix else {
        return Ok(false);
    };
    let mut averaged = 0;
    for (key, value) in file.entries(node) {
        let plain = unwrapped(key);
        let Some(rest) = plain.strip_prefix(prefix) else {
            continue;
        };
        if AVERAGED_CODEC.iter().any(|copy| rest.starts_with(copy)) {
            averaged += 1;
            continue;
        }
        if let Some(tensor) = tensor_at(file, key, value)? {
            state.insert(format!("{CODEC}.{rest}"), entry(file, key, tensor));
        }
    }
    if averaged > 0 {
        log::warn!(
            "{}: beside the codec it holds an averaged copy ({averaged} entries); the plain \
             weights are used, as the original does",
            file.path().display()
        );
    }
    Ok(true)
}

/// Where trainers of codecs keep a moving average beside the weights: Lightning's `LitEma`
/// and others.
const AVERAGED_CODEC: [&str; 5] = [
    "model_ema.",
    "ema.",
    "ema_model.",
    "ema_encoder.",
    "ema_decoder.",
];

/// Reads the one tensor of a code mapping file (`taming_vqvae_2887.pt`).
pub fn read_mapping(path: &Path) -> Result<Entry, LoadError> {
    let file = Arc::new(TorchFile::open(path)?);
    match tensor_at(&file, "(the tensor)", file.root())? {
        Some(tensor) => Ok(entry(&file, "(the tensor)", tensor)),
        None => Err(LoadError::Format {
            path: path.to_path_buf(),
            problem: "not a code mapping: expected one int64 vector".into(),
        }),
    }
}

/// Adds the tensors of the dict `node` under the names that `rename` gives their keys,
/// which come without names of wrappers.
///
/// # Errors
///
/// A tensor that cannot be read, two keys that differ by names of wrappers alone.
pub(in crate::checkpoint) fn collect(
    file: &Arc<TorchFile>,
    node: NodeId,
    state: &mut StateDict,
    rename: impl Fn(&str) -> String,
) -> Result<(), LoadError> {
    let mut keys: BTreeMap<String, &str> = BTreeMap::new();
    for (key, value) in file.entries(node) {
        let Some(tensor) = tensor_at(file, key, value)? else {
            continue;
        };
        let plain = unwrapped(key);
        state.insert(rename(&plain), entry(file, key, tensor));
        if let Some(other) = keys.insert(plain.into_owned(), key).filter(|o| *o != key) {
            return Err(LoadError::Tensor {
                file: file.path().to_path_buf(),
                key: key.to_string(),
                problem: format!("is '{other}' too once the names of wrappers are left out"),
            });
        }
    }
    Ok(())
}

/// The tensor that `value` under `key` stands for; an error that names the key.
pub(in crate::checkpoint) fn tensor_at(
    file: &TorchFile,
    key: &str,
    value: NodeId,
) -> Result<Option<TensorRef>, LoadError> {
    let tensor = file.tensor(value);
    tensor.map_err(|e| LoadError::Checkpoint(e.in_entry(key)))
}

pub(in crate::checkpoint) fn entry(file: &Arc<TorchFile>, key: &str, tensor: TensorRef) -> Entry {
    Entry {
        dtype: tensor.dtype,
        shape: tensor.shape.iter().map(|&n| n as i64).collect(),
        file: file.path().to_path_buf(),
        key: key.to_string(),
        source: Source::Torch(file.clone(), tensor),
    }
}

fn describe_keys(file: &TorchFile, root: NodeId) -> String {
    let mut keys: Vec<_> = file.entries(root).map(|(key, _)| key.to_string()).collect();
    let more = keys.len().saturating_sub(6);
    keys.truncate(6);
    match (keys.is_empty(), more) {
        (true, _) => "no named entries".into(),
        (false, 0) => keys.join(", "),
        (false, more) => format!("{} and {more} more", keys.join(", ")),
    }
}
