//! PyTorch files as training leaves them.

use std::fs::File;
use std::path::Path;

use vqdiffusion::checkpoint::pytorch::{Saved, SavedTensor, TorchWriter};
use vqdiffusion::checkpoint::Entry;

/// Writes `entries` below the keys `keys`, the outermost first, of nested dicts that hold
/// something else too.
pub fn save(path: &Path, keys: &[&str], entries: &[(String, Entry)]) {
    let tensors = entries.iter().enumerate().map(|(storage, (name, entry))| {
        let tensor = SavedTensor {
            storage,
            dtype: entry.dtype,
            shape: entry.shape.clone(),
        };
        (name.clone(), Saved::Tensor(tensor))
    });
    let inner = Saved::Dict(tensors.collect());
    let value = keys.iter().rev().fold(inner, |value, key| {
        Saved::Dict(vec![
            ("epoch".into(), Saved::Int(3)),
            (key.to_string(), value),
        ])
    });
    let file = File::create(path).expect("a file");
    let mut writer = TorchWriter::new(file, &value).expect("a PyTorch file");
    for (storage, (_, entry)) in entries.iter().enumerate() {
        let bytes = entry.bytes().expect("bytes");
        writer.storage(storage, &bytes).expect("a storage");
    }
    writer.finish().expect("a PyTorch file");
}
