//! Classes by name: ImageNet's 1000, in the order of their index.

use super::subject::Subject;
use crate::model::ModelConfig;
use crate::transformer::Conditioning;

/// Names of every class, a line each, synonyms separated by ", ".
const IMAGENET: &str = include_str!("imagenet/classes.txt");

/// Most characters of a name that are looked at.
const LONGEST: usize = 100;

/// Why a name does not say which class is meant.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ClassNameError {
    #[error("class {name:?} is unknown; the nearest names are {}", nearest.join(", "))]
    Unknown { name: String, nearest: Vec<String> },
    #[error("class {name:?} may be {}; give the index", meant.join(" or "))]
    Ambiguous { name: String, meant: Vec<String> },
    #[error("class {name:?}: names are known for ImageNet's 1000 classes, but the model has {classes}; give the index")]
    NoNames { name: String, classes: i64 },
}

/// The names of an ImageNet class, the usual one first.
pub fn imagenet_names(class: i64) -> Option<&'static str> {
    IMAGENET.lines().nth(usize::try_from(class).ok()?)
}

/// What to write below a picture of `subject`: the prompt, the class with its name where
/// that is known, nothing for "anything".
pub fn label(subject: &Subject, model: &ModelConfig) -> String {
    let Subject::Class(class) = subject else {
        return match subject {
            Subject::Text(prompt) => prompt.clone(),
            _ => String::new(),
        };
    };
    let named = match model.denoiser.condition {
        Conditioning::Class { classes, .. } => classes as usize == IMAGENET.lines().count(),
        _ => false,
    };
    let names = imagenet_names(*class).filter(|_| named);
    match names.and_then(|names| names.split(", ").next()) {
        Some(name) => format!("{class} {name}"),
        None => format!("class {class}"),
    }
}

/// The class that `name` names among `classes`, upper and lower case being the same.
///
/// # Errors
///
/// No class of that name, or several (two are called crane).
pub fn class_named(name: &str, classes: i64) -> Result<i64, ClassNameError> {
    // Longer than every name; what it is compared with takes time by its length.
    let name: &str = &name.trim().chars().take(LONGEST + 1).collect::<String>();
    if classes as usize != IMAGENET.lines().count() {
        return Err(ClassNameError::NoNames {
            name: name.into(),
            classes,
        });
    }
    let wanted = name.to_lowercase();
    let is_wanted = |line: &str| line.split(", ").any(|n| n.to_lowercase() == wanted);
    let found: Vec<(usize, &str)> = IMAGENET
        .lines()
        .enumerate()
        .filter(|(_, line)| is_wanted(line))
        .collect();
    match found.as_slice() {
        [(class, _)] => Ok(*class as i64),
        [] => Err(ClassNameError::Unknown {
            name: name.into(),
            nearest: nearest(&wanted),
        }),
        _ => Err(ClassNameError::Ambiguous {
            name: name.into(),
            meant: found
                .iter()
                .map(|(class, line)| format!("{class} ({line})"))
                .collect(),
        }),
    }
}

/// The three names most like `wanted`, with their classes.
fn nearest(wanted: &str) -> Vec<String> {
    let mut names: Vec<(f64, String)> = IMAGENET
        .lines()
        .enumerate()
        .flat_map(|(class, line)| line.split(", ").map(move |name| (class, name)))
        .map(|(class, name)| {
            let likeness = strsim::jaro_winkler(wanted, &name.to_lowercase());
            (likeness, format!("{name} ({class})"))
        })
        .collect();
    names.sort_by(|a, b| b.0.total_cmp(&a.0));
    names.into_iter().take(3).map(|(_, name)| name).collect()
}
