//! The files of a trace.

use std::fs;
use std::path::Path;

use super::follow::Trace;
use crate::files::{self, FileError};
use crate::picture::{grid, sheet, write_png, Picture, Row};
use crate::pipeline::error::Error;

/// Pixels between the pictures of a sheet.
const GAP: u32 = 2;
/// Steps on a sheet, at most.
const COLUMNS: usize = 8;

impl Trace {
    /// Writes `trace.json`, one PNG a step or word into `tokens/`, `entropy/`, `changed/`
    /// and `attention/`, and the sheets `steps.png` and `words.png` into `folder`, of the
    /// finished `picture` and the `frame` after each step.
    ///
    /// # Errors
    ///
    /// A file or folder that cannot be written.
    pub fn write(
        &self,
        folder: &Path,
        picture: &Picture,
        frame: &dyn Fn(usize) -> Picture,
    ) -> Result<(), Error> {
        for kind in ["tokens", "entropy", "changed", "attention"] {
            let folder = folder.join(kind);
            fs::create_dir_all(&folder).map_err(FileError::writing(&folder))?;
        }
        for i in 0..self.steps.len() {
            let name = format!("{:03}.png", i + 1);
            let file = |kind: &str| folder.join(kind).join(&name);
            write_png(&file("tokens"), &self.token_map(i), &[])?;
            write_png(&file("entropy"), &self.entropy_map(i), &[])?;
            write_png(&file("changed"), &self.change_map(i), &[])?;
        }
        let maps: Vec<Picture> = (0..self.words.len())
            .map(|i| self.attention_map(i, picture))
            .collect();
        for (i, (word, map)) in self.words.iter().zip(&maps).enumerate() {
            let letters: String = word.text.chars().filter(|c| c.is_alphanumeric()).collect();
            let letters = match word.text.is_empty() {
                true => "padding".into(),
                false => letters,
            };
            let name = format!("{i:02}-{letters}.png");
            write_png(&folder.join("attention").join(name), map, &[])?;
        }
        if let Some(sheet) = self.steps_sheet(frame) {
            write_png(&folder.join("steps.png"), &sheet, &[])?;
        }
        if let Some(sheet) = self.words_sheet(&maps) {
            write_png(&folder.join("words.png"), &sheet, &[])?;
        }
        let file = folder.join("trace.json");
        let text = serde_json::to_vec(self).map_err(|e| FileError::writing(&file)(e.into()))?;
        Ok(files::write(&file, text)?)
    }

    /// The words below where the image looked for them, from left to right.
    fn words_sheet(&self, maps: &[Picture]) -> Option<Picture> {
        let words: Vec<Row> = maps
            .iter()
            .zip(&self.words)
            .map(|(map, word)| Row {
                pictures: std::slice::from_ref(map),
                label: match word.text.as_str() {
                    "" => "(padding)".into(),
                    text => text.into(),
                },
            })
            .collect();
        sheet(&words, words.len())
    }

    /// Steps from left to right, the last one always; from top to bottom the picture, the
    /// tokens, their entropy, and which changed.
    fn steps_sheet(&self, frame: &dyn Fn(usize) -> Picture) -> Option<Picture> {
        let steps = self.steps.len();
        let columns = steps.min(COLUMNS);
        let shown: Vec<usize> = (1..=columns).map(|c| c * steps / columns - 1).collect();
        let rows: [&dyn Fn(usize) -> Picture; 4] = [
            frame,
            &|i| self.token_map(i),
            &|i| self.entropy_map(i),
            &|i| self.change_map(i),
        ];
        let pictures: Vec<_> = rows
            .iter()
            .flat_map(|row| shown.iter().map(|&i| row(i)))
            .collect();
        grid(&pictures, columns, GAP)
    }
}
