//! Parity with the official implementation: every recorded case found in the folder
//! that `VQDIFFUSION_FIXTURES` names (default `tests/fixtures`) is run against the
//! library. A case is a folder with `reference.safetensors` (`input.*`,
//! `expected.*`), `reference.json` (meaning of each tensor, run settings) and
//! `tolerance.json`; what kind it is shows in its contents, and every size is read
//! from its files.

mod case;
mod class;
mod codec;
mod condition;
mod diffusers;
mod diffusion;
mod formula;
mod fullsize;
mod grid;
mod model;
mod network;
mod objective;
mod sampling;
mod text;

use std::io::Write;
use std::path::{Path, PathBuf};

use case::Case;

enum Kind {
    /// Model with its checkpoint and official configuration.
    Model,
    /// A pipeline saved by diffusers.
    Diffusers,
    /// Network and decoder of full size, weights made by a formula.
    FullSize,
}

impl Kind {
    fn of(case: &Case) -> Option<Self> {
        let official = case.path.join("config.yaml").is_file()
            && case::config(case)["model"]["params"]["diffusion_config"].is_object();
        let formula = ["decoder", "transformer"]
            .iter()
            .all(|part| case.meta[*part]["parameters"].is_array());
        if case.path.join(diffusers::FOLDER).is_dir() {
            return Some(Kind::Diffusers);
        }
        if official && case.path.join("last.pth").is_file() && case.has("expected.log_pred") {
            Some(Kind::Model)
        } else if formula && case.meta["rule"].is_string() {
            Some(Kind::FullSize)
        } else {
            None
        }
    }
}

/// Past the test harness, which shows captured output only of failing tests.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// The case folders in `root`, or `root` itself if it is one.
fn case_folders(root: &Path) -> Vec<PathBuf> {
    let is_case = |path: &Path| path.join("reference.safetensors").is_file();
    if is_case(root) {
        return vec![root.to_path_buf()];
    }
    let entries = std::fs::read_dir(root)
        .unwrap_or_else(|e| panic!("the fixtures' folder {}: {e}", root.display()));
    let mut folders: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| is_case(path))
        .collect();
    folders.sort();
    folders
}

#[test]
fn recorded_cases() {
    let _no_grad = tch::no_grad_guard();
    let root = std::env::var_os("VQDIFFUSION_FIXTURES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"),
        PathBuf::from,
    );
    say("");
    let (mut covered, mut failures) = (0, Vec::new());
    for folder in case_folders(&root) {
        let mut case = Case::read(&folder);
        let start = std::time::Instant::now();
        match Kind::of(&case) {
            Some(Kind::Model) => model::run(&mut case),
            Some(Kind::Diffusers) => diffusers::run(&mut case),
            Some(Kind::FullSize) => fullsize::run(&mut case),
            None => {
                say(&format!(
                    "{}: not covered (another kind of case)",
                    case.name
                ));
                continue;
            }
        }
        covered += 1;
        for line in case.finish(&[]) {
            say(&line);
        }
        say(&format!("  {:.1} s", start.elapsed().as_secs_f64()));
        failures.extend(case.failures);
    }
    assert!(covered > 0, "no case to run in {}", root.display());
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
}
