//! The folder that GenEval's evaluation reads: for prompt n its line of the list as
//! `NNNNN/metadata.jsonl`, and its pictures as `NNNNN/samples/NNNNN.png`.

use std::error::Error;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::args::SampleArgs;
use crate::files::{self, FileError};

/// Size of a list of prompts, at most.
const MOST_BYTES: u64 = 64 << 20;

/// The prompts of a list such as GenEval's `evaluation_metadata.jsonl`, each with its line.
pub struct GenevalPrompts(Vec<(String, String)>);

impl GenevalPrompts {
    /// Reads the list, a JSON object a line with `prompt`.
    pub fn read(args: &SampleArgs) -> Result<Self, Box<dyn Error>> {
        let path = args.prompts.as_deref();
        let path = path.ok_or("--layout geneval: give --prompts with it, GenEval's list")?;
        let text = files::read_text(path, MOST_BYTES)?;
        let mut prompts = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() {
                continue;
            }
            let problem = |problem: String| format!("{}: line {number}: {problem}", path.display());
            let value: Value = serde_json::from_str(line).map_err(|e| problem(e.to_string()))?;
            let prompt = value["prompt"].as_str();
            let prompt = prompt.ok_or_else(|| problem("has no text 'prompt'".into()))?;
            prompts.push((prompt.to_string(), line.trim().to_string()));
        }
        match prompts.is_empty() {
            true => Err(format!("{}: holds no prompt", path.display()).into()),
            false => Ok(GenevalPrompts(prompts)),
        }
    }

    pub fn prompts(&self) -> Vec<String> {
        self.0.iter().map(|(prompt, _)| prompt.clone()).collect()
    }

    /// The files of `count` pictures of each prompt, in order.
    pub fn files(&self, out: &Path, count: usize) -> Vec<PathBuf> {
        let of = |n: usize| {
            let samples = folder(out, n).join("samples");
            (0..count).map(move |i| samples.join(format!("{i:05}.png")))
        };
        (0..self.0.len()).flat_map(of).collect()
    }

    /// Makes the folders, each with its prompt's line.
    pub fn prepare(&self, out: &Path) -> Result<(), FileError> {
        for (n, (_, line)) in self.0.iter().enumerate() {
            let folder = folder(out, n);
            let samples = folder.join("samples");
            std::fs::create_dir_all(&samples).map_err(FileError::writing(&samples))?;
            files::write(&folder.join("metadata.jsonl"), line)?;
        }
        Ok(())
    }
}

fn folder(out: &Path, n: usize) -> PathBuf {
    out.join(format!("{n:05}"))
}
