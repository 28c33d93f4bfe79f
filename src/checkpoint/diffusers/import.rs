//! A diffusers folder as our model.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::error::LoadError;
use super::super::state_dict::{Entry, StateDict};
use super::super::vocabulary;
use super::config;
use super::key_map::{to_ours, Form};
use super::layout::{check_index, format_error, read_weights, Component, MERGES, NOTICE};
use crate::model::ModelConfig;

/// Reads configuration, tensors (by canonical name) and notice of the pipeline in `folder`.
///
/// # Errors
///
/// A component that is missing, a configuration that this model cannot be, weights
/// that are unreadable. Tensors that the layout does not know keep their own name, so
/// that loading reports them.
pub fn open(folder: &Path) -> Result<(ModelConfig, StateDict, Option<String>), LoadError> {
    check_index(folder)?;
    let mut model = config::read(folder)?;
    let mut state = StateDict::default();
    let merges = folder.join(MERGES);
    if let Some(text) = model.text.as_mut().filter(|_| merges.is_file()) {
        vocabulary::add_file(&merges, &mut text.tower, &mut state)?;
    }
    for component in Component::ALL {
        if component == Component::NullText && !config::has_learned_null(&model) {
            continue;
        }
        let Some(tensors) = read_weights(folder, component)? else {
            let folder = folder.join(component.name());
            let problem = "holds no weights (.safetensors or .bin)";
            return Err(format_error(&folder, problem));
        };
        rename(
            &tensors,
            component,
            model.codec.multipliers.len(),
            &mut state,
        )?;
    }
    let notice = folder.join(NOTICE);
    let notice = match std::fs::read_to_string(&notice) {
        Ok(text) => Some(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(format_error(&notice, e.to_string())),
    };
    Ok((model, state, notice))
}

/// Adds `tensors` of `component` under their canonical names.
pub fn rename(
    tensors: &StateDict,
    component: Component,
    levels: usize,
    state: &mut StateDict,
) -> Result<(), LoadError> {
    let mut thirds: BTreeMap<String, [Option<Entry>; 3]> = BTreeMap::new();
    for (key, entry) in tensors.iter() {
        if key.ends_with("position_ids") {
            continue;
        }
        match to_ours(component, key, levels) {
            Some((name, Form::Same)) => state.insert(name, entry.clone()),
            Some((name, Form::Pointwise)) => {
                let mut shape = entry.shape.clone();
                shape.resize(4.max(shape.len()), 1);
                state.insert(name, entry.reshaped(&shape)?);
            }
            Some((name, Form::Third(index))) => {
                thirds.entry(name).or_default()[index] = Some(entry.clone());
            }
            None => state.insert(format!("{}: {key}", component.name()), entry.clone()),
        }
    }
    for (name, parts) in thirds {
        match parts {
            [Some(q), Some(k), Some(v)] => state.insert(name, Entry::joined(&[q, k, v])?),
            // Loading will miss the joined tensor, and name what is there.
            parts => {
                for part in parts.into_iter().flatten() {
                    state.insert(format!("{}: {}", component.name(), part.key), part.clone());
                }
            }
        }
    }
    Ok(())
}
