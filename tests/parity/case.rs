//! One recorded case: its tensors, tolerances and the book of what was compared.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::{Kind, Tensor};

/// Largest difference from a float without an entry in tolerance.json, relative to
/// the largest recorded value.
const RELATIVE_TOLERANCE: f64 = 1e-5;

pub struct Case {
    pub name: String,
    pub path: PathBuf,
    /// Run settings: `meta` of reference.json.
    pub meta: Value,
    described: Value,
    /// tolerance.json.
    pub tolerance: Value,
    tensors: BTreeMap<String, Tensor>,
    compared: BTreeSet<String>,
    pub failures: Vec<String>,
}

fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The case's configuration, which may hold Python's tuples.
pub fn config(case: &Case) -> Value {
    let path = case.path.join("config.yaml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let yaml: serde_yaml::Value = serde_yaml::from_str(&text.replace("!!python/tuple", ""))
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::to_value(yaml).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

impl Case {
    pub fn read(path: &Path) -> Self {
        let reference = json(&path.join("reference.json"));
        let file = path.join("reference.safetensors");
        let tensors =
            Tensor::read_safetensors(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        Case {
            name: path
                .file_name()
                .map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
            path: path.to_path_buf(),
            meta: reference["meta"].clone(),
            described: reference["tensors"].clone(),
            tolerance: json(&path.join("tolerance.json")),
            tensors: tensors.into_iter().collect(),
            compared: BTreeSet::new(),
            failures: Vec::new(),
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub fn get(&self, name: &str) -> Option<Tensor> {
        self.tensors.get(name).map(Tensor::shallow_clone)
    }

    /// A tensor that the case must have for what it expects elsewhere.
    pub fn input(&self, name: &str) -> Tensor {
        self.get(name)
            .unwrap_or_else(|| panic!("the case has no tensor {name}"))
    }

    /// Rests of the names that start with `prefix`.
    pub fn names_below(&self, prefix: &str) -> Vec<String> {
        let rests = self.tensors.keys().filter_map(|n| n.strip_prefix(prefix));
        rests.map(str::to_string).collect()
    }

    /// What reference.json says of a tensor.
    pub fn meaning(&self, name: &str) -> &str {
        self.described[name]["meaning"].as_str().unwrap_or("")
    }

    /// The largest allowed absolute difference from `name`.
    pub fn atol(&self, name: &str) -> f64 {
        let entry = &self.tolerance[name];
        let expected = &self.tensors[name];
        if !expected.is_floating_point() {
            return 0.0;
        }
        if let Some(atol) = entry["suggested_atol"].as_f64() {
            return atol;
        }
        if entry["note"].as_str().is_some_and(|n| n.contains("exact")) {
            return 0.0;
        }
        let finite = expected.isfinite();
        let largest = expected.abs().masked_fill(&finite.logical_not(), 0.0);
        RELATIVE_TOLERANCE * largest.max().double_value(&[])
    }

    /// Compares `ours` with the expected tensor `name`, and counts it as checked.
    pub fn check(&mut self, name: &str, ours: &Tensor) {
        if let Some(expected) = self.get(name) {
            self.compared.insert(name.to_string());
            self.also(name, "", ours, &expected);
        }
    }

    /// As [`check`](Self::check) with another tolerance than that of `name`.
    pub fn check_within(&mut self, name: &str, ours: &Tensor, atol: f64) {
        self.mark(name);
        if let Err(problem) = close(ours, &self.input(name), atol) {
            self.fail(format!("{name}: {problem}"));
        }
    }

    /// Counts `name` as checked by a comparison of another form.
    pub fn mark(&mut self, name: &str) {
        self.compared.insert(name.to_string());
    }

    /// Compares another way (`how`) to `expected`, which is all or a part of the
    /// expected tensor `name`, within the tolerance of `name`.
    pub fn also(&mut self, name: &str, how: &str, ours: &Tensor, expected: &Tensor) {
        let atol = self.atol(name);
        if let Err(problem) = close(ours, expected, atol) {
            let how = if how.is_empty() {
                String::new()
            } else {
                format!(" ({how})")
            };
            self.fail(format!("{name}{how}: {problem}"));
        }
    }

    pub fn fail(&mut self, problem: impl std::fmt::Display) {
        self.failures.push(format!("{}: {problem}", self.name));
    }

    /// Runs a group of checks; a panic in it is one more failure.
    pub fn section<T>(&mut self, name: &str, run: impl FnOnce(&mut Self) -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| run(self))) {
            Ok(value) => Some(value),
            Err(panic) => {
                let text = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()))
                    .unwrap_or_default();
                self.fail(format!("{name} stopped: {text}"));
                None
            }
        }
    }

    /// The coverage report. An expected tensor that was neither compared nor starts
    /// with one of `named` is a failure.
    pub fn finish(&mut self, named: &[(&str, &str)]) -> Vec<String> {
        let expected: Vec<String> = self
            .tensors
            .keys()
            .filter(|n| n.starts_with("expected."))
            .cloned()
            .collect();
        let mut skipped: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
        let mut forgotten = Vec::new();
        for name in expected.iter().filter(|n| !self.compared.contains(*n)) {
            match named.iter().find(|(start, _)| name.starts_with(start)) {
                Some((start, reason)) => skipped.entry(start).or_insert((0, reason)).0 += 1,
                None => forgotten.push(name),
            }
        }
        for name in forgotten {
            let problem = format!("{}: {name}: neither checked nor named", self.name);
            self.failures.push(problem);
        }
        let mut lines = vec![format!(
            "{}: {} of {} expected tensors, {}",
            self.name,
            self.compared.len(),
            expected.len(),
            self.path.display()
        )];
        for (start, (count, reason)) in skipped {
            lines.push(format!("  not checked: {count} of {start}*: {reason}"));
        }
        lines.extend(self.failures.iter().map(|f| format!("  FAILED {f}")));
        lines
    }
}

/// Whether the two agree within `atol`; equal infinities agree, NaN never does.
pub fn close(ours: &Tensor, expected: &Tensor, atol: f64) -> Result<(), String> {
    if ours.size() != expected.size() {
        let (ours, expected) = (ours.size(), expected.size());
        return Err(format!("shape {ours:?}, expected {expected:?}"));
    }
    let (ours, expected) = (ours.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let difference = (&ours - &expected).abs();
    let difference = difference.masked_fill(&ours.eq_tensor(&expected), 0.0);
    let wrong = difference.le(atol).logical_not(); // NaN counts as wrong
    let count = wrong.sum(Kind::Int64).int64_value(&[]);
    if count == 0 {
        return Ok(());
    }
    let largest = difference.max().double_value(&[]);
    let at = difference.flatten(0, -1).argmax(-1, false);
    let value = |t: &Tensor| t.flatten(0, -1).take(&at).double_value(&[]);
    Err(format!(
        "{count} of {} differ, at most {largest:.3e} ({} instead of {}), allowed {atol:.3e}",
        ours.numel(),
        value(&ours),
        value(&expected)
    ))
}

/// Int64 values of a tensor.
pub fn integers(x: &Tensor) -> Vec<i64> {
    let x = x.to_kind(Kind::Int64).contiguous().flatten(0, -1);
    Vec::<i64>::try_from(&x).unwrap_or_else(|e| panic!("not integers: {e}"))
}

/// Rows `at` `[B, A]` of `x` `[B, L, D]`, gathered apart from the library's own way.
pub fn rows_at(x: &Tensor, at: &Tensor) -> Tensor {
    let rows = (0..x.size()[0]).map(|row| x.get(row).index_select(0, &at.get(row)));
    Tensor::stack(&rows.collect::<Vec<_>>(), 0)
}
