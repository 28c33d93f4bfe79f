//! The files of a codec run: `state.safetensors`, all that the run changes, and
//! `codec.safetensors`, the codec as every command reads it.

use std::path::{Path, PathBuf};

use tch::{Device, Tensor};

use super::trainer::CodecTrainer;
use crate::checkpoint::official::CODEC;
use crate::checkpoint::state_dict::read_safetensors;
use crate::checkpoint::{codec_file, Entry, LoadError, StateDict};
use crate::files::NewFile;

/// The codec's file name.
pub const MODEL: &str = "codec.safetensors";
/// The run's.
pub const STATE: &str = "state.safetensors";

const NUMBERS: &str = "numbers";

/// Writes both files; each appears whole or not at all, the state first.
pub fn save(folder: &Path, trainer: &CodecTrainer) -> Result<PathBuf, LoadError> {
    let state = folder.join(STATE);
    let file = NewFile::beside(&state)?;
    let named: Vec<(String, Tensor)> = tensors(trainer)
        .into_iter()
        .map(|(name, tensor)| (name, tensor.detach().to_device(Device::Cpu).contiguous()))
        .chain([(NUMBERS.to_string(), Tensor::from_slice(&numbers(trainer)))])
        .collect();
    Tensor::write_safetensors(&named, file.temporary()).map_err(|e| LoadError::Format {
        path: state.clone(),
        problem: format!("could not be written: {e}"),
    })?;
    file.commit()?;
    let path = folder.join(MODEL);
    codec_file::write(&path, trainer.shape(), &codec_state(trainer)?)?;
    Ok(path)
}

/// The codec's tensors by canonical name.
pub fn codec_state(trainer: &CodecTrainer) -> Result<StateDict, LoadError> {
    let book = &trainer.codebook;
    let buffers = [
        ("embedding", &book.embedding),
        ("cluster_size", &book.cluster_size),
        ("embedding_avg", &book.embedding_avg),
    ]
    .map(|(name, tensor)| (format!("{CODEC}.quantize.{name}"), tensor));
    let weights = trainer.parameters.tensors.iter();
    let weights = weights.map(|(name, tensor)| (name.clone(), tensor));
    let mut state = StateDict::default();
    for (name, tensor) in weights.chain(buffers) {
        let entry = Entry::in_memory(&name, tensor)?;
        state.insert(name, entry);
    }
    Ok(state)
}

/// Every tensor of a run with its name in the file; copies share the memory.
fn tensors(trainer: &CodecTrainer) -> Vec<(String, Tensor)> {
    let groups = [
        ("parameter", &trainer.parameters),
        ("average", &trainer.optimizer.averages),
        ("square_average", &trainer.optimizer.square_averages),
    ];
    let book = &trainer.codebook;
    let buffers = [
        ("embedding", &book.embedding),
        ("cluster_size", &book.cluster_size),
        ("embedding_avg", &book.embedding_avg),
    ];
    let of_group = groups.into_iter().flat_map(|(prefix, group)| {
        let tensors = group.tensors.iter();
        tensors.map(move |(name, tensor)| (format!("{prefix}.{name}"), tensor.shallow_clone()))
    });
    let of_book =
        buffers.map(|(name, tensor)| (format!("codebook.{name}"), tensor.shallow_clone()));
    of_group.chain(of_book).collect()
}

/// Step, updates, rate and its steps: f64, in which counts are exact.
fn numbers(trainer: &CodecTrainer) -> [f64; 4] {
    [
        trainer.step as f64,
        trainer.optimizer.updates as f64,
        trainer.learning_rate.rate,
        trainer.learning_rate.steps as f64,
    ]
}

/// Puts the state in `folder` into `trainer`, which was made for the same codec.
pub fn restore(folder: &Path, trainer: &mut CodecTrainer) -> Result<(), LoadError> {
    let _no_grad = tch::no_grad_guard();
    let path = folder.join(STATE);
    let (state, _) = read_safetensors(&path)?;
    for (name, mut tensor) in tensors(trainer) {
        tensor.copy_(&read(&state, &path, &name, &tensor.size())?);
    }
    let stored = read(&state, &path, NUMBERS, &[4])?;
    let number = |n: i64| stored.double_value(&[n]);
    trainer.step = number(0) as u64;
    trainer.optimizer.updates = number(1) as u64;
    trainer.learning_rate.rate = number(2);
    trainer.learning_rate.steps = number(3) as u64;
    trainer.check_price_channel(&path)?;
    trainer.find_codebook();
    Ok(())
}

fn read(state: &StateDict, path: &Path, name: &str, shape: &[i64]) -> Result<Tensor, LoadError> {
    let problem = |problem: String| LoadError::Tensor {
        file: path.to_path_buf(),
        key: name.to_string(),
        problem,
    };
    let entry = state
        .get(name)
        .ok_or_else(|| problem("missing, so the run trained another codec".into()))?;
    if entry.shape != shape {
        return Err(problem(format!(
            "shape {:?}, expected {shape:?}",
            entry.shape
        )));
    }
    entry.read()
}
