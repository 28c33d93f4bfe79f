//! The files of a trace.

use std::error::Error;
use std::path::Path;

use crate::files;
use crate::picture::{grid, sheet, write_png, Picture, Row};
use crate::pipeline::{Pipeline, Trace};

/// Writes `trace.json`, one PNG a step or word into `tokens/`, `entropy/`, `changed/`
/// and `attention/`, and the sheets `steps.png` and `words.png` into `folder`.
/// `decode` gives the picture after a step.
pub fn write(
    folder: &Path,
    trace: &Trace,
    picture: &Picture,
    pipeline: &Pipeline,
    decode: &dyn Fn(usize) -> Picture,
) -> Result<(), Box<dyn Error>> {
    let side = pipeline.config().codec.factor() as usize;
    for kind in ["tokens", "entropy", "changed", "attention"] {
        let folder = folder.join(kind);
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    for i in 0..trace.steps.len() {
        let name = format!("{:03}.png", i + 1);
        let file = |kind: &str| folder.join(kind).join(&name);
        write_png(&file("tokens"), &trace.token_map(i, side), &[])?;
        write_png(&file("entropy"), &trace.entropy_map(i, side), &[])?;
        write_png(&file("changed"), &trace.change_map(i, side), &[])?;
    }
    for (i, word) in trace.words.iter().enumerate() {
        let letters: String = word.text.chars().filter(|c| c.is_alphanumeric()).collect();
        let letters = if word.text.is_empty() {
            "padding".into()
        } else {
            letters
        };
        let file = folder
            .join("attention")
            .join(format!("{i:02}-{letters}.png"));
        write_png(&file, &trace.attention_map(i, side, picture), &[])?;
    }
    if let Some(sheet) = steps_sheet(trace, side, decode) {
        write_png(&folder.join("steps.png"), &sheet, &[])?;
    }
    let maps: Vec<Picture> = (0..trace.words.len())
        .map(|i| trace.attention_map(i, side, picture))
        .collect();
    let words: Vec<Row> = maps
        .iter()
        .zip(&trace.words)
        .map(|(map, word)| Row {
            pictures: std::slice::from_ref(map),
            label: match word.text.as_str() {
                "" => "(padding)".into(),
                text => text.into(),
            },
        })
        .collect();
    if let Some(sheet) = sheet(&words, words.len()) {
        write_png(&folder.join("words.png"), &sheet, &[])?;
    }
    files::write(&folder.join("trace.json"), serde_json::to_vec(trace)?)?;
    Ok(())
}

/// Pixels between the pictures of a sheet.
const GAP: u32 = 2;
/// Steps on a sheet, at most.
const COLUMNS: usize = 8;

/// Steps from left to right, the last one always; from top to bottom the picture, the
/// tokens, their entropy, and which changed.
fn steps_sheet(trace: &Trace, side: usize, decode: &dyn Fn(usize) -> Picture) -> Option<Picture> {
    let steps = trace.steps.len();
    let columns = steps.min(COLUMNS);
    let shown: Vec<usize> = (1..=columns).map(|c| c * steps / columns - 1).collect();
    let rows: [&dyn Fn(usize) -> Picture; 4] = [
        decode,
        &|i| trace.token_map(i, side),
        &|i| trace.entropy_map(i, side),
        &|i| trace.change_map(i, side),
    ];
    let pictures: Vec<_> = rows
        .iter()
        .flat_map(|row| shown.iter().map(|&i| row(i)))
        .collect();
    grid(&pictures, columns, GAP)
}
