//! Runs of earlier versions, which kept one `state.safetensors` at the top of their folder.

use std::path::Path;

use tch::Tensor;

use super::weights::CodecWeights;
use crate::checkpoint::state_dict::read_safetensors;
use crate::files::{Action, FileError};
use crate::train::engine::checkpoint::{fill_from, numbers, read};
use crate::train::engine::RunState;
use crate::train::TrainError;

const STATE: &str = "state.safetensors";

/// Whether `folder` holds such a run.
pub fn is_in(folder: &Path) -> bool {
    folder.join(STATE).is_file()
}

/// Fills `state` and `weights` from the state in `folder`, whose steps had
/// `effective_batch` samples each.
///
/// # Errors
///
/// A file that cannot be read, or of another codec.
pub fn restore(
    folder: &Path,
    state: &mut RunState,
    weights: &mut CodecWeights,
    effective_batch: u64,
) -> Result<(), TrainError> {
    let path = folder.join(STATE);
    let (stored, _) = read_safetensors(&path)?;
    // The trained ones share the memory of these.
    fill_from(&mut weights.all, &stored, "parameter.")?;
    fill_from(&mut state.optimizer.averages, &stored, "average.")?;
    fill_from(
        &mut state.optimizer.square_averages,
        &stored,
        "square_average.",
    )?;
    tch::no_grad(|| {
        for (name, tensor) in weights.codebook_tensors() {
            let stored: Tensor = read(&stored, &format!("codebook.{name}"), &tensor.size())?;
            tensor.shallow_clone().copy_(&stored);
        }
        Ok::<_, TrainError>(())
    })?;
    // Step, updates, rate and its steps.
    let counts = numbers(&stored, "numbers", 4)?;
    state.step = counts[0] as u64;
    state.samples = state.step * effective_batch;
    state.optimizer.updates = counts[1] as u64;
    state.learning_rate.rate = counts[2];
    state.learning_rate.steps = counts[3] as u64;
    weights.check_price_channel(&path)?;
    weights.find_codebook();
    Ok(())
}

/// Removes the state of such a run, when a checkpoint has taken its place.
pub fn remove(folder: &Path) -> Result<(), TrainError> {
    let path = folder.join(STATE);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(FileError::new(path, Action::Remove, e).into())
        }
        _ => Ok(()),
    }
}
