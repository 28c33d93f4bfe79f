//! The image codec of a model without the rest.

use tch::{Device, Kind};

use super::load::code_mapping;
use crate::checkpoint::official::{known_and_ignored, CODEC};
use crate::checkpoint::{CodecFile, LoadError, Loader};
use crate::codec::ImageCodec;
use crate::torch::Params;

/// The image codec of a model alone.
pub struct LoadedCodec {
    pub codec: ImageCodec,
    pub device: Device,
    /// Token grid as rows, columns.
    pub grid: [i64; 2],
    /// Tokens are below this.
    pub codes: i64,
    /// SHA-256 of its weights ([`Loader::fingerprint`]).
    pub fingerprint: String,
}

impl LoadedCodec {
    /// Reads the codec of `file` to `device` and nothing else.
    ///
    /// # Errors
    ///
    /// As [`Pipeline::load`](super::Pipeline::load), for the codec's weights.
    pub fn load(file: &CodecFile, device: Device) -> Result<Self, LoadError> {
        let _no_grad = tch::no_grad_guard();
        let mapping = match file.needs_code_mapping() {
            true => Some(code_mapping(&file.state, &file.path, file.codes, device)?),
            false => None,
        };
        let loader = Loader::new(&file.state, &file.path);
        let root = Params::new(&loader, device, Kind::Float);
        let codec = ImageCodec::new(&root.at(CODEC), &file.config, mapping);
        let fingerprint = loader.fingerprint();
        let other = |name: &str| !name.starts_with(&format!("{CODEC}."));
        loader.finish(|name| match other(name) {
            true => Some("not part of the codec"),
            false => known_and_ignored(name),
        })?;
        Ok(LoadedCodec {
            codec,
            device,
            grid: file.grid,
            codes: file.codes,
            fingerprint,
        })
    }

    /// L.
    pub fn tokens(&self) -> i64 {
        self.grid[0] * self.grid[1]
    }

    /// Height and width of its pictures.
    pub fn picture_size(&self) -> [i64; 2] {
        self.grid.map(|side| side * self.codec.config().factor())
    }
}
