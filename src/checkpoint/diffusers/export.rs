//! Our model as a diffusers folder.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::super::error::{LoadError, WriteError};
use super::super::official::{known_and_ignored, CODEC, CODE_MAPPING, DENOISER};
use super::super::safetensors_file;
use super::super::state_dict::{Entry, StateDict};
use super::super::vocabulary;
use super::config::has_learned_null;
use super::describe::{files, representable};
use super::key_map::{to_theirs, Form};
use super::layout::{
    read_json, Component, INDEX, LAYOUT, MERGES, NOTICE, SCHEDULER, SPECIAL_TOKENS,
    TOKENIZER_CONFIG, VOCABULARY,
};
use crate::clip::ClipTokenizer;
use crate::codec::image_codec::{CodeMapping, CodeMappingError};
use crate::codec::QuantizerKind;
use crate::files::{FileError, NewFolder};
use crate::model::ModelConfig;

/// Writes the model to the folder `path`, which appears whole or not at all; one that
/// is there is replaced. A `notice` becomes a file in it.
///
/// The codec's quantizer becomes the one that this layout has, which looks codes up:
/// a mapping of codes is applied to the rows of the codebook, and a Gumbel quantizer's
/// projection, which only encoding needs, is left out. Sampling is not affected.
/// Returns what was left out.
///
/// # Errors
///
/// [`WriteError::Unsupported`] for a model that this layout cannot hold.
pub fn write(
    path: &Path,
    model: &ModelConfig,
    state: &StateDict,
    notice: Option<&str>,
) -> Result<Vec<String>, WriteError> {
    let text = representable(model)?;
    let tokenizer = vocabulary::tokenizer(&text.tower, state, path)?;
    let (parts, notes) = components(model, state)?;

    let folder = NewFolder::beside(path)?;
    let file = |name: &str| folder.temporary().join(name);
    let write_text = |name: &str, content: String| {
        std::fs::write(file(name), content).map_err(FileError::writing(&path.join(name)))
    };
    for name in Component::ALL.map(Component::name) {
        std::fs::create_dir(file(name)).map_err(FileError::writing(path))?;
    }
    for name in ["scheduler", "tokenizer"] {
        std::fs::create_dir(file(name)).map_err(FileError::writing(path))?;
    }
    for (name, value) in files(model, text) {
        write_text(&name, format!("{value:#}\n"))?;
    }
    if let Some(notice) = notice {
        write_text(NOTICE, notice.into())?;
    }
    write_text(VOCABULARY, ids_by_entry(&tokenizer))?;
    write_text(MERGES, tokenizer.merges().to_text())?;
    for (component, tensors) in &parts {
        let tensors = tensors.iter().map(|(name, entry)| (name.as_str(), entry));
        // transformers refuses a file that does not say this.
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        safetensors_file::write(&file(&component.safetensors()), tensors, metadata)?;
    }
    folder.commit()?;
    Ok(notes)
}

/// Whether `folder` is a pipeline in which nothing is that [`write()`] does not make.
pub fn is_replaceable(folder: &Path) -> bool {
    let index = read_json::<serde_json::Value>(&folder.join(INDEX));
    if !index.is_ok_and(|index| index["_class_name"] == "VQDiffusionPipeline") {
        return false;
    }
    let mut known: Vec<String> = [
        INDEX,
        NOTICE,
        SCHEDULER,
        TOKENIZER_CONFIG,
        SPECIAL_TOKENS,
        VOCABULARY,
        MERGES,
    ]
    .map(String::from)
    .into();
    known.extend(Component::ALL.map(Component::config));
    known.extend(Component::ALL.map(Component::safetensors));
    holds_only(folder, "", &known).unwrap_or(false)
}

fn holds_only(folder: &Path, inside: &str, known: &[String]) -> std::io::Result<bool> {
    for entry in std::fs::read_dir(folder.join(inside))? {
        let entry = entry?;
        let name = format!("{inside}{}", entry.file_name().to_string_lossy());
        let folder_name = format!("{name}/");
        let ours = match entry.file_type()?.is_dir() {
            true => {
                known.iter().any(|file| file.starts_with(&folder_name))
                    && holds_only(folder, &folder_name, known)?
            }
            false => known.contains(&name),
        };
        if !ours {
            return Ok(false);
        }
    }
    Ok(true)
}

type Parts = BTreeMap<Component, BTreeMap<String, Entry>>;

/// The tensors of every component by their names there, and what was left out.
fn components(model: &ModelConfig, state: &StateDict) -> Result<(Parts, Vec<String>), WriteError> {
    let mut parts: Parts = Component::ALL.map(|c| (c, BTreeMap::new())).into();
    let mut notes = Vec::new();
    let levels = model.codec.multipliers.len();
    let codebook = format!(
        "{CODEC}.quantize.{}",
        match model.codec.quantizer {
            QuantizerKind::Gumbel => "embed.weight",
            QuantizerKind::Vector => "embedding.weight",
            QuantizerKind::Ema => "embedding",
        }
    );
    let projection = format!("{CODEC}.quantize.proj.");
    let mapping = state.get(CODE_MAPPING);
    for (name, entry) in state.iter() {
        if name.starts_with(&projection) {
            notes.push(format!("{name} (only encoding pictures needs it)"));
            continue;
        }
        if name == vocabulary::MERGES {
            continue;
        }
        if name == CODE_MAPPING {
            notes.push(format!("{name} (applied to the codebook)"));
            continue;
        }
        if let Some(reason) = known_and_ignored(name) {
            notes.push(format!("{name} ({reason})"));
            continue;
        }
        let (name, entry) = match mapping {
            _ if name != codebook => (name, entry.clone()),
            None => ("content_codec.quantize.embedding", entry.clone()),
            Some(mapping) => {
                let bad = |source| LoadError::CodeMapping {
                    file: mapping.file.clone(),
                    key: mapping.key.clone(),
                    source,
                };
                let codes =
                    CodeMapping::new(&mapping.read()?, model.denoiser.codes).map_err(bad)?;
                let rows = Vec::<i64>::try_from(codes.reduced_to_full());
                let rows = rows.map_err(|e| bad(CodeMappingError::Kind(e)))?;
                ("content_codec.quantize.embedding", entry.rows(&rows)?)
            }
        };
        let (name, entry) = &positions_as_table(name, entry)?;
        let places = to_theirs(name, levels);
        if places.is_empty() {
            return Err(WriteError::Unsupported {
                layout: LAYOUT,
                problem: format!("it has no place for the tensor '{name}'"),
            });
        }
        for (component, theirs, form) in places {
            let stored = match form {
                Form::Same => entry.clone(),
                Form::Pointwise => entry.reshaped(&entry.shape[..2.min(entry.shape.len())])?,
                Form::Third(index) => entry.part(index, 3)?,
            };
            if let Some(tensors) = parts.get_mut(&component) {
                tensors.insert(theirs, stored);
            }
        }
    }
    if !has_learned_null(model) {
        // The component has this parameter all the same, without elements.
        let empty = Entry::in_memory(
            "embeddings",
            &Tensor::zeros([0], (Kind::Float, Device::Cpu)),
        )?;
        let tensors = parts.entry(Component::NullText).or_default();
        tensors.insert("embeddings".into(), empty);
    }
    Ok((parts, notes))
}

/// Position parameters `[1, rows, D]` as the tables `[rows, D]` that this layout has; any
/// other tensor as it is.
fn positions_as_table(name: &str, entry: Entry) -> Result<(String, Entry), LoadError> {
    let is_parameter = ["height_emb", "width_emb"]
        .iter()
        .any(|axis| name.strip_prefix(DENOISER) == Some(&format!(".content_emb.{axis}")));
    match (is_parameter, &entry.shape[..]) {
        (true, &[1, rows, width]) => {
            Ok((format!("{name}.weight"), entry.reshaped(&[rows, width])?))
        }
        _ => Ok((name.to_string(), entry)),
    }
}

/// vocab.json: ids by token, in the order of ids.
fn ids_by_entry(tokenizer: &ClipTokenizer) -> String {
    let entries = tokenizer.vocabulary().into_iter().enumerate();
    let lines: Vec<String> = entries
        .map(|(id, token)| format!("{}: {id}", serde_json::Value::String(token)))
        .collect();
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}
