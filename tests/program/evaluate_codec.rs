//! `vqdiffusion evaluate codec` and `likelihood` through the real binary, on the bundled model.

use serde_json::Value;
use tempfile::TempDir;
use vqdiffusion::metrics::ssim::{ssim, SsimWindow};
use vqdiffusion::picture::{psnr, read_picture};

use crate::evaluate_pictures::{dinov2_weights, folder, number};
use crate::running::{refuse, s, succeed};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/checkpoints/emoji.safetensors");

fn read(path: &std::path::Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a report")).expect("JSON")
}

#[test]
fn what_a_codec_loses() {
    let root = TempDir::new().expect("a temporary folder");
    let root = root.path();
    let real = folder(root, "real", 0..12);
    let weights = dinov2_weights(root);
    let out = root.join("codec.json");
    let args = [
        "evaluate",
        "codec",
        "--checkpoint",
        MODEL,
        "--data",
        s(&real),
    ];
    let more = ["--dinov2", s(&weights), "--no-cache", "--out", s(&out)];
    let printed = succeed(root, &[args.as_slice(), &more].concat());
    for word in ["pictures 12", "PSNR", "SSIM", "rFD-DINOv2", "codes used"] {
        assert!(printed.contains(word), "{word:?} not in {printed}");
    }
    let report = read(&out);

    // The same pictures through `reconstruct`, measured one by one and as a set.
    let names: Vec<_> = (0..12).map(|n| real.join(format!("{n:03}.png"))).collect();
    let mut args = vec!["reconstruct", "--checkpoint", MODEL, "--out", "coded"];
    args.extend(names.iter().map(|name| s(name)));
    succeed(root, &args);
    let pairs: Vec<_> = names
        .iter()
        .map(|name| {
            let coded = root.join("coded").join(name.file_name().expect("a name"));
            let read = |path| read_picture(path).unwrap_or_else(|e| panic!("{e}"));
            (read(name).cover(64, 64), read(&coded))
        })
        .collect();
    let mean = |of: &dyn Fn(&(_, _)) -> f64| pairs.iter().map(of).sum::<f64>() / 12.0;
    let expected = [
        ("/psnr", mean(&|(a, b)| psnr(a, b))),
        (
            "/ssim",
            mean(&|(a, b)| ssim(a, b, SsimWindow::Gaussian).expect("a value")),
        ),
        (
            "/ssim_uniform7",
            mean(&|(a, b)| ssim(a, b, SsimWindow::Uniform7).expect("a value")),
        ),
    ];
    for (path, value) in expected {
        assert!(
            (number(&report, path) - value).abs() < 1e-9,
            "{path} {value}"
        );
    }
    let again = root.join("pictures.json");
    let mut args = vec![
        "evaluate",
        "pictures",
        "--samples",
        "coded",
        "--references",
        s(&real),
    ];
    args.extend([
        "--crop",
        "64",
        "--dinov2",
        s(&weights),
        "--no-cache",
        "--out",
        s(&again),
    ]);
    succeed(root, &args);
    let (fd, coded) = (
        number(&read(&again), "/dinov2/fd"),
        number(&report, "/reconstructions/fd_dinov2"),
    );
    assert!((fd - coded).abs() < 1e-9 * fd, "{fd} {coded}");
    let half = number(&read(&again), "/controls/halves/fd_dinov2");
    assert!((half - number(&report, "/halves/fd_dinov2")).abs() < 1e-9 * half);
}

#[test]
fn the_bound_of_a_model() {
    let root = TempDir::new().expect("a temporary folder");
    let root = root.path();
    let real = folder(root, "real", 0..4);
    let list: String = (0..4)
        .map(|n| format!("{{\"file\": \"{n:03}.png\", \"captions\": [\"red heart\"]}}\n"))
        .collect();
    std::fs::write(real.join("captions.jsonl"), list).expect("a list");
    let out = root.join("likelihood.json");
    let args = [
        "evaluate",
        "likelihood",
        "--checkpoint",
        MODEL,
        "--data",
        s(&real),
    ];
    let more = ["--draws", "1", "--limit", "3", "--out", s(&out)];
    let args = [args.as_slice(), &more].concat();
    succeed(root, &args);
    let report = read(&out);
    assert_eq!(report["pictures"], 3);
    let bits = number(&report, "/bits_per_token");
    let parts: f64 = (0..4)
        .map(|q| number(&report, &format!("/quarters/{q}")))
        .sum();
    assert!((bits - parts - number(&report, "/prior")).abs() < 1e-9 * bits);
    // 256 tokens of 64 × 64 pixels of three channels.
    let dimension = number(&report, "/bits_per_dimension");
    assert!((dimension * 12288.0 - bits * 256.0).abs() < 1e-6 * bits);
    assert!(bits > 0.0);
    // The same draws in every run.
    succeed(root, &args);
    assert_eq!(read(&out), report);
    std::fs::remove_file(real.join("captions.jsonl")).expect("removed");
    refuse(root, &args, &[".png", "has no caption"]);
}
