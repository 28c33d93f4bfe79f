//! A diffusers folder as our model.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::error::LoadError;
use super::super::state_dict::{Entry, StateDict};
use super::super::vocabulary;
use super::config::{self, has_clip_vocabulary};
use super::key_map::{to_ours, Form};
use super::layout::{
    check_index, format_error, read_weights, Component, INDEX, MERGES, NOTICE, SCHEDULER,
    TOKENIZER_CONFIG, TOKENIZER_WHOLE,
};
use super::tokenizer;
use crate::clip::merges::FULL_VOCABULARY;
use crate::files;
use crate::model::ModelConfig;

/// Bound in bytes on a notice.
const LARGEST_NOTICE: u64 = 1 << 20;

/// The first file that the pipeline in `folder` needs and lacks.
pub fn missing_file(folder: &Path) -> Option<String> {
    let lacks = |name: &String| !folder.join(name).is_file();
    let configs = Component::ALL.map(Component::config);
    let fixed = [INDEX, SCHEDULER, TOKENIZER_CONFIG].map(str::to_string);
    let rules = [MERGES, TOKENIZER_WHOLE];
    let without_weights = |component: &Component| {
        let weights = |name: &String| folder.join(component.name()).join(name).is_file();
        !component.candidates().iter().any(weights)
    };
    let lacking = fixed.into_iter().chain(configs).find(lacks);
    lacking
        .or_else(|| {
            let component = Component::ALL.into_iter().find(without_weights)?;
            Some(component.safetensors())
        })
        .or_else(|| {
            // Without its own rules, a folder may still be for CLIP's vocabulary.
            let is_clip = has_clip_vocabulary(folder);
            let lacks_rules = rules.iter().all(|name| !folder.join(name).is_file());
            (lacks_rules && !is_clip).then(|| MERGES.to_string())
        })
}

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
    if let Some(text) = &mut model.text {
        let tower = &mut text.tower;
        let lacks = format!(
            "holds no merge rules of its text vocabulary ({} or {})",
            MERGES, TOKENIZER_WHOLE
        );
        match tokenizer::merges(folder)? {
            Some(merges) => vocabulary::insert(&merges, tower, &mut state)?,
            None if tower.vocabulary == FULL_VOCABULARY as i64 => log::warn!(
                "{}: {lacks}; its text tower has as many entries as CLIP's, whose rules are taken",
                folder.display()
            ),
            None => return Err(format_error(folder, lacks)),
        }
        if let Some(problem) = vocabulary::misfit(tower, &state) {
            return Err(format_error(&folder.join("tokenizer"), problem));
        }
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
    let notice = match notice.exists() {
        true => Some(files::read_text(&notice, LARGEST_NOTICE)?),
        false => None,
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
        let is_unused = component == Component::TextEncoder
            && (key.ends_with("position_ids") || key == "text_projection.weight");
        if is_unused {
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
