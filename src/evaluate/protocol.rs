//! Where measured pictures are from, and how they were asked for.

use std::path::PathBuf;

use serde::Serialize;

use crate::pipeline::PictureSettings;

/// What a report says of the pictures' origin.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Provenance {
    /// A model was asked for them.
    Model {
        checkpoint: PathBuf,
        /// SHA-256 of its weights.
        model_sha256: String,
        options: PictureSettings,
        /// Evaluations of the network for a picture, those under the null condition counted.
        network_calls: usize,
        /// Further ones at the positions of a few steps alone.
        #[serde(skip_serializing_if = "is_zero")]
        local_calls: usize,
        seed: u64,
        /// Sampling and decoding, without files and measures.
        seconds_per_picture: f64,
    },
    /// They lay in folders.
    Pictures { pictures: Vec<PathBuf> },
}

pub(super) fn is_zero(calls: &usize) -> bool {
    *calls == 0
}

/// How the measured pictures came about, for any measure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Protocol {
    #[serde(flatten)]
    pub provenance: Provenance,
    /// Pictures measured of each set, at most.
    pub limit: Option<u32>,
    /// Whether a signal ended the work before all pictures were made.
    pub stopped: bool,
}
