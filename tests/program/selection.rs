//! `--rerank` and `--layout` of `sample`, and `evaluate sweep`, through the real binary.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use vqdiffusion::metrics::networks::{Clip, ResNet};
use vqdiffusion::metrics::preparation::{imagenet_square, ClipCrop};
use vqdiffusion::picture::{read_picture, Pillow};

use crate::drawn::drawn;
use crate::evaluate_model::{Bench, PROTOCOL};
use crate::evaluate_pictures::{clip_weights, number};
use crate::running::{changed, files, fixture, refuse, s, succeed};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/checkpoints/emoji.safetensors");

/// The files of `folder` in the order of their seeds.
fn pictures(folder: &Path) -> Vec<PathBuf> {
    let seed = |name: &str| name.split('-').next().and_then(|n| n.parse::<u64>().ok());
    let mut names = files(folder);
    names.sort_by_key(|name| seed(name));
    names.iter().map(|name| folder.join(name)).collect()
}

/// The places of the `keep` highest scores.
fn best(scores: &[f64], keep: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order.truncate(keep);
    order.sort();
    order
}

fn bytes(paths: &[PathBuf]) -> Vec<Vec<u8>> {
    let read = |path: &PathBuf| std::fs::read(path).expect("a file");
    paths.iter().map(read).collect()
}

#[test]
fn clip_keeps_the_best_candidates() {
    let root = TempDir::new().expect("a temporary folder");
    let root = root.path();
    let weights = clip_weights(root);
    let common = [
        "sample",
        "--checkpoint",
        MODEL,
        "--steps",
        "2",
        "--seed",
        "7",
        "red heart",
    ];
    succeed(
        root,
        &[&common[..], &["--count", "6", "--out", "all"]].concat(),
    );
    let all = pictures(&root.join("all"));
    let clip = Clip::load(&weights, None, Device::Cpu).unwrap_or_else(|e| panic!("{e}"));
    let side = clip.network.vision().config().picture as u32;
    let text = clip.network.embed(&["red heart".into()], Device::Cpu);
    let text = text
        .expect("a vocabulary")
        .expect("a text tower")
        .squeeze_dim(0);
    let score = |path: &PathBuf| {
        let picture = read_picture(path).unwrap_or_else(|e| panic!("{e}"));
        let seen = ClipCrop::Openai.prepare(&picture, side, Pillow::default());
        let image = clip
            .network
            .images(&seen.unsqueeze(0))
            .embedding
            .squeeze_dim(0);
        (image.dot(&text) / image.norm() / text.norm()).double_value(&[])
    };
    let scores: Vec<f64> = all.iter().map(score).collect();
    let rerank = ["--rerank", "clip", "--rerank-weights", s(&weights)];
    // Two pictures of three candidates each are the two best of six.
    let more = ["--count", "2", "--best-of", "3", "--out", "best"];
    succeed(root, &[&common[..], &rerank, &more].concat());
    let kept = pictures(&root.join("best"));
    let expected: Vec<PathBuf> = best(&scores, 2).iter().map(|&n| all[n].clone()).collect();
    let name = |path: &PathBuf| path.file_name().expect("a name").to_owned();
    assert_eq!(
        kept.iter().map(name).collect::<Vec<_>>(),
        expected.iter().map(name).collect::<Vec<_>>()
    );
    assert!(bytes(&kept) == bytes(&expected));

    // No candidate's name is taken over, and every refusal says what is missing.
    let refused = |more: &[&str], words: &[&str]| {
        refuse(root, &[&common[..], more].concat(), words);
    };
    let again = [&rerank[..], &["--best-of", "6", "--out", "all"]].concat();
    refused(&again, &["exists already"]);
    refused(
        &["--rerank", "clip", "--best-of", "3"],
        &["--rerank-weights"],
    );
    refused(&["--best-of", "3"], &["--rerank"]);
    refused(&rerank, &["--best-of"]);
    let rate = ["--acceptance", "0.9"];
    refused(&[&rerank[..], &rate].concat(), &["--acceptance", "0.9"]);
    let wrong = [
        "--rerank",
        "clip",
        "--rerank-weights",
        MODEL,
        "--best-of",
        "2",
    ];
    refused(&wrong, &["emoji.safetensors", "CLIP"]);
}

/// A ResNet of one basic block a stage.
fn resnet_weights(root: &Path, classes: i64) -> PathBuf {
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    drawn(9, || {
        let mut conv = |name: &str, shape: [i64; 4]| {
            let noise = Tensor::randn(shape, (Kind::Float, Device::Cpu));
            let fan_in = (shape[1] * shape[2] * shape[3]) as f64;
            tensors.push((format!("{name}.weight"), noise * (2.0 / fan_in).sqrt()));
        };
        conv("conv1", [64, 3, 7, 7]);
        let mut inputs = 64;
        for stage in 1..=4 {
            let width = 32 << stage;
            let block = format!("layer{stage}.0");
            conv(&format!("{block}.conv1"), [width, inputs, 3, 3]);
            conv(&format!("{block}.conv2"), [width, width, 3, 3]);
            if stage > 1 {
                conv(&format!("{block}.downsample.0"), [width, inputs, 1, 1]);
            }
            inputs = width;
        }
        tensors.push((
            "fc.weight".into(),
            Tensor::randn([classes, 512], (Kind::Float, Device::Cpu)),
        ));
    });
    let mut norm = |name: String, width: i64| {
        for (part, value) in [
            ("weight", 1.0),
            ("bias", 0.1),
            ("running_mean", 0.0),
            ("running_var", 1.0),
        ] {
            let values = Tensor::full([width], value, (Kind::Float, Device::Cpu));
            tensors.push((format!("{name}.{part}"), values));
        }
    };
    norm("bn1".into(), 64);
    for stage in 1..=4 {
        let width = 32 << stage;
        norm(format!("layer{stage}.0.bn1"), width);
        norm(format!("layer{stage}.0.bn2"), width);
        if stage > 1 {
            norm(format!("layer{stage}.0.downsample.1"), width);
        }
    }
    tensors.push((
        "fc.bias".into(),
        Tensor::zeros([classes], (Kind::Float, Device::Cpu)),
    ));
    let path = root.join("resnet.safetensors");
    Tensor::write_safetensors(&tensors, &path).expect("a safetensors file");
    path
}

#[test]
fn a_classifier_accepts_a_share_of_the_candidates() {
    let root = TempDir::new().expect("a temporary folder");
    let root = root.path();
    let case = fixture("class_tiny");
    let model = root.join("class.safetensors");
    let (config, last) = (case.join("config.yaml"), case.join("last.pth"));
    let convert = ["convert", s(&last), s(&model), "--config", s(&config)];
    succeed(root, &convert);
    let common = [
        "sample",
        "--checkpoint",
        s(&model),
        "--class",
        "3",
        "--truncation",
        "1",
    ];
    succeed(
        root,
        &[&common[..], &["--count", "8", "--out", "all"]].concat(),
    );
    let all = pictures(&root.join("all"));
    let weights = resnet_weights(root, 1000);
    let network = ResNet::load(&weights, Device::Cpu).unwrap_or_else(|e| panic!("{e}"));
    let score = |path: &PathBuf| {
        let picture = read_picture(path).unwrap_or_else(|e| panic!("{e}"));
        let seen = imagenet_square(&picture, Pillow::default()).unsqueeze(0);
        let logits = network.network.forward(&seen).squeeze_dim(0);
        (logits.get(3) - logits.logsumexp([0], false)).double_value(&[])
    };
    let scores: Vec<f64> = all.iter().map(score).collect();
    let rerank = ["--rerank", "classifier", "--rerank-weights", s(&weights)];
    let more = ["--count", "2", "--acceptance", "0.25", "--out", "best"];
    succeed(root, &[&common[..], &rerank, &more].concat());
    let expected: Vec<PathBuf> = best(&scores, 2).iter().map(|&n| all[n].clone()).collect();
    // By their names: the seeds. Equal bytes follow from the seed.
    let names = |paths: &[PathBuf]| -> Vec<_> {
        let name = |path: &PathBuf| path.file_name().map(ToOwned::to_owned);
        paths.iter().map(name).collect()
    };
    let kept = pictures(&root.join("best"));
    assert_eq!(names(&kept), names(&expected));
    assert!(bytes(&kept) == bytes(&expected));

    let few = resnet_weights(root, 2);
    let rerank = [
        "--rerank",
        "classifier",
        "--rerank-weights",
        s(&few),
        "--best-of",
        "2",
    ];
    refuse(
        root,
        &[&common[..], &rerank].concat(),
        &["classifier", "2 classes"],
    );
    let text = ["sample", "--checkpoint", MODEL, "red heart"];
    refuse(
        root,
        &[&text[..], &rerank].concat(),
        &["classifier", "classes"],
    );
}

#[test]
fn the_folder_of_geneval() {
    let root = TempDir::new().expect("a temporary folder");
    let root = root.path();
    let lines = [
        r#"{"tag": "single_object", "include": [{"class": "heart", "count": 1}], "prompt": "red heart"}"#,
        r#"{"tag": "colors", "include": [], "prompt": "blue circle"}"#,
    ];
    std::fs::write(root.join("list.jsonl"), lines.join("\n")).expect("a list");
    let args = [
        "sample",
        "--checkpoint",
        MODEL,
        "--steps",
        "1",
        "--layout",
        "geneval",
    ];
    let args = [
        &args[..],
        &["--prompts", "list.jsonl", "--count", "2", "--out", "out"],
    ]
    .concat();
    succeed(root, &args);
    for (n, line) in lines.iter().enumerate() {
        let folder = root.join(format!("out/{n:05}"));
        let metadata = std::fs::read_to_string(folder.join("metadata.jsonl")).expect("metadata");
        // Read as one JSON document.
        let read: Value = serde_json::from_str(&metadata).expect("JSON");
        assert_eq!(read, serde_json::from_str::<Value>(line).expect("JSON"));
        assert_eq!(files(&folder.join("samples")), ["00000.png", "00001.png"]);
    }
    assert_eq!(files(&root.join("out")), ["00000", "00001"]);
    // As `sample` makes them without.
    let plain = [
        "sample",
        "--checkpoint",
        MODEL,
        "--steps",
        "1",
        "--seed",
        "2",
        "--out",
        "plain",
    ];
    succeed(root, &[&plain[..], &["blue circle"]].concat());
    let same = std::fs::read(root.join("out/00001/samples/00000.png")).expect("a picture");
    assert_eq!(
        same,
        std::fs::read(root.join("plain/2-blue-circle.png")).expect("a picture")
    );
    refuse(root, &args, &["exists already"]);
    std::fs::write(root.join("list.jsonl"), "{\"tag\": \"x\"}").expect("a list");
    refuse(root, &args, &["list.jsonl", "line 1", "prompt"]);
}

#[test]
fn a_sweep_measures_the_same_pictures_in_every_cell() {
    let bench = Bench::new();
    let weights = s(&bench.weights);
    let args = [
        "evaluate",
        "sweep",
        "--protocol",
        s(&bench.protocol),
        "--checkpoint",
        MODEL,
    ];
    let more = [
        "--dinov2",
        weights,
        "--no-cache",
        "--dtype",
        "f32",
        "--out",
        "sweep",
    ];
    let axes = ["--steps", "1,2", "--guidance", "1,3"];
    let args = [&args[..], &more, &axes].concat();
    succeed(&bench.root, &args);
    let folder = bench.root.join("sweep");
    let table = std::fs::read_to_string(folder.join("sweep.csv")).expect("a table");
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split(',').collect())
        .collect();
    assert_eq!(lines.len(), 5);
    let column = |name: &str| lines[0].iter().position(|n| *n == name).expect("a column");
    let cell = |row: usize, name: &str| lines[row][column(name)].to_string();
    let cells: Vec<[String; 3]> = (1..5)
        .map(|row| ["guidance", "steps", "network_calls"].map(|name| cell(row, name)))
        .collect();
    assert_eq!(
        cells,
        [
            ["1", "1", "1"],
            ["1", "2", "2"],
            ["3", "1", "2"],
            ["3", "2", "4"]
        ]
    );
    // A cell is what `evaluate model` measures with its options.
    let (report, _) = bench.measure("model", &["--steps", "2", "--guidance", "3"]);
    let fd: f64 = cell(4, "fd_dinov2").parse().expect("a number");
    assert!((fd - number(&report, "/summary/fd_dinov2/mean")).abs() < 1e-9 * fd);
    let sweep: Value =
        serde_json::from_slice(&std::fs::read(folder.join("report.json")).expect("a report"))
            .expect("JSON");
    assert_eq!(
        sweep["cells"][3]["run"]["samples"]["sha256"],
        report["runs"][0]["samples"]["sha256"]
    );

    let page = std::fs::read_to_string(folder.join("sweep.html")).expect("a page");
    assert_eq!(page.matches("<svg").count(), 2);
    assert_eq!(page.matches("src=\"data:image/png;base64,").count(), 4);
    // It holds everything itself.
    assert!(!page.contains("src=\"http") && !page.contains("<script") && !page.contains("<link"));
    for chart in ["fd_dinov2-calls", "fd_dinov2-seconds"] {
        let picture =
            read_picture(&folder.join(format!("{chart}.png"))).unwrap_or_else(|e| panic!("{e}"));
        // Lines in two colours, and words.
        for colour in [[0, 114, 178], [213, 94, 0], [0, 0, 0]] {
            assert!(
                picture.rgb.chunks(3).any(|pixel| pixel == colour),
                "{chart} {colour:?}"
            );
        }
        let svg = std::fs::read_to_string(folder.join(format!("{chart}.svg"))).expect("a chart");
        assert!(
            svg.contains("guidance 3") && svg.contains("FD-DINOv2"),
            "{svg}"
        );
    }
    // The second time nothing is made again, and the figures are the same.
    let made = folder
        .join("cells")
        .join(files(&folder.join("cells"))[0].clone());
    let first = std::fs::metadata(made.join("samples/000000.png")).expect("a picture");
    succeed(&bench.root, &args);
    let again = std::fs::metadata(made.join("samples/000000.png")).expect("a picture");
    assert_eq!(
        first.modified().expect("a time"),
        again.modified().expect("a time")
    );
    let second: Value =
        serde_json::from_slice(&std::fs::read(folder.join("report.json")).expect("a report"))
            .expect("JSON");
    assert_eq!(second["cells"][0]["figures"], sweep["cells"][0]["figures"]);
    let wrong = changed(PROTOCOL, "steps: 2", "steps: 2, rule: exact");
    std::fs::write(&bench.protocol, wrong).expect("a protocol");
    let refused: Vec<&str> = args
        .iter()
        .map(|&arg| if arg == "1,3" { "1,nan" } else { arg })
        .collect();
    refuse(&bench.root, &refused, &["guidance"]);
}
