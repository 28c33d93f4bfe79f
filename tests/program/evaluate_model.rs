//! `vqdiffusion evaluate model` through the real binary: the bundled model, small networks of
//! random weights.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{json, Value};
use tempfile::TempDir;
use vqdiffusion::diffusion::RevealOrder;
use vqdiffusion::Record;

use crate::evaluate_pictures::{clip_weights, dinov2_weights, folder, number};
use crate::running::{changed, command, files, refuse, s, succeed, text};

/// The emoji protocol with real pictures of a dozen captions.
pub struct Bench {
    _folder: TempDir,
    pub root: PathBuf,
    pub protocol: PathBuf,
    pub weights: PathBuf,
}

pub const PROTOCOL: &str = "
name: A dozen waves
reals: {data: real, crop: 32}
samples: {pictures: 12, sampler: {steps: 2, order: halton}}
published:
  - {model: Other, figures: {fd_dinov2: 12.5}, source: nowhere, unlike: resize}
";

impl Bench {
    pub fn new() -> Self {
        let folder_ = TempDir::new().expect("a temporary folder");
        let root = folder_.path().to_path_buf();
        let real = folder(&root, "real", 0..14);
        let line = |n: usize| json!({"file": format!("{n:03}.png"), "captions": [format!("red heart {n}"), "blue"]});
        let list: String = (0..14).map(|n| format!("{}\n", line(n))).collect();
        std::fs::write(real.join("captions.jsonl"), list).expect("a list");
        let protocol = root.join("protocol.yaml");
        std::fs::write(&protocol, PROTOCOL).expect("a protocol");
        let weights = dinov2_weights(&root);
        Bench {
            _folder: folder_,
            root,
            protocol,
            weights,
        }
    }

    fn args<'a>(&'a self, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/checkpoints/emoji.safetensors");
        let mut args = vec!["evaluate", "model", "--protocol", s(&self.protocol)];
        args.extend(["--checkpoint", model, "--out", out, "--no-cache"]);
        args.extend(["--dtype", "f32", "--dinov2", s(&self.weights)]);
        args.extend(more);
        args
    }

    pub fn measure(&self, out: &str, more: &[&str]) -> (Value, String) {
        let printed = succeed(&self.root, &self.args(out, more));
        (self.report(out), printed)
    }

    fn report(&self, out: &str) -> Value {
        let path = self.root.join(out).join("report.json");
        let text = std::fs::read_to_string(path).expect("a report");
        serde_json::from_str(&text).expect("JSON")
    }
}

/// A report without what differs from run to run.
fn lasting(mut report: Value) -> Value {
    report["samples"]["seconds_per_picture"] = Value::Null;
    for run in report["runs"].as_array_mut().expect("runs") {
        run["seconds_per_picture"] = Value::Null;
        run["samples"]["path"] = Value::Null;
    }
    report
}

#[test]
fn a_model_by_a_protocol_beside_published_rows() {
    let bench = Bench::new();
    let clip = clip_weights(&bench.root);
    let (report, printed) = bench.measure("out", &["--clip", s(&clip), "--seeds", "2"]);
    for word in [
        "A dozen waves",
        "12 pictures against 14 real ones",
        "2 steps",
        "Other *",
        "12.50",
    ] {
        assert!(printed.contains(word), "{word:?} not in {printed}");
    }
    assert!(printed.contains("* Other: resize (nowhere)"), "{printed}");
    let fd = &report["summary"]["fd_dinov2"];
    let values: Vec<f64> = fd["values"]
        .as_array()
        .expect("values")
        .iter()
        .filter_map(Value::as_f64)
        .collect();
    assert_eq!(values.len(), 2);
    assert_ne!(values[0], values[1]);
    let mean = (values[0] + values[1]) / 2.0;
    assert!((fd["mean"].as_f64().expect("a mean") - mean).abs() < 1e-9 * mean);
    let spread = (values[0] - values[1]).abs() / 2f64.sqrt();
    assert!((fd["spread"].as_f64().expect("a spread") - spread).abs() < 1e-9 * mean);
    // The second run's seeds follow the first's.
    assert_eq!(report["runs"][0]["first_seed"], 0);
    assert_eq!(report["runs"][1]["first_seed"], 12);
    let [low, high] =
        [0, 1].map(|i| number(&report, &format!("/runs/0/dinov2/intervals/coverage/{i}")));
    let coverage = number(&report, "/runs/0/dinov2/coverage");
    assert!(low <= coverage && coverage <= high);
    let reconstructed = number(&report, "/controls/reconstructions/fd_dinov2");
    assert!(
        reconstructed > 0.0 && reconstructed < mean,
        "{reconstructed} {mean}"
    );
    assert!(number(&report, "/controls/halves/fd_dinov2") > 0.0);
    assert!(report["runs"][0]["shuffled_captions"]["cosine"].is_f64());

    // The pictures are there for other tools, with what they should show; measured as any
    // pictures they give the same.
    let samples = bench.root.join("out/run-0/samples");
    assert_eq!(files(&samples).len(), 13);
    let record = Record::read(samples.join(&files(&samples)[0])).expect("a record");
    assert_eq!(record.settings.sampler.order, RevealOrder::Halton);
    let again = bench.root.join("again.json");
    let mut args = vec![
        "evaluate",
        "pictures",
        "--samples",
        s(&samples),
        "--references",
        "real",
    ];
    args.extend([
        "--crop",
        "32",
        "--dinov2",
        s(&bench.weights),
        "--clip",
        s(&clip),
    ]);
    args.extend(["--no-cache", "--out", s(&again)]);
    succeed(&bench.root, &args);
    let again: Value =
        serde_json::from_slice(&std::fs::read(&again).expect("a report")).expect("JSON");
    assert_eq!(again["dinov2"], report["runs"][0]["dinov2"]);
    assert_eq!(again["clip"], report["runs"][0]["clip"]);
    assert_eq!(
        again["samples"]["sha256"],
        report["runs"][0]["samples"]["sha256"]
    );
}

#[test]
fn processes_find_what_one_finds() {
    let bench = Bench::new();
    let (one, _) = bench.measure("one", &["--seeds", "2"]);
    let (two, printed) = bench.measure("two", &["--seeds", "2", "--nproc-per-node", "2"]);
    assert_eq!(printed.matches("wrote two/report.json").count(), 1);
    assert_eq!(lasting(two), lasting(one));
    for run in ["run-0", "run-1"] {
        let [one, two] = ["one", "two"].map(|out| bench.root.join(out).join(run).join("samples"));
        assert_eq!(files(&one), files(&two));
        for name in files(&one) {
            let read = |folder: &Path| std::fs::read(folder.join(&name)).expect("a file");
            assert!(read(&one) == read(&two), "{run}: {name}");
        }
    }
}

#[test]
fn what_is_there_is_not_made_again_and_what_is_missing_is_made_the_same() {
    let bench = Bench::new();
    let (first, _) = bench.measure("out", &[]);
    let samples = bench.root.join("out/run-0/samples");
    let kept = std::fs::read(samples.join("000003.png")).expect("a picture");
    // Half of the pictures and all features are gone.
    for n in [0, 3, 4, 9, 10, 11] {
        std::fs::remove_file(samples.join(format!("{n:06}.png"))).expect("removed");
    }
    std::fs::remove_dir_all(bench.root.join("out/run-0/features")).expect("removed");
    let (second, _) = bench.measure("out", &[]);
    assert_eq!(
        std::fs::read(samples.join("000003.png")).expect("a picture"),
        kept
    );
    assert_eq!(lasting(second), lasting(first.clone()));
    // Without the pictures: nothing is left of them, and the figures are the same.
    let (third, _) = bench.measure("lean", &["--discard-pictures"]);
    assert!(files(&bench.root.join("lean/run-0/samples")).is_empty());
    assert_eq!(lasting(third), lasting(first.clone()));
    let (fourth, _) = bench.measure("lean", &["--discard-pictures"]);
    assert_eq!(lasting(fourth), lasting(first.clone()));
    assert!(files(&bench.root.join("lean/run-0/samples")).is_empty());

    // The folder is this run's.
    let other = bench.args("out", &["--steps", "3"]);
    refuse(&bench.root, &other, &["out", "another run", "protocol"]);
    assert_eq!(lasting(bench.report("out")), lasting(first.clone()));

    // The written protocol has the list of reals, which is checked.
    let written = bench.root.join("out/protocol.yaml");
    let list = std::fs::read_to_string(bench.root.join("out/reals.txt")).expect("the list");
    assert_eq!(list.lines().count(), 14 + 12);
    let text = std::fs::read_to_string(&written).expect("a protocol");
    assert!(text.contains("list_sha256: "));
    let again = Bench {
        protocol: written,
        ..bench
    };
    let (fifth, _) = again.measure("second", &[]);
    assert_eq!(fifth["protocol_sha256"], first["protocol_sha256"]);
    let captions = again.root.join("real/captions.jsonl");
    let edited = changed(
        &std::fs::read_to_string(&captions).expect("a list"),
        "blue",
        "green",
    );
    std::fs::write(&captions, changed(&edited, "red heart 7", "purple heart")).expect("a list");
    let refused = again.args("third", &[]);
    refuse(&again.root, &refused, &["real", "list", "SHA-256"]);
}

#[test]
fn a_signal_keeps_what_was_made() {
    let bench = Bench::new();
    let more = ["--steps", "20"];
    let running = command(&bench.root, &bench.args("out", &more))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let samples = bench.root.join("out/run-0/samples");
    let start = Instant::now();
    while !samples.is_dir() || files(&samples).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(300), "no picture");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = running.id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(sent.expect("kill").success());
    let output = running.wait_with_output().expect("it ends");
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{message}");
    assert!(message.contains("the same command goes on"), "{message}");
    let made = files(&samples).len();
    assert!((1..12).contains(&made), "{made}");
    let first = std::fs::metadata(samples.join("000000.png")).expect("a picture");
    bench.measure("out", &more);
    let again = std::fs::metadata(samples.join("000000.png")).expect("a picture");
    assert_eq!(
        first.modified().expect("a time"),
        again.modified().expect("a time")
    );
    assert_eq!(files(&samples).len(), 13);
}

#[test]
fn protocols_that_cannot_be_run() {
    let bench = Bench::new();
    let refused = |from: &str, to: &str, words: &[&str]| {
        std::fs::write(&bench.protocol, changed(PROTOCOL, from, to)).expect("a protocol");
        refuse(&bench.root, &bench.args("out", &[]), words);
        assert!(!bench.root.join("out/run-0").exists());
    };
    refused(
        "pictures: 12",
        "picturez: 12",
        &["protocol.yaml", "picturez"],
    );
    refused(
        "pictures: 12",
        "pictures: 5",
        &["samples.pictures", "5", "10"],
    );
    refused(
        "pictures: 12",
        "pictures: 29",
        &["samples.pictures", "29", "captions"],
    );
    refused("data: real", "data: nowhere", &["nowhere"]);
    refused(
        "crop: 32",
        "crop: 32, pictures: 20",
        &["reals.pictures", "20", "14"],
    );
    refused("steps: 2", "steps: 2, guidance: .nan", &["guidance"]);
    refused(
        "pictures: 12",
        "pictures: 12, best_of: 3",
        &["best_of", "rerank"],
    );
    std::fs::write(&bench.protocol, PROTOCOL).expect("a protocol");
    let few = bench.root.join("few");
    std::fs::create_dir_all(&few).expect("a folder");
    refuse(
        &bench.root,
        &bench.args("out", &["--reals", s(&few)]),
        &["few"],
    );
    let unused = ["--best-of", "3"];
    refuse(
        &bench.root,
        &bench.args("out", &unused),
        &["--best-of", "--rerank"],
    );
}

/// Every shipped protocol can be read; its published rows have figures of a report.
#[test]
fn shipped_protocols() {
    use vqdiffusion::evaluate::model::protocol::ModelProtocol;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/evaluate");
    let names = files(&folder);
    assert!(names.len() >= 7, "{names:?}");
    for name in names {
        let protocol = ModelProtocol::read(&folder.join(&name)).unwrap_or_else(|e| panic!("{e}"));
        assert!(!protocol.reals.data.as_os_str().is_empty(), "{name}");
        for row in &protocol.published {
            assert!(row.figures.contains_key("fid"), "{name}: {}", row.model);
        }
    }
}
