//! Which files a diffusers folder has, and the tensors in them.

use std::collections::BTreeSet;
use std::path::{Component as PathPart, Path};

use serde::de::DeserializeOwned;
use serde::Deserialize;
use serde_json::Value;

use super::super::error::LoadError;
use super::super::keys::unwrapped;
use super::super::official::collect;
use super::super::pytorch::{kind, TorchFile};
use super::super::state_dict::{read_safetensors, StateDict};
use crate::files;

/// The layout's name in messages.
pub const LAYOUT: &str = "diffusers";
/// The file that says which components a folder has.
pub const INDEX: &str = "model_index.json";
/// What the weights' authors want to be said with them.
pub const NOTICE: &str = "NOTICE";
pub const SCHEDULER: &str = "scheduler/scheduler_config.json";

pub const TOKENIZER_CONFIG: &str = "tokenizer/tokenizer_config.json";
pub const SPECIAL_TOKENS: &str = "tokenizer/special_tokens_map.json";
pub const MERGES: &str = "tokenizer/merges.txt";
pub const VOCABULARY: &str = "tokenizer/vocab.json";
/// The one file in which transformers 5 keeps rules and ids.
pub const TOKENIZER_WHOLE: &str = "tokenizer/tokenizer.json";

/// Bound in bytes on a JSON file: several times a tokenizer's.
const LARGEST_JSON: u64 = 16 << 20;

/// The files of the tokenizer, as far as there are.
const TOKENIZER: [&str; 5] = [
    TOKENIZER_CONFIG,
    SPECIAL_TOKENS,
    MERGES,
    VOCABULARY,
    TOKENIZER_WHOLE,
];

/// A component with weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    Transformer,
    Vqvae,
    TextEncoder,
    NullText,
}

impl Component {
    pub const ALL: [Component; 4] = [
        Component::Transformer,
        Component::Vqvae,
        Component::TextEncoder,
        Component::NullText,
    ];

    /// Name of the component and of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Component::Transformer => "transformer",
            Component::Vqvae => "vqvae",
            Component::TextEncoder => "text_encoder",
            Component::NullText => "learned_classifier_free_sampling_embeddings",
        }
    }

    pub fn config(self) -> String {
        format!("{}/config.json", self.name())
    }

    /// Where `write` puts the weights.
    pub fn safetensors(self) -> String {
        format!("{}/{}.safetensors", self.name(), self.stems().0)
    }

    /// Names of the weight files without their endings: of safetensors and of pickles.
    fn stems(self) -> (&'static str, &'static str) {
        match self {
            Component::TextEncoder => ("model", "pytorch_model"),
            _ => ("diffusion_pytorch_model", "diffusion_pytorch_model"),
        }
    }

    /// The names under which weights may be stored, best first: full precision before
    /// half, safetensors before pickles, whole before sharded.
    pub fn candidates(self) -> Vec<String> {
        let (safe, pickle) = self.stems();
        let mut names = Vec::new();
        for variant in ["", ".fp16"] {
            for (stem, ending) in [(safe, "safetensors"), (pickle, "bin")] {
                names.push(format!("{stem}{variant}.{ending}"));
                names.push(format!("{stem}.{ending}.index{variant}.json"));
            }
        }
        names
    }
}

/// Whether `path` is a folder with a pipeline index.
pub fn is_folder(path: &Path) -> bool {
    path.join(INDEX).is_file()
}

/// The files to bring of a repository that holds `files`: configurations, and of each
/// component the best weights.
pub fn wanted_files<'a>(files: &'a [String]) -> Vec<&'a str> {
    let exists = |name: &str| files.iter().find(|file| *file == name);
    let mut wanted: Vec<&'a str> = [INDEX, NOTICE, SCHEDULER]
        .into_iter()
        .chain(TOKENIZER)
        .filter_map(|name| exists(name).map(String::as_str))
        .collect();
    for component in Component::ALL {
        wanted.extend(exists(&component.config()).map(String::as_str));
        let found = component
            .candidates()
            .into_iter()
            .find(|name| exists(&format!("{}/{name}", component.name())).is_some());
        let Some(found) = found else { continue };
        // Of a sharded file all shards: `model-00001-of-00002.safetensors`, before the
        // index: what the index names is then there.
        let shards = found.split_once(".index").map(|(whole, _)| whole);
        let (stem, ending) = shards.unwrap_or("").rsplit_once('.').unwrap_or(("", ""));
        let inside = |file: &&'a String| file.strip_prefix(&format!("{}/", component.name()));
        wanted.extend(
            files
                .iter()
                .filter(|file| {
                    inside(file).is_some_and(|name| {
                        shards.is_some()
                            && name.starts_with(stem)
                            && name.ends_with(ending)
                            && name.contains("-of-")
                    })
                })
                .map(String::as_str),
        );
        wanted.extend(
            files
                .iter()
                .filter(|file| inside(file) == Some(found.as_str()))
                .map(String::as_str),
        );
    }
    wanted
}

pub fn format_error(path: &Path, problem: impl Into<String>) -> LoadError {
    LoadError::Format {
        path: path.to_path_buf(),
        problem: problem.into(),
    }
}

/// Reads a JSON file of the folder.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, LoadError> {
    let text = files::read_text(path, LARGEST_JSON)?;
    serde_json::from_str(&text).map_err(|source| {
        if text.trim_start().starts_with(['{', '[']) {
            let path = path.to_path_buf();
            return LoadError::Json { path, source };
        }
        let head = &text.as_bytes()[..text.len().min(512)];
        format_error(path, format!("not JSON: {}", kind(head)))
    })
}

/// Checks that `folder` is a saved `VQDiffusionPipeline` with all its components.
pub fn check_index(folder: &Path) -> Result<(), LoadError> {
    let path = folder.join(INDEX);
    if !path.is_file() {
        let problem = format!(
            "is a folder without {INDEX}; expected a checkpoint file or a diffusers pipeline"
        );
        return Err(format_error(folder, problem));
    }
    let index: Value = read_json(&path)?;
    let class = &index["_class_name"];
    if class != "VQDiffusionPipeline" {
        let problem = format!("_class_name is {class}, expected \"VQDiffusionPipeline\"");
        return Err(format_error(&path, problem));
    }
    for component in Component::ALL {
        let name = component.name();
        if index[name].is_null() || !folder.join(component.config()).is_file() {
            let hint = match component {
                Component::NullText => {
                    "; the old branch 'fp16' of microsoft/vq-diffusion-ithq lacks it, the branch \
                     'main' has it and holds fp16 files too"
                }
                _ => "",
            };
            let config = component.config();
            let problem = format!("lacks the component '{name}' ({config}){hint}");
            return Err(format_error(folder, problem));
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: std::collections::BTreeMap<String, String>,
}

/// The tensors of `component` by the names they have there; nothing if no file holds
/// them.
pub fn read_weights(folder: &Path, component: Component) -> Result<Option<StateDict>, LoadError> {
    read_component(&folder.join(component.name()), component)
}

/// As `read_weights`, where `folder` is the component's own.
pub fn read_component(folder: &Path, component: Component) -> Result<Option<StateDict>, LoadError> {
    let found = component
        .candidates()
        .into_iter()
        .map(|name| folder.join(name))
        .find(|path| path.exists());
    found.map(|path| read_weight_file(&path)).transpose()
}

/// The tensors of a weight file, or of the shards that an index (`….index.json`) names.
pub fn read_weight_file(path: &Path) -> Result<StateDict, LoadError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    if path.extension().is_none_or(|ending| ending != "json") {
        return read_file(path);
    }
    let index: ShardIndex = read_json(path)?;
    let mut state = StateDict::default();
    for shard in index.weight_map.values().collect::<BTreeSet<_>>() {
        let mut parts = Path::new(shard).components();
        if !matches!(
            (parts.next(), parts.next()),
            (Some(PathPart::Normal(_)), None)
        ) {
            let problem = format!("weight_map names {shard:?}, expected a file beside the index");
            return Err(format_error(path, problem));
        }
        for (name, entry) in read_file(&folder.join(shard))?.iter() {
            state.insert(name, entry.clone());
        }
    }
    if let Some((name, shard)) = index
        .weight_map
        .iter()
        .find(|(n, _)| !state.contains(&unwrapped(n)))
    {
        let problem = format!("weight_map says that {name:?} is in {shard:?}, but it is not");
        return Err(format_error(path, problem));
    }
    Ok(state)
}

fn read_file(path: &Path) -> Result<StateDict, LoadError> {
    if path.extension().is_some_and(|e| e == "safetensors") {
        let mut state = StateDict::default();
        for (name, entry) in read_safetensors(path)?.0.iter() {
            state.insert(unwrapped(name), entry.clone());
        }
        return Ok(state);
    }
    let file = std::sync::Arc::new(TorchFile::open(path)?);
    let mut state = StateDict::default();
    collect(&file, file.root(), &mut state, str::to_string)?;
    Ok(state)
}
