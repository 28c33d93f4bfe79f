//! Checkpoints of a run: folders that appear whole or not at all.
//!
//! `step-00001000/` holds `model.safetensors` (the averaged weights with the frozen
//! parts, a model file like any other), `state.safetensors` (all else that a run
//! changes) and `manifest.json` (counters, the validation's result, SHA-256 of both
//! files). It is written under a temporary name, synced and renamed. Beside them the
//! link `last` names the newest and `best` the one with the lowest bound.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::config::{CheckpointConfig, TrainConfig};
use super::error::TrainError;
use super::learning_rate::PlateauState;
use super::parameters::Parameters;
use super::state::RunState;
use super::validation::Bound;
use crate::checkpoint::state_dict::read_safetensors;
use crate::checkpoint::{native, Entry, StateDict};
use crate::files::{remove_folder, replace_link, sha256_of_file, FileError, NewFolder};
use crate::model::ModelConfig;

const VERSION: u32 = 1;
const PREFIX: &str = "step-";
pub const MODEL: &str = "model.safetensors";
const STATE: &str = "state.safetensors";
const MANIFEST: &str = "manifest.json";

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format_version: u32,
    step: u64,
    samples: u64,
    updates: u64,
    skipped: u64,
    /// Result of the validation at this step.
    validation: Option<Bound>,
    /// SHA-256 of each file.
    files: std::collections::BTreeMap<String, String>,
}

/// A checkpoint on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedStep {
    pub path: PathBuf,
    pub step: u64,
}

/// The checkpoints in a run's folder, oldest first.
pub fn saved_steps(folder: &Path) -> Result<Vec<SavedStep>, TrainError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(TrainError::io(folder)(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(TrainError::io(folder))?;
        let name = entry.file_name();
        let step = name.to_str().and_then(|n| n.strip_prefix(PREFIX));
        if let Some(step) = step.and_then(|digits| digits.parse().ok()) {
            let path = entry.path();
            found.push(SavedStep { path, step });
        }
    }
    found.sort_by_key(|s| s.step);
    Ok(found)
}

/// Writes the checkpoint of `state` into `folder` and removes the ones not kept.
///
/// # Errors
///
/// What could not be written; checkpoints already there are untouched then.
pub fn save(
    folder: &Path,
    keep: &CheckpointConfig,
    config: &ModelConfig,
    state: &RunState,
    frozen: &StateDict,
    notice: Option<&str>,
    validation: Option<Bound>,
) -> Result<SavedStep, TrainError> {
    fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
    let before = saved_steps(folder)?;
    let failed = |problem: String| TrainError::Save {
        step: state.step,
        kept: before.last().map_or_else(
            || "there is none before it".into(),
            |s| format!("{} stays the last one", s.path.display()),
        ),
        problem,
    };
    let saved = write(folder, config, state, frozen, notice, validation).map_err(failed)?;
    prune(folder, keep)?;
    Ok(saved)
}

fn write(
    folder: &Path,
    config: &ModelConfig,
    state: &RunState,
    frozen: &StateDict,
    notice: Option<&str>,
    validation: Option<Bound>,
) -> Result<SavedStep, String> {
    let path = folder.join(format!("{PREFIX}{:08}", state.step));
    let new = NewFolder::beside(&path).map_err(|e| e.to_string())?;
    let mut model = frozen.clone();
    for (name, tensor) in &state.ema.tensors {
        let tensor = tensor.to_device(Device::Cpu);
        let entry = Entry::in_memory(name, &tensor).map_err(|e| e.to_string())?;
        model.insert(name.clone(), entry);
    }
    let at = |name: &str| new.temporary().join(name);
    native::write(&at(MODEL), config, &model, notice).map_err(|e| e.to_string())?;
    Tensor::write_safetensors(&tensors(state), at(STATE)).map_err(|e| e.to_string())?;
    let hash = |name: &str| {
        let hash = sha256_of_file(&at(name)).map_err(|e| format!("{name}: {}", e.source))?;
        Ok::<_, String>((name.to_string(), hash))
    };
    let manifest = Manifest {
        format_version: VERSION,
        step: state.step,
        samples: state.samples,
        updates: state.optimizer.updates,
        skipped: state.skipped,
        validation,
        files: [hash(MODEL)?, hash(STATE)?].into(),
    };
    let text = serde_json::to_string_pretty(&manifest).map_err(|e| e.to_string())?;
    fs::write(at(MANIFEST), text + "\n").map_err(|e| format!("{MANIFEST}: {e}"))?;
    new.commit().map_err(|e| e.to_string())?;
    Ok(SavedStep {
        path,
        step: state.step,
    })
}

/// Keeps the newest checkpoints and the best.
fn prune(folder: &Path, keep: &CheckpointConfig) -> Result<(), TrainError> {
    let saved = saved_steps(folder)?;
    let best = name_last_and_best(folder, &saved)?;
    let old = saved.len().saturating_sub(keep.keep);
    for saved in &saved[..old] {
        if Some(saved) != best {
            remove_folder(&saved.path)?;
        }
    }
    Ok(())
}

/// Links `last` to the newest of the checkpoints `saved` in `folder` and `best` to the one
/// with the lowest bound, which is returned; without any such there is no such link.
pub(super) fn name_last_and_best<'a>(
    folder: &Path,
    saved: &'a [SavedStep],
) -> Result<Option<&'a SavedStep>, FileError> {
    let bound = |s: &SavedStep| {
        let validation = manifest(&s.path).ok()?.validation?;
        Some(validation.nats_per_token)
    };
    let best = saved
        .iter()
        .filter_map(|s| Some((bound(s)?, s)))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, s)| s);
    let name = |s: &'a SavedStep| s.path.file_name();
    replace_link(&folder.join("last"), saved.last().and_then(name))?;
    replace_link(&folder.join("best"), best.and_then(name))?;
    Ok(best)
}

fn manifest(path: &Path) -> Result<Manifest, String> {
    let file = path.join(MANIFEST);
    let text = fs::read_to_string(&file).map_err(|e| format!("{MANIFEST}: {e}"))?;
    let manifest: Manifest = serde_json::from_str(&text).map_err(|e| format!("{MANIFEST}: {e}"))?;
    if manifest.format_version != VERSION {
        return Err(format!(
            "{MANIFEST}: format version {}, expected {VERSION}",
            manifest.format_version
        ));
    }
    Ok(manifest)
}

/// Whether the checkpoint at `path` is whole: its files have the recorded hashes.
fn verified(path: &Path) -> Result<Manifest, String> {
    let manifest = manifest(path)?;
    for name in [MODEL, STATE] {
        let expected = manifest
            .files
            .get(name)
            .ok_or_else(|| format!("{MANIFEST} names no {name}"))?;
        let found =
            sha256_of_file(&path.join(name)).map_err(|e| format!("{name}: {}", e.source))?;
        if found != *expected {
            return Err(format!(
                "{name} has SHA-256 {found}, but {MANIFEST} says {expected}"
            ));
        }
    }
    Ok(manifest)
}

/// The newest checkpoint in `folder` that is whole; damaged ones are passed over with a
/// warning.
pub fn newest(folder: &Path) -> Result<Option<SavedStep>, TrainError> {
    for saved in saved_steps(folder)?.into_iter().rev() {
        match verified(&saved.path) {
            Ok(_) => return Ok(Some(saved)),
            Err(problem) => log::warn!("{}: {problem}; passed over", saved.path.display()),
        }
    }
    Ok(None)
}

/// Puts the checkpoint at `path` into `state`, which was made for the same model.
pub fn restore(path: &Path, config: &TrainConfig, state: &mut RunState) -> Result<(), TrainError> {
    let failed = |problem: String| TrainError::Checkpoint {
        path: path.to_path_buf(),
        problem,
    };
    let manifest = verified(path).map_err(failed)?;
    let (model, _) = read_safetensors(&path.join(MODEL))?;
    let (rest, _) = read_safetensors(&path.join(STATE))?;
    let fill = |into: &mut Parameters, from: &StateDict, prefix: &str| {
        let _no_grad = tch::no_grad_guard();
        for (name, tensor) in &mut into.tensors {
            let value = read(from, &format!("{prefix}{name}"), &tensor.size())?;
            tensor.copy_(&value);
        }
        Ok::<(), TrainError>(())
    };
    fill(&mut state.ema, &model, "")?;
    fill(&mut state.parameters, &rest, "parameter.")?;
    fill(&mut state.optimizer.averages, &rest, "average.")?;
    fill(
        &mut state.optimizer.square_averages,
        &rest,
        "square_average.",
    )?;
    let steps = state.times.history.len() as i64;
    state.times.history = numbers(&rest, "time.history", steps)?;
    state.times.count = numbers(&rest, "time.count", steps)?;
    let rate = numbers(&rest, "learning_rate", 7)?;
    state.learning_rate.rate = rate[0];
    state.learning_rate.steps = rate[1] as u64;
    state.learning_rate.plateau = PlateauState {
        best: rate[2],
        bad_steps: rate[3] as u64,
        cooldown_left: rate[4] as u64,
        window_sum: rate[5],
        window_steps: rate[6] as u64,
    };
    state.step = manifest.step;
    state.samples = manifest.samples;
    state.optimizer.updates = manifest.updates;
    state.skipped = manifest.skipped;
    if !state.samples.is_multiple_of(config.effective_batch()) {
        log::warn!(
            "{}: was made with another effective batch than {}",
            path.display(),
            config.effective_batch()
        );
    }
    Ok(())
}

/// All tensors of `state.safetensors`, on the CPU. Numbers are f64, in which the counts
/// of any run are exact.
fn tensors(state: &RunState) -> Vec<(String, Tensor)> {
    let mut out = Vec::new();
    for (prefix, group) in [
        ("parameter", &state.parameters),
        ("average", &state.optimizer.averages),
        ("square_average", &state.optimizer.square_averages),
    ] {
        for (name, tensor) in &group.tensors {
            let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
            out.push((format!("{prefix}.{name}"), tensor));
        }
    }
    let (rate, plateau) = (&state.learning_rate, &state.learning_rate.plateau);
    let numbers = [
        rate.rate,
        rate.steps as f64,
        plateau.best,
        plateau.bad_steps as f64,
        plateau.cooldown_left as f64,
        plateau.window_sum,
        plateau.window_steps as f64,
    ];
    for (name, values) in [
        ("learning_rate", numbers.as_slice()),
        ("time.history", &state.times.history),
        ("time.count", &state.times.count),
    ] {
        out.push((name.to_string(), Tensor::from_slice(values)));
    }
    out
}

fn read(from: &StateDict, name: &str, shape: &[i64]) -> Result<Tensor, TrainError> {
    let Some(entry) = from.get(name) else {
        let file = from.iter().next().map(|(_, e)| e.file.clone());
        return Err(TrainError::Checkpoint {
            path: file.unwrap_or_default(),
            problem: format!("has no tensor '{name}', so it is of another model"),
        });
    };
    if entry.shape != shape {
        return Err(TrainError::Checkpoint {
            path: entry.file.clone(),
            problem: format!("'{name}' has shape {:?}, expected {shape:?}", entry.shape),
        });
    }
    Ok(entry.read()?)
}

fn numbers(from: &StateDict, name: &str, count: i64) -> Result<Vec<f64>, TrainError> {
    let tensor = read(from, name, &[count])?.to_kind(Kind::Double);
    let mut values = vec![0.0; count as usize];
    tensor.copy_data(&mut values, count as usize);
    Ok(values)
}
