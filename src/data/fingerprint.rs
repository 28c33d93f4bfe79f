//! What tells one data set from another, so that a run that goes on can say when its data
//! have changed: order and epochs follow from the list.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::Tensor;

use super::dataset::Item;
use super::samples::Samples;
use crate::files::hex;
use crate::torch::host::values;

/// The identity of a list of samples. Pictures' contents are not part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Pictures, or rows of a tokens file.
    pub items: u64,
    /// SHA-256 in hexadecimal of names, captions and labels in their order.
    pub sha256: String,
}

impl Fingerprint {
    /// Of pictures with their captions and labels.
    pub fn of_items(items: &[Item]) -> Self {
        let mut hasher = Sha256::new();
        serde_json::to_writer(&mut hasher, items)
            .expect("names of items are UTF-8 and a hash takes all bytes");
        Fingerprint {
            items: items.len() as u64,
            sha256: hex(&hasher.finalize()),
        }
    }

    /// Of tokens, text ids and labels in memory.
    pub fn of_samples(samples: &Samples) -> Self {
        let mut hasher = Sha256::new();
        let tensors = [
            Some(&samples.tokens),
            samples.text_ids.as_ref(),
            samples.labels.as_ref(),
        ];
        for (name, tensor) in ["tokens", "text_ids", "labels"].into_iter().zip(tensors) {
            let Some(tensor) = tensor else { continue };
            hasher.update(format!("{name} {:?}", tensor.size()));
            for row in 0..tensor.size()[0] {
                hasher.update(bytes(&tensor.get(row)));
            }
        }
        Fingerprint {
            items: samples.tokens.size()[0] as u64,
            sha256: hex(&hasher.finalize()),
        }
    }
}

/// The values of an int64 tensor, little-endian.
fn bytes(tensor: &Tensor) -> Vec<u8> {
    let values: Vec<i64> = values(tensor);
    values.into_iter().flat_map(i64::to_le_bytes).collect()
}
