//! Another decoder for the codec of a model: what training the decoder alone gives.

use std::path::Path;

use tch::Kind;

use super::super::error::LoadError;
use super::super::official::{known_and_ignored, CODEC};
use super::super::open::{Checkpoint, OpenOptions};
use super::super::state_dict::StateDict;
use super::file::CodecFile;

/// Whether the weight `name` only takes part in decoding tokens.
pub fn is_behind_codes(name: &str) -> bool {
    ["decoder", "post_quant_conv"]
        .iter()
        .any(|part| name.starts_with(&format!("{CODEC}.{part}.")))
}

/// Gives `model` the decoder of the codec in the file `path`, of any layout.
///
/// # Errors
///
/// A codec of another shape, or one whose encoder or codebook are not the model's: its
/// tokens would mean other pictures.
pub fn replace_decoder(model: &mut Checkpoint, path: &Path) -> Result<(), LoadError> {
    let codec = CodecFile::open(path, &OpenOptions::default())?;
    let mut wanted = codec.config.clone();
    wanted.set_resolution(model.config.codec.resolution);
    let unfit = |problem: String| LoadError::Format {
        path: path.to_path_buf(),
        problem: format!("{problem}, so that its decoder does not fit"),
    };
    if wanted != model.config.codec {
        let [theirs, ours] = [&wanted, &model.config.codec]
            .map(|config| serde_json::to_string(config).unwrap_or_default());
        let path = model.path.display();
        return Err(unfit(format!(
            "its codec is {theirs}, but that of {path} is {ours}"
        )));
    }
    let prefix = format!("{CODEC}.");
    let mut decoder = StateDict::default();
    for (name, entry) in codec.state.iter().filter(|(n, _)| n.starts_with(&prefix)) {
        if is_behind_codes(name) {
            decoder.insert(name, entry.clone());
        } else if known_and_ignored(name).is_none() {
            let theirs = entry.read()?.to_kind(Kind::Float);
            let ours = model.state.get(name).map(|ours| ours.read()).transpose()?;
            if !ours.is_some_and(|ours| ours.to_kind(Kind::Float) == theirs) {
                return Err(unfit(format!(
                    "its '{name}' is not that of {}",
                    model.path.display()
                )));
            }
        }
    }
    for (name, entry) in decoder.iter() {
        model.state.insert(name, entry.clone());
    }
    Ok(())
}
