//! Parity of the measures with the packages that published figures come from: the recorded
//! cases in the folder that `VQDIFFUSION_FIXTURES` names (default `tests/fixtures`) whose
//! contents are features, pictures and the values of measures. What a case holds shows in
//! its tensors, and every size is read from its files; networks are filled by the formula
//! in its `reference.json`.

#[path = "parity/case.rs"]
#[allow(dead_code)]
mod case;
#[path = "parity_metrics/formulas.rs"]
mod formulas;
#[path = "parity/formula.rs"]
#[allow(dead_code)]
mod generator;
#[path = "parity_metrics/networks.rs"]
mod networks;
#[path = "parity_metrics/pictures.rs"]
mod pictures;
#[path = "parity_metrics/weights.rs"]
mod weights;

use std::io::Write;
use std::path::{Path, PathBuf};

use case::Case;
use tch::{Kind, Tensor};

/// Compares with the expected tensor `name` by the absolute and the relative tolerance of
/// tolerance.json together.
fn check(case: &mut Case, name: &str, ours: &Tensor) {
    let Some(expected) = case.get(name) else {
        case.fail(format!("{name}: computed, but the case has no such tensor"));
        return;
    };
    case.mark(name);
    let (ours, expected) = (ours.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let largest = expected.abs().max().double_value(&[]);
    let tolerance = |key: &str| case.tolerance[name][key].as_f64();
    let relative = tolerance("suggested_rtol");
    let absolute = tolerance("suggested_atol").unwrap_or(match relative {
        Some(relative) => relative.min(1e-6) * largest,
        None => 1e-5 * largest,
    });
    let slack = expected.abs() * relative.unwrap_or(0.0);
    let difference = (&ours - &expected).abs() - slack;
    if ours.size() != expected.size() {
        case.fail(format!(
            "{name}: shape {:?}, expected {:?}",
            ours.size(),
            expected.size()
        ));
    } else if difference.le(absolute).logical_not().any().int64_value(&[]) != 0 {
        let at = difference.flatten(0, -1).argmax(-1, false);
        let value = |t: &Tensor| t.flatten(0, -1).take(&at).double_value(&[]);
        case.fail(format!(
            "{name}: {} instead of {} (at {} of {}), allowed {absolute:.3e} and {relative:?} of it",
            value(&ours),
            value(&expected),
            at.int64_value(&[]),
            ours.numel(),
        ));
    }
}

/// As [`check`] for a single number.
fn check_value(case: &mut Case, name: &str, ours: f64) {
    check(case, name, &Tensor::from_slice(&[ours]));
}

/// Mean and unbiased standard deviation over the last dimension, stacked in front.
fn mean_std(x: &Tensor) -> Tensor {
    let x = x.to_kind(Kind::Double);
    let mean = x.mean_dim(Some([-1i64].as_slice()), false, Kind::Double);
    Tensor::stack(&[mean, x.std_dim(Some([-1i64].as_slice()), true, false)], 0)
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

/// Parts of a case that measure nothing.
const LOSSES: &str = "a loss of codec training, no measure";

/// What the perceptual loss of codec training sees.
const RESIZED: &str = "the resizing of a loss of codec training";

fn run(case: &mut Case) -> Vec<String> {
    formulas::run(case);
    pictures::run(case);
    networks::run(case);
    let losses = ["gan.", "plus_disc.", "resnet.grad", "resnet.perceptual"];
    let resized = ["resnet.pixels_256_to_224", "resnet.logits_256_to_224"];
    let losses = losses.map(|part| (format!("expected.{part}"), LOSSES));
    let resized = resized.map(|part| (format!("expected.{part}"), RESIZED));
    let all = losses.into_iter().chain(resized);
    let all: Vec<(String, &str)> = all.collect();
    let named: Vec<(&str, &str)> = all.iter().map(|(n, why)| (n.as_str(), *why)).collect();
    case.finish(&named)
}

#[test]
fn recorded_measures() {
    let root = std::env::var_os("VQDIFFUSION_FIXTURES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"),
        PathBuf::from,
    );
    // Past the test harness, which shows captured output only of failing tests.
    let say = |line: &str| {
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    };
    say("");
    let (mut covered, mut failures) = (0, Vec::new());
    for folder in case_folders(&root) {
        let mut case = Case::read(&folder);
        if !case.has("expected.isc.mean") && !case.has("expected.fd_inf.value") {
            say(&format!(
                "{}: not covered (another kind of case)",
                case.name
            ));
            continue;
        }
        covered += 1;
        let start = std::time::Instant::now();
        for line in run(&mut case) {
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
