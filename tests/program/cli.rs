//! The real binary, in temporary folders: sampling, repeating, inspecting,
//! converting, and every kind of bad input.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::SafeTensors;
use tempfile::TempDir;

use crate::running::{changed, files, fixture, native_model, refuse, s, sample, succeed, text};

#[test]
fn official_checkpoint_to_pictures() {
    let folder = TempDir::new().unwrap();
    let case = fixture("text_tiny");
    let out = succeed(
        folder.path(),
        &[
            "sample",
            "--checkpoint",
            s(&case.join("last.pth")),
            "--config",
            s(&case.join("config.yaml")),
            "--count",
            "2",
            "--steps",
            "7",
            "--seed",
            "40",
            "--grid",
            "--animate",
            "--out",
            "pictures",
            "A Red Fox!",
            "a dog",
        ],
    );
    let expected = [
        "40-a-red-fox.gif",
        "40-a-red-fox.png",
        "41-a-red-fox.gif",
        "41-a-red-fox.png",
        "42-a-dog.gif",
        "42-a-dog.png",
        "43-a-dog.gif",
        "43-a-dog.png",
        "grid.png",
    ];
    assert_eq!(files(&folder.path().join("pictures")), expected);
    assert_eq!(out.lines().count(), 5, "one line a PNG: {out}");
    let picture = image::open(folder.path().join("pictures/41-a-red-fox.png")).unwrap();
    assert_eq!((picture.width(), picture.height()), (64, 64));
    let grid = image::open(folder.path().join("pictures/grid.png")).unwrap();
    // Two by two, twice as large, with a gap and a line of text below each row.
    assert_eq!(
        (grid.width(), grid.height()),
        (2 * 128 + 2, 2 * (128 + 16 + 6) + 6)
    );
    let grid = grid.to_rgb8();
    for (i, name) in expected[..8]
        .iter()
        .filter(|n| n.ends_with("png"))
        .enumerate()
    {
        let (left, top) = (i as u32 % 2 * 130, i as u32 / 2 * 156);
        let made = image::open(folder.path().join("pictures").join(name)).unwrap();
        for (x, y, pixel) in made.to_rgb8().enumerate_pixels() {
            for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                let found = grid.get_pixel(left + 2 * x + dx, top + 2 * y + dy);
                assert_eq!(found, pixel, "{name} at {x}, {y}");
            }
        }
    }
    let ink = |top: u32| {
        let band = image::imageops::crop_imm(&grid, 0, top, 258, 22).to_image();
        let dark = band.enumerate_pixels().filter(|(_, _, p)| p.0[0] < 128);
        let columns: Vec<u32> = dark.map(|(x, _, _)| x).collect();
        columns.iter().max().unwrap() - columns.iter().min().unwrap()
    };
    // Letters of 7 pixels: 10 of the one label and 5 of the other.
    assert!(ink(128).abs_diff(10 * 7) < 8 && ink(156 + 128).abs_diff(5 * 7) < 8);
}

#[test]
fn a_picture_does_not_depend_on_its_batch() {
    let (folder, model) = native_model();
    let sample = |out: &str, batch: &str, seed: &str, prompts: &[&str]| {
        let mut args = vec![
            "sample",
            "--checkpoint",
            s(&model),
            "--steps",
            "9",
            "--guidance",
            "3",
            "--out",
            out,
            "--batch-size",
            batch,
            "--seed",
            seed,
        ];
        args.extend(prompts);
        succeed(folder.path(), &args);
    };
    sample("together", "3", "5", &["a cat", "a dog", "a cat"]);
    sample("alone", "1", "5", &["a cat", "a dog", "a cat"]);
    sample("single", "1", "7", &["a cat"]);
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    for name in ["5-a-cat.png", "6-a-dog.png", "7-a-cat.png"] {
        assert_eq!(
            read(&format!("together/{name}")),
            read(&format!("alone/{name}")),
            "{name}"
        );
    }
    assert_eq!(read("together/7-a-cat.png"), read("single/7-a-cat.png"));
    assert_ne!(read("together/5-a-cat.png"), read("together/7-a-cat.png"));
}

#[test]
fn a_png_repeats_itself() {
    let (folder, model) = native_model();
    let cases: [&[&str]; 7] = [
        &["--steps", "6", "--guidance", "2.5", "--truncation", "0.7"],
        &["--steps", "6", "--times", "cosine"],
        &[
            "--steps",
            "9",
            "--guidance",
            "3",
            "--guidance-span",
            "0.2..0.9",
        ],
        &["--steps", "5", "--top-k", "4"],
        &["--steps", "10", "--purity", "1.5", "--tokens-per-step", "4"],
        &["--compat", "official", "--steps", "34", "--guidance", "3"],
        &["--compat", "diffusers", "--steps", "6"],
    ];
    for (i, options) in cases.iter().enumerate() {
        let (out, again) = (format!("first{i}"), format!("again{i}"));
        let mut args = vec![
            "sample",
            "--checkpoint",
            s(&model),
            "--out",
            &out,
            "--seed",
            "3",
        ];
        args.extend(*options);
        args.push("naïve “quotes” & \n newline");
        succeed(folder.path(), &args);
        let name = "3-naïve-quotes-newline.png";
        let png = folder.path().join(&out).join(name);
        sample(
            folder.path(),
            &model,
            &["--from-image", s(&png), "--out", &again],
        );
        let repeated = folder.path().join(&again).join(name);
        assert_eq!(
            std::fs::read(&png).unwrap(),
            std::fs::read(repeated).unwrap(),
            "{options:?}"
        );
    }
}

/// A PNG says the times that were visited, and those are visited again; one of an earlier
/// version says none, and its options settle them.
#[test]
fn a_png_records_its_plan() {
    use vqdiffusion::picture::{read_picture, read_png_texts, write_png};
    let (folder, model) = native_model();
    let at = |name: &str| folder.path().join(name);
    let sample = |more: &[&str]| {
        let args = ["sample", "--checkpoint", s(&model)];
        succeed(folder.path(), &[&args[..], more].concat())
    };
    sample(&["--steps", "6", "--seed", "2", "--out", "even", "x"]);
    sample(&[
        "--steps", "6", "--seed", "2", "--times", "cosine", "--out", "cosine", "x",
    ]);
    let settings = |png: &Path| -> serde_json::Value {
        let texts = read_png_texts(png).unwrap();
        let found = texts.iter().find(|(key, _)| key == "vqdiffusion");
        serde_json::from_str(&found.unwrap().1).unwrap()
    };
    // T = 100, 1 - a falls linearly from 1: 100 (6 - i) / 6 and 99 cos(πi/12).
    let even = settings(&at("even/2-x.png"));
    assert_eq!(even["plan"], serde_json::json!([99, 83, 66, 49, 33, 16]));
    let cosine = settings(&at("cosine/2-x.png"));
    assert_eq!(cosine["plan"], serde_json::json!([99, 96, 86, 70, 49, 26]));
    assert_eq!(cosine["sampler"]["times"], "cosine");
    let pixels = |png: &Path| read_picture(png).unwrap().rgb;
    assert_ne!(pixels(&at("even/2-x.png")), pixels(&at("cosine/2-x.png")));

    let repeated = |from: &str, name: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let (png, mut settings) = (at(from), settings(&at(from)));
        change(&mut settings);
        let texts = read_png_texts(&png).unwrap();
        let texts: Vec<(&str, String)> = texts
            .iter()
            .map(|(key, text)| match key.as_str() {
                "vqdiffusion" => (key.as_str(), settings.to_string()),
                key => (key, text.clone()),
            })
            .collect();
        let changed = at(&format!("{name}.png"));
        write_png(&changed, &read_picture(&png).unwrap(), &texts).unwrap();
        sample(&["--from-image", s(&changed), "--out", name]);
        pixels(&at(&format!("{name}/2-x.png")))
    };
    let old = repeated("even/2-x.png", "old", &|settings| {
        settings.as_object_mut().unwrap().remove("plan");
        settings["sampler"].as_object_mut().unwrap().remove("times");
    });
    assert_eq!(old, pixels(&at("even/2-x.png")));
    // The plan is what counts, not the rule that it came from.
    let other = repeated("even/2-x.png", "other", &|settings| {
        settings["plan"] = cosine["plan"].clone();
    });
    assert_eq!(other, pixels(&at("cosine/2-x.png")));
    let wrong = at("wrong.png");
    let texts = read_png_texts(&at("even/2-x.png")).unwrap();
    let plan = texts.iter().filter(|(_, text)| text.contains("[99,"));
    assert_eq!(plan.count(), 1);
    let texts: Vec<(&str, String)> = texts
        .iter()
        .map(|(key, text)| (key.as_str(), text.replace("[99,", "[100,")))
        .collect();
    write_png(&wrong, &read_picture(&at("even/2-x.png")).unwrap(), &texts).unwrap();
    let args = [
        "sample",
        "--checkpoint",
        s(&model),
        "--from-image",
        "wrong.png",
    ];
    refuse(folder.path(), &args, &["plan is [100,", "falling times"]);
}

#[test]
fn times_and_spans_are_refused_by_name() {
    let (folder, model) = native_model();
    for (options, words) in [
        (
            &["--times", "uneven"][..],
            &["--times", "even", "cosine"][..],
        ),
        (&["--guidance-span", "0.5"], &["--guidance-span", "A..B"]),
        (
            &["--guidance-span", "0.9..0.5"],
            &["span", "0.9..0.5", "two shares"],
        ),
        (&["--guidance-span", "0..1.5"], &["span", "0..1.5"]),
        (
            &["--compat", "official", "--times", "cosine"],
            &["times", "cosine", "exact rule"],
        ),
        (
            &["--compat", "diffusers", "--guidance-span", "0..0.5"],
            &["span", "0..0.5", "exact rule"],
        ),
    ] {
        let args = ["sample", "--checkpoint", s(&model), "--out", "no"];
        refuse(folder.path(), &[&args[..], options, &["x"]].concat(), words);
    }
}

#[test]
fn a_png_is_not_repeated_with_another_model() {
    let (folder, model) = native_model();
    sample(folder.path(), &model, &["--steps", "2", "--out", "a", "x"]);
    let case = fixture("text_tiny");
    refuse(
        folder.path(),
        &[
            "sample",
            "--checkpoint",
            s(&case.join("last.pth")),
            "--config",
            s(&case.join("config.yaml")),
            "--weights",
            "model",
            "--from-image",
            "a/0-x.png",
            "--out",
            "b",
        ],
        &["a/0-x.png", "made with a model of SHA-256"],
    );
    assert!(!folder.path().join("b/0-x.png").exists());
}

#[test]
fn a_png_holds_no_path_and_no_batch_size() {
    let (folder, model) = native_model();
    sample(
        folder.path(),
        &model,
        &["--steps", "2", "--batch-size", "77", "--out", "a", "x"],
    );
    let png = folder.path().join("a/0-x.png");
    let texts = vqdiffusion::picture::read_png_texts(&png).unwrap();
    let keywords: Vec<&str> = texts.iter().map(|(k, _)| k.as_str()).collect();
    assert_eq!(keywords, ["prompt", "seed", "vqdiffusion", "model-sha256"]);
    for (keyword, value) in &texts[..3] {
        for forbidden in [s(folder.path()), "model.safetensors", "batch", "77"] {
            assert!(!value.contains(forbidden), "{keyword}: {value}");
        }
    }
}

#[test]
fn prompts_come_from_a_file_too() {
    let (folder, model) = native_model();
    std::fs::write(folder.path().join("prompts.txt"), "a cat\n\n  \na bird\n").unwrap();
    let out = sample(
        folder.path(),
        &model,
        &["--steps", "2", "--prompts", "prompts.txt"],
    );
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines, ["outputs/0-a-cat.png", "outputs/1-a-bird.png"]);
    std::fs::write(folder.path().join("none.txt"), "\n\n").unwrap();
    refuse(
        folder.path(),
        &["sample", "--checkpoint", s(&model), "--prompts", "none.txt"],
        &["none.txt", "no prompt"],
    );
    refuse(
        folder.path(),
        &[
            "sample",
            "--checkpoint",
            s(&model),
            "--prompts",
            "absent.txt",
        ],
        &["absent.txt"],
    );
}

#[test]
fn conversion_keeps_every_number() {
    let (folder, model) = native_model();
    let case = fixture("text_tiny");
    let (official, config) = (case.join("last.pth"), case.join("config.yaml"));
    succeed(
        folder.path(),
        &[
            "sample",
            "--checkpoint",
            s(&official),
            "--config",
            s(&config),
            "--steps",
            "5",
            "--out",
            "a",
            "x",
        ],
    );
    sample(folder.path(), &model, &["--steps", "5", "--out", "b", "x"]);
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    // Text chunks hold the hash of the weights: equal bytes mean equal weights.
    assert_eq!(read("a/0-x.png"), read("b/0-x.png"));

    let again = folder.path().join("again.safetensors");
    succeed(folder.path(), &["convert", s(&model), s(&again)]);
    assert_eq!(read("model.safetensors"), read("again.safetensors"));
    refuse(
        folder.path(),
        &["convert", s(&model), s(&again)],
        &["again.safetensors", "exists already"],
    );
    refuse(
        folder.path(),
        &["convert", s(&model), "x.bin"],
        &["x.bin", ".safetensors"],
    );
}

#[test]
fn inspection_tells_what_a_file_is() {
    let (folder, model) = native_model();
    let case = fixture("text_tiny");
    let official = case.join("last.pth");
    let out = succeed(
        folder.path(),
        &[
            "inspect",
            s(&official),
            "--config",
            s(&case.join("config.yaml")),
            "--sha256",
        ],
    );
    for word in [
        "official training checkpoint, EMA weights taken",
        "3 blocks, width 48, 4 heads",
        "8×8 of 33 codes, 100 diffusion steps",
        "164,673 parameters",
        "64×64 pictures",
    ] {
        assert!(out.contains(word), "{word:?} not in {out}");
    }
    let sha = Command::new("sha256sum").arg(&official).output().unwrap();
    let sha = text(&sha.stdout);
    assert!(
        out.contains(sha.split_whitespace().next().unwrap()),
        "{out}"
    );

    let out = succeed(folder.path(), &["inspect", s(&model)]);
    assert!(
        out.contains("vqdiffusion (safetensors with configuration)"),
        "{out}"
    );

    // Without the mapping file the inspection succeeds and says what is missing.
    let copy = folder.path().join("copy.pth");
    std::fs::copy(&official, &copy).unwrap();
    let out = succeed(folder.path(), &["inspect", s(&copy)]);
    assert!(
        out.contains("missing") && out.contains("--mapping"),
        "{out}"
    );
}

#[test]
fn split_checkpoints_are_read_in_place() {
    let folder = TempDir::new().unwrap();
    let case = fixture("text_tiny");
    let bytes = std::fs::read(case.join("last.pth")).unwrap();
    for (suffix, part) in ["aa", "ab", "ac"]
        .iter()
        .zip(bytes.chunks(bytes.len().div_ceil(3)))
    {
        std::fs::write(folder.path().join(format!("last.pth_{suffix}")), part).unwrap();
    }
    let whole = succeed(
        folder.path(),
        &[
            "inspect",
            s(&case.join("last.pth")),
            "--sha256",
            "--config",
            s(&case.join("config.yaml")),
        ],
    );
    for name in ["last.pth_aa", "last.pth"] {
        let parts = succeed(
            folder.path(),
            &[
                "inspect",
                name,
                "--sha256",
                "--config",
                s(&case.join("config.yaml")),
            ],
        );
        assert_eq!(
            parts.lines().skip(1).collect::<Vec<_>>(),
            whole.lines().skip(1).collect::<Vec<_>>()
        );
    }
    std::fs::remove_file(folder.path().join("last.pth_ab")).unwrap();
    refuse(folder.path(), &["inspect", "last.pth_aa"], &["last.pth_ab"]);
}

#[test]
fn wrong_options_are_answered_with_the_right_ones() {
    let (folder, model) = native_model();
    let cases: [(&[&str], &[&str]); 12] = [
        (&["--steps", "0"], &["steps", "0", "1 to 100"]),
        (&["--steps", "101"], &["101", "1 to 100"]),
        (
            &["--compat", "official", "--steps", "33"],
            &["33", "100, 51, 34, 26"],
        ),
        (
            &["--compat", "offical"],
            &["offical", "official", "diffusers"],
        ),
        (&["--truncation", "0"], &["truncation", "(0, 1]"]),
        (&["--truncation", "1.2"], &["truncation", "1.2", "(0, 1]"]),
        (&["--top-k", "0"], &["top-k", "0"]),
        (
            &["--top-k", "3", "--truncation", "0.5"],
            &["--top-k", "cannot be used"],
        ),
        (&["--purity=-1"], &["purity", "-1"]),
        (&["--guidance", "inf"], &["guidance", "inf"]),
        (&["--device", "gpu"], &["gpu", "cpu, cuda or cuda:N"]),
        (&["--dtype", "f64"], &["f64", "f32", "bf16", "f16"]),
    ];
    for (options, words) in cases {
        let mut args = vec!["sample", "--checkpoint", s(&model), "--out", "never", "x"];
        args.extend(options);
        refuse(folder.path(), &args, words);
    }
    refuse(
        folder.path(),
        &["sample", "--checkpoint", s(&model)],
        &["PROMPT", "--from-image"],
    );
    refuse(folder.path(), &["sample", "x"], &["--checkpoint"]);
    assert!(!folder.path().join("never").exists(), "nothing was made");
    let max = u64::MAX.to_string();
    refuse(
        folder.path(),
        &["sample", "--checkpoint", s(&model), "--seed", &max, "x"],
        &["seed", &max],
    );
}

#[test]
fn existing_pictures_are_not_replaced_unasked() {
    let (folder, model) = native_model();
    let args = ["sample", "--checkpoint", s(&model), "--steps", "1", "x"];
    succeed(folder.path(), &args);
    refuse(
        folder.path(),
        &args,
        &["outputs/0-x.png", "exists already", "--overwrite"],
    );
    let mut args = args.to_vec();
    args.push("--overwrite");
    succeed(folder.path(), &args);
}

#[test]
fn a_configuration_is_checked_against_the_weights() {
    let folder = TempDir::new().unwrap();
    let case = fixture("text_tiny");
    let yaml = std::fs::read_to_string(case.join("config.yaml")).unwrap();
    let changes = [
        ("n_layer: 3", "n_layer: 4", "n_layer is 4", "holds 3"),
        (
            "diffusion_step: 100",
            "diffusion_step: 50",
            "diffusion_step is 50",
            "holds 100",
        ),
        (
            "timestep_type: adalayernorm",
            "timestep_type: adalayernorm_abs",
            "adalayernorm_abs",
            "holds adalayernorm",
        ),
        (
            "quantize_number: 33",
            "quantize_number: 40",
            "quantize_number is 40",
            "holds 33",
        ),
        (
            "alpha_init_type: alpha1",
            "alpha_init_type: cos",
            "alpha_init_type is cos",
            "alpha1",
        ),
        ("n_head: 4", "n_head: 5", "5 attention heads", "48"),
    ];
    for (from, to, declared, found) in changes {
        let config = folder.path().join("config.yaml");
        std::fs::write(&config, changed(&yaml, from, to)).unwrap();
        refuse(
            folder.path(),
            &["inspect", s(&case.join("last.pth")), "--config", s(&config)],
            &[declared, found],
        );
    }
    std::fs::write(folder.path().join("bad.yaml"), "model: [1, 2\n").unwrap();
    refuse(
        folder.path(),
        &["inspect", s(&case.join("last.pth")), "--config", "bad.yaml"],
        &["bad.yaml", "line"],
    );
    std::fs::write(folder.path().join("odd.yaml"), "model:\n  denoser: 1\n").unwrap();
    refuse(
        folder.path(),
        &["inspect", s(&case.join("last.pth")), "--config", "odd.yaml"],
        &["odd.yaml", "denoser"],
    );
}

/// Rewrites a safetensors file with `change` applied to its tensors.
fn rewrite(
    from: &Path,
    to: &Path,
    change: impl Fn(&mut HashMap<String, (Dtype, Vec<usize>, Vec<u8>)>),
) {
    let bytes = std::fs::read(from).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut all: HashMap<_, _> = tensors
        .tensors()
        .into_iter()
        .map(|(name, t)| (name, (t.dtype(), t.shape().to_vec(), t.data().to_vec())))
        .collect();
    change(&mut all);
    let views: Vec<(String, TensorView)> = all
        .iter()
        .map(|(name, (dtype, shape, data))| {
            (
                name.clone(),
                TensorView::new(*dtype, shape.clone(), data).unwrap(),
            )
        })
        .collect();
    safetensors::serialize_to_file(views, header.metadata().clone(), to).unwrap();
}

#[test]
fn bad_weights_are_named() {
    let (folder, model) = native_model();
    let bad = folder.path().join("bad.safetensors");
    let key = "transformer.transformer.blocks.1.mlp.0.weight";
    let sample = |words: &[&str]| {
        let args = ["sample", "--checkpoint", s(&bad), "--out", "never", "x"];
        refuse(folder.path(), &args, words);
        refuse(
            folder.path(),
            &["convert", s(&bad), "never.safetensors"],
            words,
        );
        assert!(!folder.path().join("never/0-x.png").exists());
        assert!(!folder.path().join("never.safetensors").exists());
    };
    rewrite(&model, &bad, |all| {
        let data = &mut all.get_mut(key).unwrap().2;
        data[400..404].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    sample(&["bad.safetensors", key, "NaN"]);

    rewrite(&model, &bad, |all| {
        all.get_mut(key).unwrap().1.reverse();
    });
    sample(&[key, "[48, 192]", "[192, 48]"]);

    rewrite(&model, &bad, |all| {
        let entry = all.remove(key).unwrap();
        all.insert(changed(key, "mlp", "mpl"), entry);
    });
    sample(&[key, "missing", "blocks.1.mpl.0.weight"]);

    rewrite(&model, &bad, |all| {
        let mapping = all.get_mut("content_codec.full_to_quantize").unwrap();
        mapping.2[80..88].copy_from_slice(&33i64.to_le_bytes());
    });
    sample(&["full_to_quantize", "entry 10 is 33", "0 to 32"]);
}

#[test]
fn damaged_and_foreign_files_are_refused() {
    let (folder, model) = native_model();
    let bytes = std::fs::read(&model).unwrap();
    let official = std::fs::read(fixture("text_tiny").join("last.pth")).unwrap();
    let bad = folder.path().join("bad");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("truncated own", bytes[..bytes.len() / 2].to_vec()),
        ("truncated header", bytes[..100].to_vec()),
        (
            "truncated official",
            official[..official.len() - 5000].to_vec(),
        ),
        (
            "page",
            b"<!DOCTYPE html><html><body>Not found</body></html>".to_vec(),
        ),
        (
            "noise",
            (0..5000u32)
                .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
                .collect(),
        ),
    ];
    for (what, content) in cases {
        std::fs::write(&bad, content).unwrap();
        for command in [
            vec!["sample", "--checkpoint", s(&bad), "--out", "never", "x"],
            vec!["inspect", s(&bad)],
            vec!["convert", s(&bad), "never.safetensors"],
        ] {
            refuse(folder.path(), &command, &[s(&bad)]);
        }
        assert!(!folder.path().join("never").exists(), "{what}");
        assert!(!folder.path().join("never.safetensors").exists(), "{what}");
    }
    refuse(folder.path(), &["inspect", "absent.pth"], &["absent.pth"]);
    refuse(folder.path(), &["inspect", "."], &["is a folder"]);
    // A safetensors file of somebody else is described, but not sampled from.
    let foreign = folder.path().join("foreign.safetensors");
    let view = TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
    safetensors::serialize_to_file([("x", view)], None, &foreign).unwrap();
    refuse(
        folder.path(),
        &["sample", "--checkpoint", s(&foreign), "x"],
        &["foreign.safetensors", "header"],
    );
}

#[test]
fn help_completions_and_doctor() {
    let folder = TempDir::new().unwrap();
    let help = succeed(folder.path(), &["sample", "--help"]);
    for word in ["Examples:", "--guidance", "--from-image", "official"] {
        assert!(help.contains(word), "{word}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = succeed(folder.path(), &["completions", shell]);
        assert!(script.contains("vqdiffusion"), "{shell}");
    }
    let doctor = succeed(folder.path(), &["doctor"]);
    for word in ["libtorch", "2.11.0", "cuda", "c10d", "gloo"] {
        assert!(doctor.contains(word), "{word}: {doctor}");
    }
    refuse(folder.path(), &["paint"], &["paint", "unrecognized"]);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let folder = TempDir::new().unwrap();
    let binary = env!("CARGO_BIN_EXE_vqdiffusion");
    let output = Command::new("bash")
        .args([
            "-c",
            &format!("{binary} completions zsh | true; echo ${{PIPESTATUS[0]}}"),
        ])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout).trim(), "0", "{}", text(&output.stderr));
}

/// The own-format file `model` with one value of the header's configuration replaced.
fn with_configuration(model: &Path, changed: &Path, pointer: &str, value: serde_json::Value) {
    let bytes = std::fs::read(model).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let entry = &mut header["__metadata__"]["vqdiffusion"];
    let mut own: serde_json::Value = serde_json::from_str(entry.as_str().unwrap()).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    own.pointer_mut(&format!("/config{parent}")).unwrap()[key] = value;
    *entry = own.to_string().into();
    let mut header = header.to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(&bytes[8 + length..]);
    std::fs::write(changed, out).unwrap();
}

#[test]
fn impossible_configurations_are_refused() {
    let (folder, model) = native_model();
    let at = folder.path();
    let changed = at.join("changed.safetensors");
    let huge = serde_json::json!(1_000_000_000_000_i64);
    for (pointer, value, words) in [
        ("/denoiser/heads", 0.into(), ["denoiser.heads", "0"]),
        ("/denoiser/heads", 5.into(), ["denoiser.heads", "48"]),
        (
            "/denoiser/grid",
            serde_json::json!([16, 16]),
            ["grid", "position_table"],
        ),
        (
            "/denoiser/timesteps",
            huge.clone(),
            ["denoiser.timesteps", "1000000000000"],
        ),
        (
            "/denoiser/layers",
            1_000_000_000.into(),
            ["denoiser.layers", "1024"],
        ),
        (
            "/denoiser/codes",
            i64::MAX.into(),
            ["denoiser.codes", "expected 1 to"],
        ),
        (
            "/denoiser/expansion",
            (-1).into(),
            ["denoiser.expansion", "-1"],
        ),
        (
            "/codec/multipliers",
            serde_json::json!([]),
            ["codec.multipliers", "[]"],
        ),
        ("/codec/norm_groups", 5.into(), ["codec.norm_groups", "5"]),
        (
            "/codec/residual_blocks",
            huge,
            ["codec.residual_blocks", "1024"],
        ),
        ("/text/tower/heads", 3.into(), ["text.tower.heads", "16"]),
        (
            "/transition/alpha",
            serde_json::json!([2.0, -1.0]),
            ["transition.alpha", "from 0 to 1"],
        ),
        (
            "/transition/gamma",
            serde_json::json!([0.9, 0.1]),
            ["transition.gamma", "rising"],
        ),
    ] {
        with_configuration(&model, &changed, pointer, value);
        let args = [
            "sample",
            "a",
            "--checkpoint",
            s(&changed),
            "--out",
            "pictures",
        ];
        refuse(at, &args, &[&["changed.safetensors"], &words[..]].concat());
        assert!(!at.join("pictures").exists());
    }
}

#[test]
fn what_is_there_is_known_before_the_model_runs() {
    let (folder, model) = native_model();
    let at = folder.path();
    let sample = ["sample", "a", "--checkpoint", s(&model), "--steps", "2"];
    std::fs::create_dir(at.join("films")).unwrap();
    std::fs::write(at.join("films/0-a.gif"), "mine").unwrap();
    let animated = [&sample[..], &["--animate", "--out", "films"]].concat();
    refuse(at, &animated, &["0-a.gif", "exists already"]);
    std::fs::write(at.join("file"), "").unwrap();
    let traced = [&sample[..], &["--trace", "file/trace", "--out", "traced"]].concat();
    refuse(at, &traced, &["file/trace"]);
    assert!(!at.join("traced/0-a.png").exists());
    let many = [&sample[..], &["--count", "4294967295", "--out", "many"]].concat();
    refuse(at, &many, &["--count 4294967295", "100000"]);
    for (option, value) in [("--guidance", "1e39"), ("--purity", "nan")] {
        let bad = [&sample[..], &[option, value, "--out", "bad"]].concat();
        refuse(at, &bad, &[option.trim_start_matches('-'), "1e6"]);
    }
}
