//! The start of training from the codec in a file.

use std::path::Path;

use tch::{Device, Kind};

use super::config::{CodecTrainConfig, Trained};
use super::weights::CodecWeights;
use crate::checkpoint::config_file::differences;
use crate::checkpoint::official::{known_and_ignored, CODEC};
use crate::checkpoint::{CodecFile, LoadError, Loader};
use crate::codec::{CodecConfig, ImageCodec};
use crate::torch::{Init, Params, WeightSource};

/// The weights and the codebook of `file`: its entries with their
/// running counts and sums, or, where it holds none of these, with equal counts.
///
/// # Errors
///
/// A codec of another shape than `shape`, whatever the size of the pictures; weights that
/// are missing, misshapen or not finite, by name.
pub fn from_file(
    file: &CodecFile,
    shape: &CodecConfig,
    config: &CodecTrainConfig,
    device: Device,
) -> Result<CodecWeights, LoadError> {
    check_shape(&file.path, &file.config, shape)?;
    let ignored = |name: &str| match name.starts_with(&format!("{CODEC}.")) {
        false => Some("not part of the codec"),
        true => known_and_ignored(name),
    };
    // Shapes first: moments of the size that a wrong configuration says may not fit.
    let shapes = Loader::without_reading(&file.state, &file.path);
    let root = Params::new(&shapes, Device::Cpu, Kind::Float);
    let _ = ImageCodec::new(&root.at(CODEC), shape, None);
    shapes.finish(ignored)?;

    let loader = Loader::new(&file.state, &file.path);
    let mut weights = CodecWeights::new(shape, config, &loader, device);
    let (entries, width) = (shape.codebook, shape.embedding_width);
    let [counts, sums] =
        ["cluster_size", "embedding_avg"].map(|name| format!("{CODEC}.quantize.{name}"));
    let known = file.state.contains(&counts) && file.state.contains(&sums);
    let statistics = known.then(|| {
        let counts = loader.weight(&counts, &[entries], Init::Zeros);
        (counts, loader.weight(&sums, &[entries, width], Init::Zeros))
    });
    loader.finish(ignored)?;
    weights.check_price_channel(&file.path)?;
    weights.keep_codebook(statistics);
    if config.trained == Trained::Decoder && !weights.has_codebook() {
        return Err(LoadError::Format {
            path: file.path.clone(),
            problem: "its codebook was never used, so there is nothing to decode \
                      (train.trained: decoder)"
                .into(),
        });
    }
    Ok(weights)
}

fn check_shape(path: &Path, found: &CodecConfig, wanted: &CodecConfig) -> Result<(), LoadError> {
    let mut found = found.clone();
    found.set_resolution(wanted.resolution);
    match differences("codec", wanted, &found).into_iter().next() {
        None => Ok(()),
        Some((key, wanted, found)) => Err(LoadError::Format {
            path: path.to_path_buf(),
            problem: format!("{key} is {found}, but {wanted} in the experiment"),
        }),
    }
}
