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
        seed: u64,
        seconds_per_picture: f64,
    },
    /// They lay in folders.
    Pictures { pictures: Vec<PathBuf> },
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
