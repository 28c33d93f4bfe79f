//! A configuration in layers: the files that it is based on, the file itself, and settings
//! on top. Later layers count.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_yaml::{Mapping, Value};

use super::locate::line_of;
use crate::files::{self, FileError};

/// The key of a file's first level that names the files it is based on.
pub const BASE: &str = "base";
/// The key whose value says what the other entries of a mapping are.
const KIND: &str = "kind";

/// A file with one YAML document, as it stands there.
#[derive(Clone, Debug)]
pub struct YamlFile {
    pub path: PathBuf,
    pub text: String,
    pub root: Value,
}

impl YamlFile {
    /// # Errors
    ///
    /// What [`read`](super::read) refuses, and what is no YAML.
    pub fn read(path: &Path) -> Result<Self, LayersError> {
        let text = super::read(path)?;
        let root = serde_yaml::from_str(&text).map_err(|source| LayersError::Syntax {
            path: path.to_path_buf(),
            source,
        })?;
        Ok(YamlFile {
            path: path.to_path_buf(),
            text,
            root,
        })
    }
}

/// Why the layers of a configuration cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum LayersError {
    #[error(transparent)]
    File(#[from] FileError),

    #[error("{}: {source}", path.display())]
    Syntax {
        path: PathBuf,
        source: serde_yaml::Error,
    },

    /// What `base` names is no base.
    #[error("{place}: {BASE}: {problem}")]
    Base { place: Place, problem: String },

    /// A setting on top is none.
    #[error("{argument}: {problem}")]
    Setting { argument: String, problem: String },
}

/// Where a value of a configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    File {
        path: PathBuf,
        /// Counted from 1.
        line: Option<usize>,
    },
    /// A setting `key=value`.
    Setting(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { path, line: None } => write!(f, "{}", path.display()),
            Place::File {
                path,
                line: Some(line),
            } => write!(f, "{} line {line}", path.display()),
            Place::Setting(argument) => f.write_str(argument),
        }
    }
}

/// A value is not what is expected there.
#[derive(Debug)]
pub struct Misfit {
    pub place: Place,
    /// Begins with the key.
    pub problem: String,
}

/// One layer's own entries.
#[derive(Clone, Debug)]
struct Layer {
    root: Value,
    origin: Origin,
}

#[derive(Clone, Debug)]
enum Origin {
    File {
        path: PathBuf,
        /// Where its keys are those of `root`.
        text: Option<String>,
    },
    Setting(String),
}

/// A configuration in layers.
#[derive(Clone, Debug)]
pub struct Layers {
    /// The lowest first.
    layers: Vec<Layer>,
    /// All of them together.
    root: Value,
    /// The file on top.
    path: PathBuf,
    /// The files of the layers, without links.
    files: Vec<PathBuf>,
    either: &'static [[&'static str; 2]],
}

impl Layers {
    /// The layers of `file`: `base: NAME` or `base: [NAME, …]` at its first level names what
    /// it is based on, relative to it; of several bases later ones count, and a base of
    /// several files is the lowest of these. Mappings are merged entry by entry, unless both
    /// have a `kind` and these differ; anything else takes the place of what lies below it. Of two dotted keys that are `either` given, the one
    /// of a later layer removes the other.
    ///
    /// Where `translate` recognises a file of another layout, it gives its entries in ours;
    /// such a file is based on nothing.
    ///
    /// # Errors
    ///
    /// Bases that are missing, that lead back to themselves or are no mappings; what
    /// `translate` refuses.
    pub fn of<E: From<LayersError>>(
        file: YamlFile,
        either: &'static [[&'static str; 2]],
        translate: impl Fn(&YamlFile) -> Result<Option<Value>, E>,
    ) -> Result<Self, E> {
        let mut layers = Layers {
            layers: Vec::new(),
            root: Value::Null,
            path: file.path.clone(),
            files: Vec::new(),
            either,
        };
        layers.add(file, &translate, &mut Vec::new())?;
        Ok(layers)
    }

    /// Adds `file`, which those in `above` are based on, and what it is based on below it.
    fn add<E: From<LayersError>>(
        &mut self,
        mut file: YamlFile,
        translate: &impl Fn(&YamlFile) -> Result<Option<Value>, E>,
        above: &mut Vec<(PathBuf, PathBuf)>,
    ) -> Result<(), E> {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        if let Some(root) = translate(&file)? {
            self.files.push(real(&file.path));
            let path = file.path;
            self.put(root, Origin::File { path, text: None });
            return Ok(());
        }
        let named = match &mut file.root {
            Value::Mapping(root) => root.remove(BASE),
            _ => None,
        };
        let refused = |problem: String| LayersError::Base {
            place: Place::File {
                path: file.path.clone(),
                line: line_of(&file.text, &[BASE.to_string()]),
            },
            problem,
        };
        above.push((real(&file.path), file.path.clone()));
        for name in names(named.as_ref()).map_err(refused)? {
            let home = files::expand_home(Path::new(&name));
            let name = home.map_err(|e| refused(e.to_string()))?;
            let folder = file.path.parent().unwrap_or(Path::new(""));
            let path = folder.join(name);
            let known = real(&path);
            if let Some(first) = above.iter().position(|(real, _)| *real == known) {
                let way = above[first..].iter().map(|(_, path)| path);
                let way: Vec<String> = way
                    .chain([&path])
                    .map(|p| p.display().to_string())
                    .collect();
                let problem = format!("a file is based on itself: {}", way.join(", on "));
                return Err(refused(problem).into());
            }
            if self.files.contains(&known) {
                continue;
            }
            let base = match YamlFile::read(&path) {
                Err(LayersError::File(e)) => return Err(refused(e.to_string()).into()),
                read => read?,
            };
            if !matches!(base.root, Value::Mapping(_) | Value::Null) {
                let problem = format!("{} is no mapping of keys", path.display());
                return Err(refused(problem).into());
            }
            self.add(base, translate, above)?;
        }
        self.files.extend(above.pop().map(|(real, _)| real));
        let origin = Origin::File {
            path: file.path,
            text: Some(file.text),
        };
        self.put(file.root, origin);
        Ok(())
    }

    fn put(&mut self, root: Value, origin: Origin) {
        self.drop_alternatives(&root);
        merge(&mut self.root, root.clone());
        self.layers.push(Layer { root, origin });
    }

    /// Removes what `above` gives an alternative of.
    fn drop_alternatives(&mut self, above: &Value) {
        for [a, b] in self.either {
            for (given, other) in [(a, b), (b, a)] {
                let keys = |dotted: &str| dotted.split('.').map(String::from).collect::<Vec<_>>();
                let in_above =
                    |dotted: &str| entry(above, &keys(dotted)).is_some_and(|v| !v.is_null());
                if in_above(given) && !in_above(other) {
                    remove(&mut self.root, &keys(other));
                }
            }
        }
    }

    /// Puts the setting `dotted.key=value` on top, with a value in YAML. It takes the place
    /// of what is there, mappings included.
    ///
    /// # Errors
    ///
    /// What is no setting, and keys below something that has no entries.
    pub fn set(&mut self, argument: &str) -> Result<(), LayersError> {
        let refused = |problem: String| LayersError::Setting {
            argument: argument.to_string(),
            problem,
        };
        let (key, value) = argument
            .split_once('=')
            .ok_or_else(|| refused("expected key=value, such as train.steps=1000".into()))?;
        super::check_brackets(value).map_err(|e| refused(format!("the value: {e}")))?;
        let value: Value = serde_yaml::from_str(value)
            .map_err(|e| refused(format!("the value is not YAML: {e}")))?;
        let keys: Vec<&str> = key.split('.').collect();
        let root = keys.iter().rev().fold(value.clone(), |value, key| {
            Value::Mapping(Mapping::from_iter([(Value::String((*key).into()), value)]))
        });
        self.drop_alternatives(&root);
        let mut at = &mut self.root;
        for part in keys {
            if part.is_empty() {
                return Err(refused("the key has an empty part".into()));
            }
            if at.is_null() {
                *at = Value::Mapping(Mapping::new());
            }
            let Value::Mapping(mapping) = at else {
                let problem = format!("'{part}' lies below something that has no entries");
                return Err(refused(problem));
            };
            at = mapping
                .entry(Value::String(part.into()))
                .or_insert(Value::Null);
        }
        *at = value;
        let origin = Origin::Setting(argument.to_string());
        self.layers.push(Layer { root, origin });
        Ok(())
    }

    /// All layers together.
    pub fn root(&self) -> &Value {
        &self.root
    }

    pub fn root_mut(&mut self) -> &mut Value {
        &mut self.root
    }

    /// The layers together as a `T`.
    ///
    /// # Errors
    ///
    /// The first value that is not as expected, with its place.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Misfit> {
        serde_path_to_error::deserialize(self.root.clone()).map_err(|error| {
            let mut keys = keys_of(error.path());
            let message = error.inner().to_string();
            if let Some(name) = unknown(&message) {
                if keys.last().is_none_or(|last| last != name) {
                    // A field of a mapping that is read as a whole.
                    let below = entry(&self.root, &keys).and_then(|value| way_to(value, name));
                    keys.extend(below.unwrap_or_default());
                }
            }
            let message = with_nearest(&message);
            Misfit {
                place: self.place(&keys),
                problem: match keys.is_empty() {
                    true => message,
                    false => format!("{}: {message}", keys.join(".")),
                },
            }
        })
    }

    /// The last layer that gives the entry at the dotted `key`, or else what it lies in.
    pub fn place_of(&self, key: &str) -> Place {
        let keys: Vec<String> = key.split('.').map(String::from).collect();
        self.place(&keys)
    }

    fn place(&self, keys: &[String]) -> Place {
        for keys in (1..=keys.len()).rev().map(|length| &keys[..length]) {
            let gives = |layer: &&Layer| entry(&layer.root, keys).is_some();
            if let Some(layer) = self.layers.iter().rev().find(gives) {
                return match &layer.origin {
                    Origin::Setting(argument) => Place::Setting(argument.clone()),
                    Origin::File { path, text } => Place::File {
                        path: path.clone(),
                        line: text.as_deref().and_then(|text| line_of(text, keys)),
                    },
                };
            }
        }
        Place::File {
            path: self.path.clone(),
            line: None,
        }
    }
}

/// The files that a value of `base` names.
fn names(value: Option<&Value>) -> Result<Vec<String>, String> {
    let name = |value: &Value| match value.as_str() {
        Some(name) if !name.is_empty() => Ok(name.to_string()),
        _ => Err("expected the name of a file, or a list of names".to_string()),
    };
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Sequence(list)) => list.iter().map(name).collect(),
        Some(value) => Ok(vec![name(value)?]),
    }
}

/// Puts `above` over `below`.
fn merge(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Mapping(below), Value::Mapping(above)) if of_one_kind(below, &above) => {
            for (key, value) in above {
                match below.get_mut(&key) {
                    Some(old) => merge(old, value),
                    None => {
                        below.insert(key, value);
                    }
                }
            }
        }
        (below, above) => *below = above,
    }
}

fn of_one_kind(below: &Mapping, above: &Mapping) -> bool {
    match (below.get(KIND), above.get(KIND)) {
        (Some(below), Some(above)) => below == above,
        _ => true,
    }
}

fn entry<'a>(root: &'a Value, keys: &[String]) -> Option<&'a Value> {
    keys.iter().try_fold(root, |at, key| match at {
        Value::Sequence(list) => list.get(key.parse::<usize>().ok()?),
        other => other.get(key.as_str()),
    })
}

fn remove(root: &mut Value, keys: &[String]) {
    if let Some((last, way)) = keys.split_last() {
        let at = way
            .iter()
            .try_fold(root, |at, key| at.get_mut(key.as_str()));
        if let Some(Value::Mapping(mapping)) = at {
            mapping.remove(last.as_str());
        }
    }
}

/// The first way to an entry of this name.
fn way_to(value: &Value, name: &str) -> Option<Vec<String>> {
    let further = |(key, value): (String, &Value)| {
        let mut way = way_to(value, name)?;
        way.insert(0, key);
        Some(way)
    };
    match value {
        Value::Mapping(mapping) if mapping.contains_key(name) => Some(vec![name.to_string()]),
        Value::Mapping(mapping) => mapping
            .iter()
            .filter_map(|(key, value)| Some((key.as_str()?.to_string(), value)))
            .find_map(further),
        Value::Sequence(list) => (0..)
            .map(|n: usize| n.to_string())
            .zip(list)
            .find_map(further),
        _ => None,
    }
}

fn keys_of(path: &serde_path_to_error::Path) -> Vec<String> {
    use serde_path_to_error::Segment;
    let keys = path.iter().filter_map(|segment| match segment {
        Segment::Map { key } => Some(key.clone()),
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    keys.collect()
}

/// The field that a message says is unknown.
fn unknown(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("unknown field `")?;
    Some(rest.split_once('`')?.0)
}

/// Adds the nearest of the expected names to a message about an unknown one.
fn with_nearest(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = ["unknown field", "unknown variant"]
        .iter()
        .any(|what| message.contains(what));
    let Some(found) = quoted.next().filter(|_| unknown) else {
        return message.to_string();
    };
    let nearest = quoted.max_by(|a, b| strsim::jaro(a, found).total_cmp(&strsim::jaro(b, found)));
    match nearest {
        Some(nearest) if strsim::jaro(nearest, found) > 0.6 => {
            format!("{message}; did you mean `{nearest}`?")
        }
        _ => message.to_string(),
    }
}
