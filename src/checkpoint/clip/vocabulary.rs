//! The merge rules that a model file holds where they are not CLIP's.

use std::path::Path;

use tch::{Kind, Tensor};

use super::super::error::LoadError;
use super::super::state_dict::{Entry, StateDict};
use crate::clip::merges::{FIXED_ENTRIES, FULL_VOCABULARY};
use crate::clip::text::MergeSource;
use crate::clip::{ClipTokenizer, Merges, TextConfig};

/// Canonical name of the rules: int64 `[rules, 2]`, the ids of the two entries that each
/// rule joins. No layout but our own has it.
pub const MERGES: &str = "condition_codec.merges";

/// The tokenizer of the text tower `text`, whose file at `path` holds `state`.
///
/// # Errors
///
/// Merge rules that are missing, or are not those of the tower's vocabulary.
pub fn tokenizer(
    text: &TextConfig,
    state: &StateDict,
    path: &Path,
) -> Result<ClipTokenizer, LoadError> {
    let unfit = |problem: String| LoadError::Format {
        path: path.to_path_buf(),
        problem: format!("text vocabulary: {problem}"),
    };
    let tokenizer = match text.merges {
        MergeSource::Clip => ClipTokenizer::new(text.vocabulary as usize),
        MergeSource::Own => {
            let entry = state.get(MERGES).ok_or_else(|| LoadError::Missing {
                path: path.to_path_buf(),
                what: format!("holds no merge rules of its text vocabulary ('{MERGES}')"),
                remedy: "give their file as OpenOptions::vocabulary".into(),
            })?;
            ClipTokenizer::from_merges(read_entry(entry)?)
        }
    };
    let tokenizer = tokenizer.map_err(|e| unfit(e.to_string()))?;
    if tokenizer.vocab_size() as i64 != text.vocabulary {
        return Err(unfit(format!(
            "the merge rules make {} entries, but the text tower has {}",
            tokenizer.vocab_size(),
            text.vocabulary
        )));
    }
    let tokenizer = tokenizer.with_context_length(text.context as usize);
    let tokenizer = tokenizer.map_err(|e| unfit(e.to_string()))?;
    Ok(tokenizer.with_rule(text.tokens))
}

/// Name of the file that converting to the official layout leaves the rules of `text` in.
pub fn file_name(text: &TextConfig) -> String {
    format!("bpe_vocab_{}.txt.gz", text.vocabulary)
}

fn read_entry(entry: &Entry) -> Result<Merges, LoadError> {
    let problem = |problem: String| LoadError::Tensor {
        file: entry.file.clone(),
        key: entry.key.clone(),
        problem,
    };
    let [rules, 2] = entry.shape[..] else {
        let found = &entry.shape;
        return Err(problem(format!("shape {found:?}, expected [rules, 2]")));
    };
    let flat = entry.read()?.to_kind(Kind::Int64).view([2 * rules]);
    let flat: Vec<i64> = (&flat)
        .try_into()
        .map_err(|e: tch::TchError| problem(e.to_string()))?;
    let pairs: Vec<[i64; 2]> = flat.chunks(2).map(|pair| [pair[0], pair[1]]).collect();
    Merges::from_ids(&pairs).map_err(|e| problem(e.to_string()))
}

/// Adds `merges` to `state`, and says in `text` that they are there. CLIP's first ones, if
/// they are as many as the tower needs, leave both as they are.
pub fn insert(
    merges: &Merges,
    text: &mut TextConfig,
    state: &mut StateDict,
) -> Result<(), LoadError> {
    let fits = merges.vocabulary_size() as i64 == text.vocabulary;
    if fits && Merges::clip(merges.vocabulary_size()).is_ok_and(|clip| clip == *merges) {
        return Ok(());
    }
    let ids: Vec<i64> = merges.ids().into_iter().flatten().collect();
    let tensor = Tensor::from_slice(&ids).view([-1, 2]);
    state.insert(MERGES, Entry::in_memory(MERGES, &tensor)?);
    text.merges = MergeSource::Own;
    Ok(())
}

/// Reads merge rules for the text tower `text` from `path` and adds them to `state`. Of
/// CLIP's, a shorter tower takes the first.
///
/// # Errors
///
/// A file that holds no merge rules, or those of a vocabulary of another size.
pub fn add_file(
    path: &Path,
    text: &mut TextConfig,
    state: &mut StateDict,
) -> Result<(), LoadError> {
    let merges = Merges::read(path)?;
    if merges.is_clip() && (0..=FULL_VOCABULARY as i64).contains(&text.vocabulary) {
        text.merges = MergeSource::Clip;
        return Ok(());
    }
    insert(&merges, text, state)?;
    match misfit(text, state) {
        None => Ok(()),
        Some(problem) => Err(LoadError::Format {
            path: path.to_path_buf(),
            problem,
        }),
    }
}

/// How the rules in `state`, if there are, do not fit the text tower `text`.
pub fn misfit(text: &TextConfig, state: &StateDict) -> Option<String> {
    let rules = *state.shape(MERGES)?.first()?;
    let (found, expected) = (rules + FIXED_ENTRIES as i64, text.vocabulary);
    (found != expected).then(|| {
        format!(
            "{rules} merge rules make a vocabulary of {found} entries, but the text tower has \
             {expected}"
        )
    })
}
