//! Checkpoints of a run: folders that appear whole or not at all.
//!
//! `step-00001000/` holds the model's file as other commands read it (with the averaged
//! weights, where there are such), `state.safetensors` (all else that a run changes),
//! `window.json` (the steps since the last line of the log, if there are any) and
//! `manifest.json` (counters, the validation's result, SHA-256 of the other files).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use tch::{Device, TchError, Tensor};

use super::folder::{saved_steps, SavedStep};
use super::learning_rate::PlateauState;
use super::manifest::{self, hashes, verified, Manifest};
use super::optimizer::Optimizer;
use super::parameters::Parameters;
use super::state::RunState;
use crate::checkpoint::state_dict::read_safetensors;
use crate::checkpoint::StateDict;
use crate::data::Fingerprint;
use crate::files::{self, FileError};
use crate::torch::host::values;
use crate::train::error::{SaveError, TrainError};

const STATE: &str = "state.safetensors";
const WINDOW: &str = "window.json";
/// Size of it, at most.
const MOST_WINDOW: u64 = 64 << 20;

/// What a checkpoint holds besides `state` and the model's file.
pub(super) struct Contents<'a> {
    /// Tensors of the task.
    pub tensors: Vec<(String, Tensor)>,
    /// The steps since the last line of the log, as JSON.
    pub window: Option<String>,
    /// Measure and value.
    pub validation: Option<(&'a str, f64)>,
    pub validation_due: bool,
    /// What is trained on.
    pub data: &'a Fingerprint,
}

/// Fills the folder `path`, which has the model's file under the name `model` already.
pub(super) fn fill(
    path: &Path,
    model: &str,
    state: &RunState,
    contents: Contents,
) -> Result<(), SaveError> {
    let mut tensors = tensors(state);
    tensors.extend(contents.tensors);
    Tensor::write_safetensors(&tensors, path.join(STATE)).map_err(|error| {
        let error = match error {
            TchError::SafeTensorError { err, .. } => io::Error::other(err),
            error => io::Error::other(error),
        };
        FileError::writing(&path.join(STATE))(error)
    })?;
    let mut names = vec![model, STATE];
    if let Some(window) = contents.window {
        let file = path.join(WINDOW);
        fs::write(&file, window + "\n").map_err(FileError::writing(&file))?;
        names.push(WINDOW);
    }
    let manifest = Manifest {
        format_version: manifest::VERSION,
        step: state.step,
        samples: state.samples,
        updates: state.optimizer.updates,
        skipped: state.skipped,
        validation: contents
            .validation
            .map(|(name, value)| BTreeMap::from([(name.to_string(), value)])),
        validation_due: contents.validation_due,
        data: Some(contents.data.clone()),
        files: hashes(path, &names)?,
    };
    Ok(manifest.write(path)?)
}

/// The newest checkpoint in `folder` that is whole, with a model's file of this name;
/// damaged ones are passed over with a warning.
///
/// # Errors
///
/// A folder that cannot be read.
pub fn newest(folder: &Path, model: &str) -> Result<Option<SavedStep>, TrainError> {
    for saved in saved_steps(folder)?.into_iter().rev() {
        match verified(&saved.path, &[model, STATE]) {
            Ok(_) => return Ok(Some(saved)),
            Err(error) => log::warn!("{}: {error}; passed over", saved.path.display()),
        }
    }
    Ok(None)
}

/// A checkpoint that was read.
pub(super) struct Restored {
    pub manifest: Manifest,
    /// The tensors of the model's file.
    pub model: StateDict,
    /// Those of `state.safetensors`.
    pub rest: StateDict,
    /// `window.json`, if there is one.
    pub window: Option<String>,
}

/// Puts the checkpoint at `path` into `state`, which was made for the same model, and
/// returns all that it holds.
pub(super) fn restore(
    path: &Path,
    model: &str,
    state: &mut RunState,
) -> Result<Restored, TrainError> {
    let manifest = verified(path, &[model, STATE]);
    let manifest = manifest.map_err(|source| TrainError::Manifest {
        path: path.to_path_buf(),
        source,
    })?;
    let (model, _) = read_safetensors(&path.join(model))?;
    let (rest, _) = read_safetensors(&path.join(STATE))?;
    if let Some(ema) = &mut state.ema {
        fill_from(ema, &model, "")?;
    }
    fill_from(&mut state.parameters, &rest, "parameter.")?;
    check_optimizer(path, &rest, &state.optimizer)?;
    fill_from(&mut state.optimizer.averages, &rest, "average.")?;
    fill_from(
        &mut state.optimizer.square_averages,
        &rest,
        "square_average.",
    )?;
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
    let window = match manifest.files.contains_key(WINDOW) {
        true => {
            let path = path.join(WINDOW);
            Some(files::read_text(&path, MOST_WINDOW)?)
        }
        false => None,
    };
    Ok(Restored {
        manifest,
        model,
        rest,
        window,
    })
}

/// Whether the checkpoint `path` has second moments of the same parameters as `optimizer`.
fn check_optimizer(path: &Path, rest: &StateDict, optimizer: &Optimizer) -> Result<(), TrainError> {
    const SQUARES: &str = "square_average.";
    let there = rest.iter().filter(|(name, _)| name.starts_with(SQUARES));
    let (there, here) = (there.count(), optimizer.square_averages.tensors.len());
    let then = match there {
        there if there < here => "muon",
        there if there > here => "adamw",
        _ => return Ok(()),
    };
    Err(TrainError::Checkpoint {
        path: path.to_path_buf(),
        problem: format!(
            "was made with train.optimizer.kind {then}; a run goes on with the optimizer that it \
             began with (to change it, begin another from its model)"
        ),
    })
}

/// All tensors of `state`, on the CPU. Numbers are f64, in which the counts of any run are
/// exact.
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
    out.push(("learning_rate".into(), Tensor::from_slice(&numbers)));
    out
}

/// Puts the tensors of `from`, whose names have this prefix there, into `into`.
pub fn fill_from(into: &mut Parameters, from: &StateDict, prefix: &str) -> Result<(), TrainError> {
    let _no_grad = tch::no_grad_guard();
    for (name, tensor) in &mut into.tensors {
        let value = read(from, &format!("{prefix}{name}"), &tensor.size())?;
        tensor.copy_(&value);
    }
    Ok(())
}

/// The tensor `name` of a checkpoint's file.
///
/// # Errors
///
/// A tensor that is missing or of another shape.
pub fn read(from: &StateDict, name: &str, shape: &[i64]) -> Result<Tensor, TrainError> {
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

/// The numbers under `name` of a checkpoint's file.
///
/// # Errors
///
/// As for [`read`].
pub fn numbers(from: &StateDict, name: &str, count: i64) -> Result<Vec<f64>, TrainError> {
    Ok(values(&read(from, name, &[count])?))
}
