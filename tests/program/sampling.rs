//! Pictures of prompts through the real binary.

use tempfile::TempDir;

use crate::running::{files, fixture, native_model, refuse, s, sample, succeed};

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
