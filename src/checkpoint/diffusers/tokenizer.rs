//! The tokenizer of a diffusers folder: its merge rules, and how it makes ids.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::super::error::LoadError;
use super::layout::{
    format_error, read_json, MERGES, SPECIAL_TOKENS, TOKENIZER_CONFIG, TOKENIZER_WHOLE, VOCABULARY,
};
use crate::clip::tokenizer::{END_MARKER, START_MARKER};
use crate::clip::{ClipTokenizer, Merges, TokenRule};

/// The entry of tokenizer_config.json that names one of our token rules; other readers
/// ignore it.
pub const TOKEN_RULE: &str = "vqdiffusion_token_rule";

/// What is read of tokenizer.json.
#[derive(Deserialize)]
struct Whole {
    model: Model,
    #[serde(default)]
    added_tokens: Vec<Added>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    vocab: HashMap<String, i64>,
    merges: Vec<Rule>,
}

#[derive(Deserialize)]
struct Added {
    id: i64,
    content: String,
}

/// A rule as transformers writes it since 4.45, and before.
#[derive(Deserialize)]
#[serde(untagged)]
enum Rule {
    Pair(String, String),
    Text(String),
}

/// The merge rules in `folder`, if it holds any: of `merges.txt`, else of
/// `tokenizer.json`.
///
/// # Errors
///
/// A file that cannot be read, ids in another order than the rules give them.
pub fn merges(folder: &Path) -> Result<Option<Merges>, LoadError> {
    let (merges, whole) = (folder.join(MERGES), folder.join(TOKENIZER_WHOLE));
    if merges.exists() {
        let rules = Merges::read(&merges)?;
        let vocabulary = folder.join(VOCABULARY);
        if vocabulary.exists() {
            check_ids(&rules, &read_json(&vocabulary)?, &vocabulary)?;
        }
        return Ok(Some(rules));
    }
    if !whole.exists() {
        return Ok(None);
    }
    let Whole {
        model,
        added_tokens,
    } = read_json(&whole)?;
    if let Some(kind) = model.kind.filter(|kind| kind != "BPE") {
        let problem = format!("model.type is {kind:?}, expected \"BPE\"");
        return Err(format_error(&whole, problem));
    }
    let mut rules = Vec::with_capacity(model.merges.len());
    for rule in model.merges {
        rules.push(match rule {
            Rule::Pair(left, right) => (left, right),
            Rule::Text(text) => match text.split_once(' ') {
                Some((left, right)) => (left.into(), right.into()),
                None => {
                    let text: String = text.chars().take(40).collect();
                    let problem = format!("model.merges: {text:?}, expected two entries");
                    return Err(format_error(&whole, problem));
                }
            },
        });
    }
    let rules = Merges::from_rules(rules)
        .map_err(|e| format_error(&whole, format!("model.merges: {e}")))?;
    let mut ids = model.vocab;
    ids.extend(added_tokens.into_iter().map(|a| (a.content, a.id)));
    check_ids(&rules, &ids, &whole)?;
    Ok(Some(rules))
}

/// Compares the ids of a file with those that follow from the rules.
fn check_ids(rules: &Merges, ids: &HashMap<String, i64>, path: &Path) -> Result<(), LoadError> {
    let tokenizer =
        ClipTokenizer::from_merges(rules.clone()).map_err(|e| format_error(path, e.to_string()))?;
    for (id, entry) in (0..).zip(tokenizer.vocabulary()) {
        if ids.get(&entry) != Some(&id) {
            let found = ids.get(&entry).map_or("missing".into(), i64::to_string);
            let problem =
                format!("the id of {entry:?} is {found}, but by the merge rules it is {id}");
            return Err(format_error(path, problem));
        }
    }
    Ok(())
}

/// How the folder's tokenizer makes ids.
///
/// # Errors
///
/// Markers or padding that CLIP's text tower does not have.
pub fn token_rule(folder: &Path) -> Result<TokenRule, LoadError> {
    let path = folder.join(TOKENIZER_CONFIG);
    let config: Value = read_json(&path)?;
    // Older tokenizers keep the tokens in the other file only.
    let special = folder.join(SPECIAL_TOKENS);
    let special: Value = match special.exists() {
        true => read_json(&special)?,
        false => Value::Null,
    };
    // A token is a string or an object.
    let token = |key: &str| {
        let content = |token: &Value| {
            let text = token.as_str().or_else(|| token["content"].as_str());
            text.map(str::to_string)
        };
        content(&config[key]).or_else(|| content(&special[key]))
    };
    for (key, expected) in [("bos_token", START_MARKER), ("eos_token", END_MARKER)] {
        if let Some(found) = token(key).filter(|found| found != expected) {
            let problem = format!("{key} is {found:?}, expected {expected:?}");
            return Err(format_error(&path, problem));
        }
    }
    if let Some(rule) = config.get(TOKEN_RULE) {
        return serde_json::from_value(rule.clone())
            .map_err(|e| format_error(&path, format!("{TOKEN_RULE}: {e}")));
    }
    match token("pad_token").as_deref() {
        Some("!") => Ok(TokenRule::Diffusers),
        // transformers' own default.
        Some(END_MARKER) | None => Ok(TokenRule::DiffusersEndPadding),
        Some(other) => Err(format_error(
            &path,
            format!("pad_token is {other:?}, expected \"!\" or \"{END_MARKER}\""),
        )),
    }
}
