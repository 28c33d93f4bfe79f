//! The files of a trace.

use std::error::Error;
use std::io::Write;
use std::path::Path;

use crate::new_file;
use crate::picture::{write_png, Picture};
use crate::pipeline::Pipeline;
use crate::trace::Trace;

/// Writes `trace.json` and, one PNG a step or word, `tokens/`, `entropy/`, `changed/`
/// and `attention/` into `folder`.
pub fn write(
    folder: &Path,
    trace: &Trace,
    picture: &Picture,
    pipeline: &Pipeline,
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
    let path = folder.join("trace.json");
    let problem = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut file = new_file::beside(&path).map_err(problem)?;
    serde_json::to_writer(&mut file, trace)?;
    file.flush().map_err(problem)?;
    new_file::commit(file, &path).map_err(problem)?;
    Ok(())
}
