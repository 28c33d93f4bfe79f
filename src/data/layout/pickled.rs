//! Lists of names in Python's pickles.

use std::path::Path;

use crate::checkpoint::pytorch::{Limits, Node, Pickle, PickleProgram};
use crate::data::error::DataError;
use crate::files;
use crate::guard::guarded;

/// Bytes of the largest list.
const MOST: u64 = 64 << 20;

/// The list of strings in a pickle of Python 2 or 3.
pub fn names(path: &Path) -> Result<Vec<String>, DataError> {
    let bytes = files::read(path, MOST)?;
    let read = || {
        let mut pickle = Pickle::new();
        let root = pickle
            .read(
                &mut bytes.as_slice(),
                PickleProgram::Data,
                Limits::default(),
            )
            .map_err(|e| e.to_string())?;
        let text = |&id| match pickle.node(id)? {
            Node::Str(text) => Some(text.to_string()),
            Node::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok(),
            _ => None,
        };
        let names: Option<Vec<String>> = pickle.items(root).iter().map(text).collect();
        names
            .filter(|names| !names.is_empty())
            .ok_or_else(|| "expected a pickled list of file names".to_string())
    };
    guarded(read)
        .unwrap_or_else(|panicked| Err(panicked.to_string()))
        .map_err(|problem| DataError::format(path, problem))
}
