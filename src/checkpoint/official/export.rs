//! Our model as an official checkpoint: a file that `torch.load` reads and the original
//! solver loads strictly, constants and the quantizer's second copy included.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use flate2::Compression;
use tch::{Device, Kind, Tensor};

use super::super::error::WriteError;
use super::super::infer::{classes_of, usual_grid};
use super::super::pytorch::{Saved, SavedTensor, TorchWriter};
use super::super::state_dict::{Entry, StateDict};
use super::super::vocabulary::{self, MERGES};
use super::config::check::norm_name;
use super::key_names::{is_recomputed, CODEC, CODE_MAPPING, DENOISER};
use crate::clip::{Merges, TokenRule};
use crate::codec::config::RELEASED_GROUPS;
use crate::diffusion::compat::LogSchedule;
use crate::diffusion::Transition;
use crate::files::{FileError, NewFile};
use crate::model::ModelConfig;
use crate::transformer::config::{Activation, AdaptiveNorm, FeedForwardKind, IndexEmbedding};
use crate::transformer::{Conditioning, NullClass};

/// The layout's name in messages.
const LAYOUT: &str = "official";

/// Writes the model to `path`: its weights under `model`, without a moving average, so
/// that they are the ones that every reader takes. A code mapping goes to a file of its
/// own beside it, named as in the original, and so do merge rules that are not CLIP's
/// ([`vocabulary::file_name`]); returned are their paths with what they hold.
///
/// # Errors
///
/// [`WriteError::Unsupported`] for a model that the original cannot be.
pub fn write(
    path: &Path,
    model: &ModelConfig,
    state: &StateDict,
) -> Result<Vec<(PathBuf, &'static str)>, WriteError> {
    representable(model).map_err(|problem| WriteError::Unsupported {
        layout: LAYOUT,
        problem,
    })?;
    let mut tensors: Vec<(String, Entry)> = state
        .iter()
        .filter(|(name, _)| !is_recomputed(name) && ![CODE_MAPPING, MERGES].contains(name))
        .flat_map(|(name, entry)| {
            let names = official_names(name);
            names.into_iter().map(|name| (name, entry.clone()))
        })
        .collect();
    tensors.extend(constants(model, state)?);
    let root = |weights| {
        Saved::Dict(vec![
            ("last_epoch".into(), Saved::Int(0)),
            ("last_iter".into(), Saved::Int(0)),
            ("model".into(), weights),
        ])
    };
    let mut beside = Vec::new();
    // All are whole before the first gets its name, the model last.
    let mut files = Vec::new();
    if let Some(entry) = state.get(CODE_MAPPING) {
        let file = path.with_file_name(mapping_name(model));
        files.push(mapping_file(&file, entry)?);
        beside.push((file, "the code mapping"));
    }
    if let Some(text) = model.text.as_ref().filter(|t| !t.tower.merges.is_clip()) {
        let file = path.with_file_name(vocabulary::file_name(&text.tower));
        let tokenizer = vocabulary::tokenizer(&text.tower, state, path)?;
        files.push(merges_file(&file, tokenizer.merges())?);
        beside.push((file, "the merge rules of the text vocabulary (bpe_path)"));
    }
    files.push(torch_file(path, root, &tensors)?);
    for file in files {
        file.commit()?;
    }
    Ok(beside)
}

/// Writes a code mapping, int64 `[N]`, as the original's `taming_vqvae_2887.pt`.
pub fn write_mapping(path: &Path, mapping: &Entry) -> Result<(), WriteError> {
    Ok(mapping_file(path, mapping)?.commit()?)
}

fn mapping_file(path: &Path, mapping: &Entry) -> Result<NewFile, WriteError> {
    torch_file(path, |tensor| tensor, &[(String::new(), mapping.clone())])
}

/// Merge rules as the original's tokenizer reads them (`bpe_path`).
fn merges_file(path: &Path, merges: &Merges) -> Result<NewFile, WriteError> {
    let io = |e| FileError::writing(path)(e);
    let temporary = NewFile::beside(path)?;
    let mut compressed = GzEncoder::new(temporary.as_file(), Compression::best());
    compressed
        .write_all(merges.to_text().as_bytes())
        .map_err(io)?;
    compressed.finish().map_err(io)?;
    Ok(temporary)
}

/// The original's name of the file with the code mapping.
pub fn mapping_name(model: &ModelConfig) -> String {
    format!("taming_vqvae_{}.pt", model.denoiser.codes)
}

/// What the file does not say of `model`, besides its attention heads.
pub fn left_out(model: &ModelConfig) -> Vec<String> {
    let mut notes = Vec::new();
    let [rows, columns] = model.denoiser.grid;
    if model.denoiser.grid != usual_grid(model) {
        notes.push(format!(
            "the token grid {rows}x{columns} (content_spatial_size)"
        ));
    }
    let d = &model.denoiser;
    if d.activation == Activation::Gelu {
        notes.push("the activation GELU (block_activate)".into());
    }
    let mut norms = vec![("timestep_type", d.timestep_embedding, d.timestep_norm)];
    if let Conditioning::Class {
        classes,
        embedding,
        norm,
        ..
    } = d.condition
    {
        norms.push(("class_type", embedding, norm));
        if embedding == IndexEmbedding::Sinusoid {
            notes.push(format!("the {classes} classes (class_number)"));
        }
    }
    for (option, embedding, norm) in norms {
        if norm == AdaptiveNorm::Instance {
            let name = norm_name(embedding, norm);
            notes.push(format!("the norm {name} ({option})"));
        }
    }
    if matches!(&model.text, Some(text) if !text.tower.features.normalized) {
        notes.push("text features that are not normalized (normalize)".into());
    }
    if matches!(&model.text, Some(text) if text.tower.tokens == TokenRule::Diffusers) {
        notes.push("the tokenizer's rule for '!'".into());
    }
    notes
}

fn representable(model: &ModelConfig) -> Result<(), String> {
    if model.codec.norm_groups != RELEASED_GROUPS {
        return Err(format!(
            "its codec normalizes {} groups of channels, the original's {RELEASED_GROUPS} \
             (codec.norm_groups)",
            model.codec.norm_groups
        ));
    }
    if model.transition != Transition::released() {
        return Err("its noise is another than the original's (transition)".into());
    }
    let d = &model.denoiser;
    if d.feed_forward == FeedForwardKind::Conv && d.grid[0] != d.grid[1] {
        return Err(format!(
            "its feed-forward parts are convolutions over {} x {} tokens, the original's over \
             squares (denoiser.grid)",
            d.grid[0], d.grid[1]
        ));
    }
    if let Conditioning::Class {
        classes,
        null,
        embedding,
        norm,
    } = d.condition
    {
        // Only the number of rows says what they are.
        let rows = classes + i64::from(null == NullClass::Learned);
        if classes_of(rows, embedding, norm) != (classes, null) {
            return Err(format!(
                "{classes} classes with a null class that is {} are taken for others there \
                 (null_class)",
                match null {
                    NullClass::Learned => "learned",
                    NullClass::Mean => "the mean",
                    NullClass::Absent => "absent",
                }
            ));
        }
    }
    match &model.text {
        Some(text) if text.tower.tokens == TokenRule::DiffusersEndPadding => Err(
            "its text is padded with the end marker, the original pads with 0 \
             (text.tower.tokens)"
                .into(),
        ),
        Some(text) if text.tower.heads != (text.tower.width / 64).max(1) => Err(format!(
            "its text tower has {} heads, the original's of width {} has {} (text.tower.heads)",
            text.tower.heads,
            text.tower.width,
            (text.tower.width / 64).max(1)
        )),
        _ => Ok(()),
    }
}

/// The official names of a canonical one: the codec is in two halves, and both have the
/// quantizer.
fn official_names(name: &str) -> Vec<String> {
    let Some(rest) = name.strip_prefix(CODEC).and_then(|r| r.strip_prefix('.')) else {
        return vec![name.to_string()];
    };
    let part = rest.split('.').next().unwrap_or("");
    let halves: &[&str] = match part {
        "encoder" | "quant_conv" => &["enc"],
        "decoder" | "post_quant_conv" => &["dec"],
        "quantize" => &["enc", "dec"],
        _ => return vec![name.to_string()],
    };
    let in_half = |half| format!("{CODEC}.{half}.{rest}");
    halves.iter().map(in_half).collect()
}

/// The buffers that the original's modules have: schedule, loss history, and the mask
/// that cross-attention never uses.
fn constants(model: &ModelConfig, state: &StateDict) -> Result<Vec<(String, Entry)>, WriteError> {
    let logs = LogSchedule::new(&model.schedule(), Device::Cpu);
    let history = Tensor::zeros([model.denoiser.timesteps], (Kind::Float, Device::Cpu));
    let mut buffers = Vec::new();
    for (name, values) in [
        ("log_at", &logs.log_at),
        ("log_bt", &logs.log_bt),
        ("log_ct", &logs.log_ct),
        ("log_1_min_ct", &logs.log_1_min_ct),
        ("log_cumprod_at", &logs.log_cumprod_at),
        ("log_cumprod_bt", &logs.log_cumprod_bt),
        ("log_cumprod_ct", &logs.log_cumprod_ct),
        ("log_1_min_cumprod_ct", &logs.log_1_min_cumprod_ct),
        ("Lt_history", &history),
        ("Lt_count", &history),
    ] {
        let name = format!("transformer.{name}");
        if !state.contains(&name) || is_recomputed(&name) {
            let entry = Entry::in_memory(&name, values)?;
            buffers.push((name, entry));
        }
    }
    if matches!(model.denoiser.condition, Conditioning::Text { .. }) {
        let tokens = model.denoiser.tokens();
        let mask = Tensor::ones([1, 1, tokens, tokens], (Kind::Float, Device::Cpu)).tril(0);
        let mask = Entry::in_memory("attn2.mask", &mask)?;
        for i in 0..model.denoiser.layers {
            buffers.push((format!("{DENOISER}.blocks.{i}.attn2.mask"), mask.clone()));
        }
    }
    Ok(buffers)
}

/// A PyTorch file that is yet to get its name: `root` of the dict of `tensors`, or of the one tensor without a name. Entries of the same name in their own
/// file share a storage.
fn torch_file(
    path: &Path,
    root: impl Fn(Saved) -> Saved,
    tensors: &[(String, Entry)],
) -> Result<NewFile, WriteError> {
    let mut storages: Vec<&Entry> = Vec::new();
    let mut known = HashMap::new();
    let mut values = Vec::new();
    for (name, entry) in tensors {
        let storage = *known.entry((&entry.file, &entry.key)).or_insert_with(|| {
            storages.push(entry);
            storages.len() - 1
        });
        let tensor = Saved::Tensor(SavedTensor {
            storage,
            dtype: entry.dtype,
            shape: entry.shape.clone(),
        });
        values.push((name.clone(), tensor));
    }
    let value = match &mut values[..] {
        [(name, tensor)] if name.is_empty() => tensor.clone(),
        _ => Saved::Dict(values),
    };
    let temporary = NewFile::beside(path)?;
    let io = |e| FileError::writing(path)(e);
    let file = temporary.as_file().try_clone().map_err(io)?;
    let mut writer = TorchWriter::new(file, &root(value)).map_err(io)?;
    for (index, entry) in storages.iter().enumerate() {
        writer.storage(index, &entry.bytes()?).map_err(io)?;
    }
    writer.finish().map_err(io)?;
    Ok(temporary)
}
