//! `vqdiffusion evaluate pictures` through the real binary: small networks of random
//! weights, and figures that are known beforehand.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::{Kind, Tensor};
use tempfile::TempDir;
use vqdiffusion::metrics::networks::dinov2::{self, PositionTable};
use vqdiffusion::metrics::networks::Dinov2;
use vqdiffusion::metrics::preparation::DinoResize;
use vqdiffusion::picture::{write_png, Picture, Pillow};

use crate::drawn::drawn;
use crate::running::{refuse, s, succeed};

/// A picture of smooth waves, another for every `n`.
pub fn picture(n: usize, side: u32) -> Picture {
    let value = |x: u32, y: u32, c: u32| {
        let (x, y, n) = (f64::from(x), f64::from(y), n as f64);
        let wave = ((x * (1.0 + n % 5.0) + y * (n % 7.0)) * 0.11 + n + f64::from(c)).sin();
        (127.5 + 110.0 * wave) as u8
    };
    let pixels = (0..side).flat_map(|y| (0..side).map(move |x| (x, y)));
    Picture {
        width: side,
        height: side,
        rgb: pixels
            .flat_map(|(x, y)| [0, 1, 2].map(|c| value(x, y, c)))
            .collect(),
    }
}

/// A folder of the pictures `numbers`, in that order.
pub fn folder(root: &Path, name: &str, numbers: impl IntoIterator<Item = usize>) -> PathBuf {
    let folder = root.join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    for (place, n) in numbers.into_iter().enumerate() {
        let path = folder.join(format!("{place:03}.png"));
        write_png(&path, &picture(n, 32), &[]).expect("a PNG");
    }
    folder
}

fn random(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Float, tch::Device::Cpu)) * 0.2
}

/// Weights of a DINOv2 of width 64 and one block, under facebook's names.
pub fn dinov2_weights(root: &Path) -> PathBuf {
    let tensors = drawn(1, dinov2_tensors);
    save(root.join("dinov2.safetensors"), &tensors)
}

fn dinov2_tensors() -> Vec<(String, Tensor)> {
    let mut tensors = vec![
        ("cls_token".to_string(), random(&[1, 1, 64])),
        ("mask_token".into(), random(&[1, 64])),
        ("pos_embed".into(), random(&[1, 1 + 256, 64])),
        ("patch_embed.proj.weight".into(), random(&[64, 3, 14, 14])),
        ("patch_embed.proj.bias".into(), random(&[64])),
    ];
    let block: [(&str, &[i64]); 14] = [
        ("norm1.weight", &[64]),
        ("norm1.bias", &[64]),
        ("attn.qkv.weight", &[192, 64]),
        ("attn.qkv.bias", &[192]),
        ("attn.proj.weight", &[64, 64]),
        ("attn.proj.bias", &[64]),
        ("ls1.gamma", &[64]),
        ("norm2.weight", &[64]),
        ("norm2.bias", &[64]),
        ("mlp.fc1.weight", &[128, 64]),
        ("mlp.fc1.bias", &[128]),
        ("mlp.fc2.weight", &[64, 128]),
        ("mlp.fc2.bias", &[64]),
        ("ls2.gamma", &[64]),
    ];
    tensors.extend(block.map(|(name, shape)| (format!("blocks.0.{name}"), random(shape))));
    tensors.push(("norm.weight".into(), random(&[64])));
    tensors.push(("norm.bias".into(), random(&[64])));
    tensors
}

/// Weights of a CLIP with one block a tower, under OpenAI's names.
pub fn clip_weights(root: &Path) -> PathBuf {
    let tensors = drawn(2, clip_tensors);
    save(root.join("clip.safetensors"), &tensors)
}

fn clip_tensors() -> Vec<(String, Tensor)> {
    let mut tensors = vec![
        ("visual.class_embedding".to_string(), random(&[64])),
        ("visual.conv1.weight".into(), random(&[64, 3, 32, 32])),
        ("visual.positional_embedding".into(), random(&[1 + 9, 64])),
        ("visual.proj".into(), random(&[64, 16])),
        ("token_embedding.weight".into(), random(&[49408, 64])),
        ("positional_embedding".into(), random(&[77, 64])),
        ("text_projection".into(), random(&[64, 16])),
        ("logit_scale".into(), Tensor::from(4.0f32)),
    ];
    for norm in ["visual.ln_pre", "visual.ln_post", "ln_final"] {
        for part in ["weight", "bias"] {
            tensors.push((format!("{norm}.{part}"), random(&[64])));
        }
    }
    let block: [(&str, &[i64]); 12] = [
        ("ln_1.weight", &[64]),
        ("ln_1.bias", &[64]),
        ("attn.in_proj_weight", &[192, 64]),
        ("attn.in_proj_bias", &[192]),
        ("attn.out_proj.weight", &[64, 64]),
        ("attn.out_proj.bias", &[64]),
        ("ln_2.weight", &[64]),
        ("ln_2.bias", &[64]),
        ("mlp.c_fc.weight", &[128, 64]),
        ("mlp.c_fc.bias", &[128]),
        ("mlp.c_proj.weight", &[64, 128]),
        ("mlp.c_proj.bias", &[64]),
    ];
    for tower in ["visual.transformer", "transformer"] {
        for (name, shape) in block {
            tensors.push((format!("{tower}.resblocks.0.{name}"), random(shape)));
        }
    }
    tensors
}

/// FID's Inception with random weights of the listed names and shapes.
pub fn inception_weights(root: &Path) -> PathBuf {
    let tensors = drawn(3, inception_tensors);
    save(root.join("inception.safetensors"), &tensors)
}

fn inception_tensors() -> Vec<(String, Tensor)> {
    let path = crate::running::fixture("metrics").join("reference.json");
    let text = std::fs::read_to_string(path).expect("the recorded case");
    let list: Value = serde_json::from_str(&text).expect("JSON");
    let list = &list["meta"]["inception_formula"]["parameters"];
    list.as_array()
        .expect("a list")
        .iter()
        .map(|item| {
            let shape: Vec<i64> = serde_json::from_value(item["shape"].clone()).expect("a shape");
            let fan_in = shape.iter().skip(1).product::<i64>() as f64;
            let noise = Tensor::randn(&shape, (Kind::Float, tch::Device::Cpu));
            let value = match item["kind"].as_str().expect("a kind") {
                "conv" => noise * (2.0 / fan_in).sqrt(),
                "gain" | "var" => noise.abs() * 0.1 + 1.0,
                _ => noise * 0.1,
            };
            (item["name"].as_str().expect("a name").to_string(), value)
        })
        .collect()
}

fn save(path: PathBuf, tensors: &[(String, Tensor)]) -> PathBuf {
    Tensor::write_safetensors(tensors, &path).expect("a safetensors file");
    path
}

/// Runs the command and reads its report.
fn measure(root: &Path, samples: &Path, references: &Path, more: &[&str]) -> Value {
    let cache = root.join("cache");
    let report = root.join("report.json");
    let mut args = vec!["evaluate", "pictures", "--samples", s(samples)];
    args.extend(["--references", s(references), "--out", s(&report)]);
    args.extend(["--cache", s(&cache)]);
    args.extend(more);
    succeed(root, &args);
    let text = std::fs::read_to_string(report).expect("a report");
    serde_json::from_str(&text).expect("JSON")
}

pub fn number(report: &Value, path: &str) -> f64 {
    let found = report.pointer(path).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("no number {path} in {report:#}"))
}

/// |μ_a − μ_b|² + tr(Σ_a + Σ_b) − 2 Σ √λ(Σ_a Σ_b), the eigenvalues by a general solver.
fn fd(a: &Tensor, b: &Tensor) -> f64 {
    let of = |x: &Tensor| {
        let x = x.to_kind(Kind::Double);
        let mean = x.mean_dim(Some([0i64].as_slice()), false, Kind::Double);
        (x.tr().cov(1, None::<Tensor>, None::<Tensor>), mean)
    };
    let ((cov_a, mean_a), (cov_b, mean_b)) = (of(a), of(b));
    let roots = cov_a
        .matmul(&cov_b)
        .linalg_eigvals()
        .real()
        .clamp_min(0.0)
        .sqrt();
    let gap = (mean_a - mean_b).square().sum(Kind::Double);
    (gap + cov_a.trace() + cov_b.trace() - roots.sum(Kind::Double) * 2.0).double_value(&[])
}

#[test]
fn figures_of_small_networks() {
    let root = TempDir::new().expect("a temporary folder");
    let root = root.path();
    let made = folder(root, "made", 0..90);
    let real = folder(root, "real", 40..140);
    let (dino, clip) = (dinov2_weights(root), clip_weights(root));
    let networks = ["--dinov2", s(&dino), "--clip", s(&clip)];
    let report = measure(root, &made, &real, &networks);

    // The same features, and the distance by another formula.
    let network = Dinov2::load(&dino, PositionTable::Hub, tch::Device::Cpu);
    let network = network.expect("the network").network;
    let features = |numbers: std::ops::Range<usize>| {
        let images = numbers
            .map(|n| DinoResize::Pil.prepare(&picture(n, 32), dinov2::SIDE, Pillow::Since13));
        network.forward(&Tensor::stack(&images.collect::<Vec<_>>(), 0))
    };
    let expected = fd(&features(0..90), &features(40..140));
    let found = number(&report, "/dinov2/fd");
    assert!(
        (found - expected).abs() < 1e-4 * expected,
        "{found} {expected}"
    );
    assert!(number(&report, "/dinov2/fd_infinity").is_finite());
    assert!(number(&report, "/controls/halves/fd_dinov2") >= 0.0);
    assert_eq!(number(&report, "/controls/halves/pictures"), 50.0);
    assert!(number(&report, "/clip/cmmd") > 0.0);
    assert!(report["clip"]["captions"].is_null());

    // What is kept is used: nothing is added, and the figures stay.
    let kept = |folder: &Path| {
        let sizes = std::fs::read_dir(folder).expect("a cache").map(|entry| {
            let entry = entry.expect("an entry");
            (entry.file_name(), entry.metadata().expect("a size").len())
        });
        let mut sizes: Vec<_> = sizes.collect();
        sizes.sort();
        sizes
    };
    let cache = root.join("cache");
    let sizes = kept(&cache);
    // 140 pictures in all, 50 of them in both sets.
    let lengths: Vec<u64> = sizes.iter().map(|(_, length)| *length).collect();
    let record = |width: u64| 64 + 140 * (32 + 4 * width + 4);
    assert_eq!(
        lengths.iter().collect::<std::collections::BTreeSet<_>>(),
        [record(64), record(16)].iter().collect()
    );
    assert_eq!(measure(root, &made, &real, &networks), report);
    assert_eq!(kept(&cache), sizes);

    let near = |other: &Value| {
        // Counts may change here: sets that share pictures have distances that tie.
        for path in ["/dinov2/fd", "/clip/cmmd"] {
            let (a, b) = (number(&report, path), number(other, path));
            assert!((a - b).abs() < 1e-4 * a.abs(), "{path}: {a} {b}");
        }
    };
    // A damaged record and a torn one are made again (in smaller batches, which round
    // otherwise).
    for (name, _) in &sizes {
        let path = cache.join(name);
        let mut bytes = std::fs::read(&path).expect("a file");
        bytes[64 + 40] ^= 1;
        let torn = bytes.len() - 7;
        std::fs::write(&path, &bytes[..torn]).expect("a file");
    }
    near(&measure(root, &made, &real, &networks));

    // Neither the order nor the form of a set matters.
    std::fs::remove_dir_all(&cache).expect("a cache");
    near(&measure(
        root,
        &folder(root, "turned", (0..90).rev()),
        &real,
        &networks,
    ));
    std::fs::remove_dir_all(&cache).expect("a cache");
    for packed in [zip(root, &made), npz(root, 0..90)] {
        let other = measure(root, &packed, &real, &networks);
        for part in ["dinov2", "clip", "controls"] {
            assert_eq!(other[part], report[part], "{}", packed.display());
        }
        assert_eq!(other["samples"]["sha256"], report["samples"]["sha256"]);
    }

    // Against itself.
    let own = measure(
        root,
        &real,
        &real,
        &[
            "--dinov2",
            s(&dino),
            "--clip",
            s(&clip),
            "--train",
            s(&real),
        ],
    );
    assert!(number(&own, "/dinov2/fd").abs() < 1e-6 * expected.max(1.0));
    assert_eq!(number(&own, "/dinov2/precision"), 1.0);
    assert_eq!(number(&own, "/dinov2/recall"), 1.0);
    assert_eq!(number(&own, "/dinov2/coverage"), 1.0);
    assert!(number(&own, "/clip/cmmd").abs() < 1e-9);
    assert_eq!(number(&own, "/memorisation/authpct"), 0.0);
    let copy = &own["memorisation"]["nearest"][0];
    assert_eq!(copy["generated"], copy["training"]);
}

/// Where no picture is in two sets no distances tie, and what counts pictures by them is the
/// same to the last digit, in any order.
#[test]
fn counts_do_not_depend_on_the_order() {
    let root = TempDir::new().expect("a temporary folder");
    let root = root.path();
    let dino = dinov2_weights(root);
    let network = ["--dinov2", s(&dino)];
    let of = |name: &str, made: &[usize], real: &[usize]| {
        let samples = folder(root, &format!("{name}-made"), made.iter().copied());
        let references = folder(root, &format!("{name}-real"), real.iter().copied());
        let report = measure(root, &samples, &references, &network);
        std::fs::remove_dir_all(root.join("cache")).expect("a cache");
        report
    };
    let mut made: Vec<usize> = (0..40).collect();
    let mut real: Vec<usize> = (40..90).collect();
    let report = of("first", &made, &real);
    made.reverse();
    real.rotate_left(17);
    let other = of("turned", &made, &real);
    for figure in ["precision", "recall", "density", "coverage"] {
        let path = format!("/dinov2/{figure}");
        let found = number(&report, &path);
        assert_eq!(number(&other, &path), found, "{figure}");
        // Neither nothing nor everything is counted, but that every real picture is covered.
        let all = figure == "coverage";
        assert!(found > 0.0 && (all || found != 1.0), "{figure} {found}");
    }
    let (a, b) = (number(&report, "/dinov2/fd"), number(&other, "/dinov2/fd"));
    assert!((a - b).abs() < 1e-6 * a, "{a} {b}");
}

fn zip(root: &Path, folder: &Path) -> PathBuf {
    let path = root.join("made.zip");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).expect("a file"));
    for name in crate::running::files(folder) {
        let options = zip::write::SimpleFileOptions::default();
        zip.start_file(name.as_str(), options).expect("an entry");
        let bytes = std::fs::read(folder.join(name)).expect("a picture");
        zip.write_all(&bytes).expect("an entry");
    }
    zip.finish().expect("an archive");
    path
}

/// The pictures as ADM's evaluator takes them.
fn npz(root: &Path, numbers: std::ops::Range<usize>) -> PathBuf {
    let path = root.join("made.npz");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).expect("a file"));
    let options = zip::write::SimpleFileOptions::default();
    zip.start_file("arr_0.npy", options).expect("an entry");
    let shape = format!("({}, 32, 32, 3)", numbers.len());
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((118u16).to_le_bytes());
    bytes.extend(format!("{header:<117}\n").bytes());
    zip.write_all(&bytes).expect("a header");
    for n in numbers {
        zip.write_all(&picture(n, 32).rgb).expect("pixels");
    }
    zip.finish().expect("an archive");
    path
}

#[test]
fn captions_and_their_control() {
    let root = TempDir::new().expect("a temporary folder");
    let root = root.path();
    let made = folder(root, "made", 0..12);
    let line =
        |n: usize| format!("{{\"file\": \"{n:03}.png\", \"captions\": [\"wave {n}\", \"x\"]}}\n");
    let list: String = (0..12).map(line).collect();
    std::fs::write(made.join("captions.jsonl"), &list).expect("a list");
    let clip = clip_weights(root);
    let report = measure(root, &made, &made, &["--clip", s(&clip)]);
    let cosine = number(&report, "/clip/captions/cosine");
    assert!(cosine.abs() < 1.0);
    let scaled = number(&report, "/clip/captions/scaled");
    assert!((scaled - 4f64.exp() * cosine).abs() < 1e-6);
    let other = number(&report, "/controls/shuffled_captions/cosine");
    assert_ne!(cosine, other);

    let report = root.join("report.json");
    let missing = root.join("few.jsonl");
    std::fs::write(&missing, line(0)).expect("a list");
    let args = |captions: &Path| {
        let args = [
            "evaluate",
            "pictures",
            "--samples",
            s(&made),
            "--references",
            s(&made),
        ];
        let more = [
            "--clip",
            s(&clip),
            "--no-cache",
            "--out",
            s(&report),
            "--captions",
        ];
        let all = args.iter().chain(&more).map(|arg| arg.to_string());
        all.chain([s(captions).to_string()]).collect::<Vec<_>>()
    };
    let refused = |captions: &Path, words: &[&str]| {
        let args = args(captions);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        refuse(root, &args, words);
    };
    refused(&missing, &["few.jsonl", "001.png"]);
    std::fs::write(&missing, "{}\n").expect("a list");
    refused(&missing, &["few.jsonl", "line 1"]);
}

#[test]
fn inception_and_its_statistics() {
    let root = TempDir::new().expect("a temporary folder");
    let root = root.path();
    let made = folder(root, "made", 0..12);
    let real = folder(root, "real", 6..18);
    let weights = inception_weights(root);
    let statistics = root.join("real.npz");
    let network = ["--inception", s(&weights), "--inception-resize", "adm"];
    let write = [network.as_slice(), &["--write-statistics", s(&statistics)]].concat();
    let report = measure(root, &made, &real, &write);
    let inception = &report["inception"];
    for figure in ["fd", "sfid", "fd_infinity"] {
        assert!(
            inception[figure].as_f64().is_some_and(f64::is_finite),
            "{report:#}"
        );
    }
    assert!(number(&report, "/inception/inception_score/mean") >= 1.0);
    assert!(number(&report, "/inception/kid/mean").is_finite());

    // The file stands for the pictures, where a Gaussian is enough.
    let other = measure(root, &made, &statistics, &network);
    for path in ["/inception/fd", "/inception/sfid"] {
        let (a, b) = (number(&report, path), number(&other, path));
        assert!((a - b).abs() < 1e-5 * a, "{path}: {a} {b}");
    }
    assert!(other["inception"]["kid"].is_null());
    assert!(other["controls"].get("halves").is_none());

    // No other network can use them, and no other network is Inception.
    let dino = dinov2_weights(root);
    let report = root.join("refused.json");
    let common = [
        "evaluate",
        "pictures",
        "--samples",
        s(&made),
        "--no-cache",
        "--out",
        s(&report),
    ];
    let args = ["--references", s(&statistics), "--dinov2", s(&dino)];
    refuse(
        root,
        &[common.as_slice(), &args].concat(),
        &["real.npz", "statistics"],
    );
    let args = ["--references", s(&real), "--inception", s(&dino)];
    refuse(
        root,
        &[common.as_slice(), &args].concat(),
        &["dinov2.safetensors", "Inception"],
    );
    let args = ["--references", s(&real), "--dinov2", s(&weights)];
    refuse(
        root,
        &[common.as_slice(), &args].concat(),
        &["inception.safetensors", "DINOv2"],
    );
    assert!(!report.exists());
}

#[test]
fn sets_that_cannot_be_measured() {
    let root = TempDir::new().expect("a temporary folder");
    let root = root.path();
    let real = folder(root, "real", 0..12);
    let dino = dinov2_weights(root);
    let report = root.join("report.json");
    let refused = |samples: &Path, words: &[&str]| {
        let mut args = vec!["evaluate", "pictures", "--samples", s(samples)];
        args.extend(["--references", s(&real), "--dinov2", s(&dino)]);
        args.extend(["--no-cache", "--out", s(&report)]);
        refuse(root, &args, words);
        assert!(!report.exists());
    };
    refused(&root.join("nowhere"), &["nowhere"]);
    refused(&folder(root, "none", 0..0), &["none", "no PNG or JPEG"]);
    refused(&folder(root, "few", 0..9), &["few", "9 pictures", "10"]);

    let mixed = folder(root, "mixed", 0..12);
    write_png(&mixed.join("005.png"), &picture(5, 48), &[]).expect("a PNG");
    refused(&mixed, &["mixed", "005.png", "48", "--crop"]);
    let out = root.join("cropped.json");
    let mut args = vec![
        "evaluate",
        "pictures",
        "--samples",
        s(&mixed),
        "--crop",
        "24",
    ];
    args.extend(["--references", s(&real), "--dinov2", s(&dino)]);
    args.extend(["--no-cache", "--out", s(&out)]);
    succeed(root, &args);

    let torn = folder(root, "torn", 0..12);
    let bytes = std::fs::read(torn.join("007.png")).expect("a PNG");
    std::fs::write(torn.join("007.png"), &bytes[..bytes.len() / 2]).expect("a file");
    refused(&torn, &["007.png"]);

    std::fs::write(root.join("noise.zip"), b"no archive").expect("a file");
    refused(&root.join("noise.zip"), &["noise.zip"]);
    let mut short = std::fs::read(npz(root, 0..12)).expect("an archive");
    short.truncate(short.len() / 2);
    std::fs::write(root.join("short.npz"), short).expect("a file");
    refused(&root.join("short.npz"), &["short.npz"]);

    let args = [
        "evaluate",
        "pictures",
        "--samples",
        s(&real),
        "--references",
        s(&real),
    ];
    let args = [args.as_slice(), &["--out", s(&report)]].concat();
    refuse(root, &args, &["--inception", "--dinov2", "--clip"]);
}
