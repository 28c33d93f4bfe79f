//! Strict loading: modules ask for weights, the report tells what became of each.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tch::Tensor;

use super::error::LoadError;
use super::report::LoadReport;
use super::state_dict::StateDict;
use crate::files::hex;
use crate::torch::params::placeholder;
use crate::torch::{Init, WeightSource};

/// Answers a model's requests from a [`StateDict`], one tensor at a time, and keeps
/// the book.
pub struct Loader<'a> {
    state: &'a StateDict,
    /// Whether tensors are read, or names and shapes alone compared.
    reads: bool,
    path: PathBuf,
    book: RefCell<Book>,
}

#[derive(Default)]
struct Book {
    applied: BTreeSet<String>,
    missing: Vec<String>,
    mismatched: Vec<(String, Vec<i64>, Vec<i64>)>,
    unreadable: Vec<(String, String)>,
    hash: Sha256,
}

impl<'a> Loader<'a> {
    /// `path` names the checkpoint in messages.
    pub fn new(state: &'a StateDict, path: &Path) -> Self {
        Loader {
            state,
            reads: true,
            path: path.to_path_buf(),
            book: RefCell::default(),
        }
    }

    /// Compares names and shapes alone: every answer is a placeholder.
    pub fn without_reading(state: &'a StateDict, path: &Path) -> Self {
        Loader {
            reads: false,
            ..Loader::new(state, path)
        }
    }

    /// SHA-256 over name, format, shape and bytes of every applied tensor in the
    /// order of request: the same for the same weights whatever file held them.
    pub fn fingerprint(&self) -> String {
        hex(&self.book.borrow().hash.clone().finalize())
    }

    /// The report; an error if anything is missing, misshapen, unreadable or left over
    /// that `known` does not explain (`known` gives the reason to ignore a name).
    pub fn finish(
        self,
        known: impl Fn(&str) -> Option<&'static str>,
    ) -> Result<LoadReport, LoadError> {
        let book = self.book.into_inner();
        let mut report = LoadReport {
            path: self.path,
            applied: book.applied.len(),
            mismatched: book.mismatched,
            unreadable: book.unreadable,
            ..LoadReport::default()
        };
        for (name, _) in self.state.iter() {
            if book.applied.contains(name) {
                continue;
            }
            match known(name) {
                Some(reason) => report.ignored.push((name.to_string(), reason)),
                None => report.unused.push(name.to_string()),
            }
        }
        for name in book.missing {
            let nearest = report
                .unused
                .iter()
                .max_by(|a, b| strsim::jaro(a, &name).total_cmp(&strsim::jaro(b, &name)))
                .cloned();
            report.missing.push((name, nearest));
        }
        if report.is_complete() {
            Ok(report)
        } else {
            Err(LoadError::Weights(Box::new(report)))
        }
    }

    fn load(&self, name: &str, shape: &[i64]) -> Option<Tensor> {
        let mut book = self.book.borrow_mut();
        let Some(entry) = self.state.get(name) else {
            book.missing.push(name.to_string());
            return None;
        };
        book.applied.insert(name.to_string());
        if entry.shape != shape {
            book.mismatched
                .push((name.to_string(), entry.shape.clone(), shape.to_vec()));
            return None;
        }
        if !self.reads {
            return None;
        }
        let read = entry.bytes().and_then(|bytes| {
            book.hash.update(name.as_bytes());
            book.hash.update(entry.dtype.name().as_bytes());
            for n in shape {
                book.hash.update(n.to_le_bytes());
            }
            book.hash.update(&bytes);
            entry.tensor(&bytes)
        });
        match read {
            Ok(tensor) if !tensor.is_floating_point() => {
                let problem = format!(
                    "number format {}, expected a floating one",
                    entry.dtype.name()
                );
                book.unreadable.push((name.to_string(), problem));
                None
            }
            Ok(tensor) if tensor.isfinite().all().int64_value(&[]) == 0 => {
                let problem = "holds NaN or infinite values".to_string();
                book.unreadable.push((name.to_string(), problem));
                None
            }
            Ok(tensor) => Some(tensor),
            Err(error) => {
                book.unreadable.push((name.to_string(), error.to_string()));
                None
            }
        }
    }
}

impl WeightSource for Loader<'_> {
    fn weight(&self, name: &str, shape: &[i64], _init: Init) -> Tensor {
        self.load(name, shape)
            // `finish` reports the problem.
            .unwrap_or_else(|| placeholder(shape))
    }
}
