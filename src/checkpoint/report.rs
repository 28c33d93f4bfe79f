//! What became of each tensor of a file when a model was loaded.

use std::fmt;
use std::path::PathBuf;

/// What became of the tensors of a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    pub path: PathBuf,
    /// Tensors that went into the model.
    pub applied: usize,
    /// Asked for by the model, not in the checkpoint; with the nearest unused name.
    pub missing: Vec<(String, Option<String>)>,
    /// In the checkpoint, known, and asked for by nothing.
    pub unused: Vec<String>,
    /// In the checkpoint, and known not to matter for this use, with the reason.
    pub ignored: Vec<(String, &'static str)>,
    /// Name, shape in the checkpoint, shape the model expects.
    pub mismatched: Vec<(String, Vec<i64>, Vec<i64>)>,
    /// Tensors that could not be read or hold NaN or infinity, with the reason.
    pub unreadable: Vec<(String, String)>,
}

impl LoadReport {
    /// Whether every weight was found, fits, is finite, and none was left over.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
            && self.unused.is_empty()
            && self.mismatched.is_empty()
            && self.unreadable.is_empty()
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let path = self.path.display();
        write!(
            f,
            "{path}: {} tensors applied, {} ignored, {} missing, {} unused, {} of another shape, {} unreadable",
            self.applied,
            self.ignored.len(),
            self.missing.len(),
            self.unused.len(),
            self.mismatched.len(),
            self.unreadable.len()
        )?;
        let mut lines: Vec<String> = Vec::new();
        for (name, problem) in &self.unreadable {
            lines.push(format!("{name}: {problem}"));
        }
        for (name, found, expected) in &self.mismatched {
            lines.push(format!("{name}: shape {found:?}, expected {expected:?}"));
        }
        for (name, nearest) in &self.missing {
            lines.push(match nearest {
                Some(nearest) => format!("{name}: missing (nearest name: {nearest})"),
                None => format!("{name}: missing"),
            });
        }
        for name in &self.unused {
            lines.push(format!("{name}: in the file, but not part of this model"));
        }
        for line in lines.iter().take(SHOWN) {
            write!(f, "\n  {line}")?;
        }
        if lines.len() > SHOWN {
            write!(f, "\n  … and {} more", lines.len() - SHOWN)?;
        }
        Ok(())
    }
}
