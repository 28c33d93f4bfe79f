//! The bundled model through the real binary: it samples what it is asked for, says where it
//! comes from, and goes through both foreign layouts and back.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::running::{files, refuse, s, succeed};

fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints/emoji.safetensors")
}

/// The only picture that sampling `prompt` from `model` gives.
fn sample(folder: &Path, model: &Path, prompt: &str, out: &str) -> image::RgbImage {
    let arguments = ["sample", "--checkpoint", s(model), "--out", out, prompt];
    succeed(folder, &arguments);
    let names = files(&folder.join(out));
    let picture = names.iter().find(|name| name.ends_with(".png"));
    let picture = image::open(folder.join(out).join(picture.expect("a picture")));
    picture.expect("a picture").into_rgb8()
}

/// Mean of the pixels that are not nearly white.
fn ink(picture: &image::RgbImage) -> [f64; 3] {
    let inked = picture.pixels().filter(|p| p.0.iter().any(|&c| c < 230));
    let inked: Vec<[u8; 3]> = inked.map(|p| p.0).collect();
    [0, 1, 2].map(|c| inked.iter().map(|p| f64::from(p[c])).sum::<f64>() / inked.len() as f64)
}

#[test]
fn pictures_have_the_colours_asked_for() {
    let folder = TempDir::new().expect("a temporary folder");
    let here = folder.path();
    let red = sample(here, &bundled(), "red heart, noto style", "red");
    assert_eq!(red.dimensions(), (64, 64));
    let [r, g, b] = ink(&red);
    assert!(r > g + 50.0 && r > b + 50.0, "{r} {g} {b}");
    let [r, g, b] = ink(&sample(here, &bundled(), "blue circle, noto style", "blue"));
    assert!(b > r + 50.0 && b > g + 20.0, "{r} {g} {b}");
    let [r, g, b] = ink(&sample(here, &bundled(), "green apple", "green"));
    assert!(g > r + 20.0 && g > b + 20.0, "{r} {g} {b}");
}

/// Blue, white and red from left to right.
#[test]
fn a_flag_has_its_parts() {
    let folder = TempDir::new().expect("a temporary folder");
    let prompt = "flag of france, noto style";
    let flag = sample(folder.path(), &bundled(), prompt, "flag");
    let part = |left: u32| {
        let pixels = (left..left + 10).flat_map(|x| (24..40).map(move |y| (x, y)));
        let mut sums = [0.0; 3];
        for (x, y) in pixels {
            let pixel = flag.get_pixel(x, y).0;
            (0..3).for_each(|c| sums[c] += f64::from(pixel[c]) / 160.0);
        }
        sums
    };
    let [[r, _, b], white, [red, _, blue]] = [6, 27, 48].map(part);
    assert!(b > r + 80.0, "left: {r} {b}");
    assert!(white.iter().all(|&c| c > 220.0), "middle: {white:?}");
    assert!(red > blue + 80.0, "right: {red} {blue}");
}

#[test]
fn the_file_says_what_it_is_made_from() {
    let folder = TempDir::new().expect("a temporary folder");
    let said = succeed(folder.path(), &["inspect", s(&bundled())]);
    for word in ["Apache License", "CC-BY 4.0", "Microsoft", "Miles Johnson"] {
        assert!(said.contains(word), "{word:?} not in {said}");
    }
    let size = std::fs::metadata(bundled()).expect("a file").len();
    assert!(size <= 14_000_000, "{size} bytes");
}

#[test]
fn both_foreign_layouts_hold_it() {
    let folder = TempDir::new().expect("a temporary folder");
    let here = folder.path();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = root.join("configs/emoji.yaml");
    succeed(here, &["convert", s(&bundled()), "e.pth"]);
    let back = ["convert", "e.pth", "back.safetensors", "--config"];
    succeed(here, &[&back[..], &[s(&config)]].concat());
    succeed(here, &["convert", s(&bundled()), "e", "--to", "diffusers"]);
    let prompt = "red heart, noto style";
    let expected = sample(here, &bundled(), prompt, "own");
    let official = sample(here, &here.join("back.safetensors"), prompt, "official");
    assert!(official == expected, "the official layout changed it");
    let notice = std::fs::read_to_string(here.join("e/NOTICE")).expect("a notice");
    assert!(notice.contains("Twemoji"), "{notice}");
    succeed(
        here,
        &["convert", "e", "e.safetensors", "--config", s(&config)],
    );
    let diffusers = sample(here, &here.join("e.safetensors"), prompt, "diffusers");
    assert!(diffusers == expected, "the diffusers layout changed it");
    // Without its rules for words an official file is not taken for CLIP's.
    std::fs::remove_file(here.join("bpe_vocab_2048.txt.gz")).expect("a file");
    refuse(
        here,
        &["inspect", "e.pth", "--config", s(&config)],
        &["merges"],
    );
}
