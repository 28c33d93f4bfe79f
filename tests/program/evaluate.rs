//! Evaluation through the real binary, on pictures whose answers are known by construction.

use std::path::{Path, PathBuf};

use serde_json::{json, Value};
use tempfile::TempDir;
use vqdiffusion::evaluate::emoji::colours::{dominant_hue, object};
use vqdiffusion::evaluate::emoji::pyramid::{features, squared_distances, View};
use vqdiffusion::evaluate::rate::Rate;
use vqdiffusion::picture::{read_picture, write_png, Picture};

use crate::running::{command, native_model, refuse, s, succeed, text};

/// A picture of 64×64 pixels from the colour of each.
fn drawn(pixel: impl Fn(f64, f64) -> [u8; 3]) -> Picture {
    let at = |i: usize| ((i % 64) as f64 + 0.5, (i / 64) as f64 + 0.5);
    Picture {
        width: 64,
        height: 64,
        rgb: (0..64 * 64).flat_map(|i| pixel(at(i).0, at(i).1)).collect(),
    }
}

pub const SHAPES: [&str; 4] = ["disc", "bar", "frame", "wedge"];
pub const STYLES: [&str; 2] = ["flat", "dotted"];
pub const COLOURS: [(&str, [u8; 3]); 3] = [
    ("red", [220, 30, 30]),
    ("green", [40, 200, 40]),
    ("blue", [40, 110, 220]),
];

/// A shape in a colour on white; dotted ones have pale dots.
pub fn shape(shape: &str, style: &str, colour: [u8; 3]) -> Picture {
    drawn(|x, y| {
        let inside = match shape {
            "disc" => (x - 32.0).hypot(y - 32.0) < 24.0,
            "bar" => (22.0..42.0).contains(&x) && (4.0..60.0).contains(&y),
            "frame" => {
                (x - 32.0).abs().max((y - 32.0).abs()) < 26.0
                    && (x - 32.0).abs().max((y - 32.0).abs()) > 14.0
            }
            _ => y > 8.0 && y < 56.0 && x - 8.0 < y - 8.0 && x > 8.0,
        };
        let dot = style == "dotted" && (x % 8.0 - 4.0).hypot(y % 8.0 - 4.0) < 2.5;
        match (inside, dot) {
            (true, false) => colour,
            (true, true) => colour.map(|c| 128 + c / 2),
            (false, _) => [255; 3],
        }
    })
}

/// A folder of pictures with its list.
pub struct Set {
    pub path: PathBuf,
    pub lines: Vec<Value>,
}

impl Set {
    pub fn new(path: PathBuf) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        let lines = Vec::new();
        Set { path, lines }
    }

    /// Adds a picture that should show `colour` and `thing` in `style`.
    pub fn add(&mut self, picture: &Picture, colour: &str, thing: &str, style: &str) {
        let file = format!("{}-{colour}-{thing}-{style}.png", self.lines.len());
        write_png(&self.path.join(&file), picture, &[]).unwrap();
        let concept = format!("{colour} {thing}");
        self.lines.push(
            json!({"file": file, "captions": [format!("{concept}, {style} style")],
            "concept": concept, "style": style, "colour": colour}),
        );
        let list: Vec<String> = self.lines.iter().map(Value::to_string).collect();
        std::fs::write(self.path.join("captions.jsonl"), list.join("\n")).unwrap();
    }
}

/// `real` with every shape in every style and colour: 24 pictures.
pub fn gallery(folder: &Path) -> Set {
    let mut set = Set::new(folder.join("real"));
    for thing in SHAPES {
        for style in STYLES {
            for (colour, rgb) in COLOURS {
                set.add(&shape(thing, style, rgb), colour, thing, style);
            }
        }
    }
    set
}

pub fn report(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("report.json")).unwrap()).unwrap()
}

/// The report of `measure` about the pictures in `made`, written to `out`.
fn evaluated(folder: &Path, measure: &str) -> Value {
    let sets = ["--pictures", "made", "--gallery", "real", "--out", "out"];
    succeed(folder, &[&["evaluate", measure][..], &sets].concat());
    report(&folder.join("out"))
}

#[test]
fn retrieval_counts_what_was_confused_with_what() {
    let folder = TempDir::new().unwrap();
    gallery(folder.path());
    let mut made = Set::new(folder.path().join("made"));
    let [red, green, blue] = COLOURS.map(|(_, rgb)| rgb);
    made.add(&shape("disc", "flat", red), "red", "disc", "flat"); // right
    made.add(&shape("bar", "dotted", blue), "blue", "bar", "dotted"); // right
    made.add(&shape("frame", "dotted", green), "green", "frame", "flat"); // the other style
    made.add(&shape("wedge", "flat", blue), "red", "wedge", "flat"); // the other colour
    made.add(&shape("disc", "dotted", red), "green", "bar", "flat"); // nothing right
    let mut args = vec!["evaluate", "retrieval", "--pictures", "made"];
    args.extend(["--gallery", "real", "--out", "out"]);
    let out = succeed(folder.path(), &args);
    assert!(
        out.contains("made all styles: 5 pictures, top-1 40.0 %"),
        "{out}"
    );
    let report = report(&folder.path().join("out"));
    let split = &report["splits"][0];
    let hits = |scores: &Value, measure: &str| scores[measure]["hits"].as_u64().unwrap();
    assert_eq!(hits(&split["all"], "top1"), 2);
    assert_eq!(hits(&split["all"], "concept"), 3);
    assert_eq!(hits(&split["all"], "style"), 3);
    assert_eq!(split["all"]["top1"]["of"], 5);
    assert_eq!(split["all"]["chance"], 1.0 / 24.0);
    assert_eq!(hits(&split["styles"]["flat"], "top1"), 1);
    assert_eq!(split["styles"]["flat"]["top1"]["of"], 4);
    assert_eq!(hits(&split["styles"]["dotted"], "top1"), 1);
    let mut ranks: Vec<(String, u64)> = split["pictures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            (
                p["file"].as_str().unwrap().to_string(),
                p["rank"].as_u64().unwrap(),
            )
        })
        .collect();
    ranks.sort();
    assert_eq!((ranks[0].1, ranks[1].1), (1, 1), "{ranks:?}");
    assert_eq!(ranks[2].1, 2, "only the other style is nearer: {ranks:?}");
    assert!(ranks[4].1 > 5, "{ranks:?}");
    let mut sorted: Vec<u64> = ranks.iter().map(|(_, rank)| *rank).collect();
    sorted.sort();
    assert_eq!(split["all"]["median_rank"], sorted[2]);
    assert!(folder.path().join("out/made.png").exists());
    // A report that is there is kept.
    refuse(
        folder.path(),
        &args,
        &["report.json", "exists already", "--overwrite"],
    );
}

#[test]
fn one_picture_of_two_names_answers_to_both() {
    let folder = TempDir::new().unwrap();
    let mut real = gallery(folder.path());
    let [red, ..] = COLOURS.map(|(_, rgb)| rgb);
    real.add(&shape("disc", "flat", red), "red", "ball", "flat");
    let mut made = Set::new(folder.path().join("made"));
    for thing in ["disc", "ball"] {
        made.add(&shape("disc", "flat", red), "red", thing, "flat");
    }
    let report = evaluated(folder.path(), "retrieval");
    assert_eq!(report["splits"][0]["all"]["top1"]["hits"], 2);
}

#[test]
fn damaged_pictures_find_their_originals() {
    let folder = TempDir::new().unwrap();
    let real = gallery(folder.path());
    let mut made = Set::new(folder.path().join("made"));
    for (n, line) in real.lines.iter().enumerate() {
        let original = read_picture(&real.path.join(line["file"].as_str().unwrap())).unwrap();
        // A coarse and noisy copy: what an image codec may leave.
        let mut damaged = original.resize(12, 12).resize(64, 64);
        for (i, value) in damaged.rgb.iter_mut().enumerate() {
            let noise = ((i * 7919 + n * 104_729) % 61) as i32 - 30;
            *value = (i32::from(*value) + noise).clamp(0, 255) as u8;
        }
        // The original, a pixel to the right and down.
        let shifted = drawn(|x, y| {
            let (x, y) = ((x - 1.5).max(0.0) as usize, (y - 1.5).max(0.0) as usize);
            let at = 3 * (64 * y + x);
            [original.rgb[at], original.rgb[at + 1], original.rgb[at + 2]]
        });
        let name = |key: &str| line[key].as_str().unwrap();
        let thing = name("concept").split_once(' ').unwrap().1;
        for picture in [damaged, shifted] {
            made.add(&picture, name("colour"), thing, name("style"));
        }
    }
    let args = ["--pictures", "made", "--gallery", "real", "--out"];
    let evaluate = |measure: &str| {
        let args: Vec<&str> = ["evaluate", measure].into_iter().chain(args).collect();
        succeed(folder.path(), &[args, vec![measure]].concat());
        report(&folder.path().join(measure))["splits"][0]["all"].clone()
    };
    assert_eq!(evaluate("retrieval")["top1"]["rate"], 1.0);
    let colours = evaluate("colours");
    assert_eq!(colours["hue"]["rate"], 1.0);
    assert_eq!(colours["shape"]["rate"], 1.0);
}

#[test]
fn colours_tell_hue_from_shape() {
    let folder = TempDir::new().unwrap();
    gallery(folder.path());
    let mut made = Set::new(folder.path().join("made"));
    let [_, green, blue] = COLOURS.map(|(_, rgb)| rgb);
    let purple = [150, 40, 220];
    made.add(&shape("disc", "flat", purple), "purple", "disc", "flat"); // both
    made.add(&shape("bar", "flat", blue), "purple", "bar", "flat"); // the shape alone
    made.add(&shape("frame", "dotted", green), "green", "disc", "dotted"); // the hue alone
    made.add(&shape("wedge", "flat", [90; 3]), "blue", "disc", "flat"); // neither
    let report = evaluated(folder.path(), "colours");
    let all = &report["splits"][0]["all"];
    assert_eq!(all["hue"]["hits"], 2);
    assert_eq!(all["shape"]["hits"], 2);
    assert_eq!(all["both"]["hits"], 1);
    assert_eq!(all["shape_chance"], 0.25);
}

#[test]
fn a_model_answers_captions() {
    let (folder, model) = native_model();
    gallery(folder.path());
    let evaluate = |more: &[&str]| {
        let args = [
            "evaluate",
            "retrieval",
            "--checkpoint",
            s(&model),
            "--prompts",
            "real",
            "--gallery",
            "real",
            "--steps",
            "3",
            "--guidance",
            "2",
            "--device",
            "cpu",
        ];
        succeed(folder.path(), &[&args[..], more].concat())
    };
    evaluate(&["--limit", "3", "--out", "three"]);
    evaluate(&["--limit", "5", "--out", "five"]);
    let files = |name: &str| {
        let report = report(&folder.path().join(name));
        let pictures = report["splits"][0]["pictures"].as_array().unwrap().clone();
        let file = |p: &Value| p["file"].as_str().unwrap().to_string();
        pictures.iter().map(file).collect::<Vec<_>>()
    };
    // The draw of three is part of the draw of five, and its pictures are the same.
    let (three, five) = (files("three"), files("five"));
    assert_eq!((three.len(), five.len()), (3, 5));
    for (a, b) in three.iter().zip(&five) {
        let read = |file: &str| std::fs::read(folder.path().join(file)).unwrap();
        assert_eq!(Path::new(a).file_name(), Path::new(b).file_name());
        assert_eq!(read(a), read(b), "{a}");
    }
    let told = report(&folder.path().join("three"));
    assert_eq!(told["options"]["sampler"]["steps"], 3);
    assert_eq!(told["options"]["sampler"]["guidance"], 2.0);
    assert_eq!(told["model_sha256"].as_str().unwrap().len(), 64);
    // A picture says how it was made, and the folder can be measured again.
    succeed(
        folder.path(),
        &[
            "sample",
            "--checkpoint",
            s(&model),
            "--from-image",
            &three[0],
            "--out",
            "again",
        ],
    );
    let again = folder
        .path()
        .join("again")
        .join(Path::new(&three[0]).file_name().unwrap());
    assert_eq!(
        std::fs::read(again).unwrap(),
        std::fs::read(folder.path().join(&three[0])).unwrap()
    );
    succeed(
        folder.path(),
        &[
            "evaluate",
            "retrieval",
            "--pictures",
            "three/real",
            "--gallery",
            "real",
            "--out",
            "re",
        ],
    );
    let again = report(&folder.path().join("re"));
    assert_eq!(again["splits"][0]["all"], told["splits"][0]["all"]);
}

#[test]
fn the_codec_is_measured_as_reconstruct_shows_it() {
    let (folder, model) = native_model();
    let real = gallery(folder.path());
    let out = succeed(
        folder.path(),
        &[
            "evaluate",
            "codec",
            "--checkpoint",
            s(&model),
            "--data",
            "real",
        ],
    );
    let number = |line: &str| -> f64 {
        let found = out.lines().find_map(|l| l.strip_prefix(line)).unwrap();
        found.split_whitespace().next().unwrap().parse().unwrap()
    };
    let files: Vec<String> = real
        .lines
        .iter()
        .map(|line| format!("real/{}", line["file"].as_str().unwrap()))
        .collect();
    let mut args = vec!["reconstruct", "--checkpoint", s(&model), "--out", "again"];
    args.extend(files.iter().map(String::as_str));
    let each = succeed(folder.path(), &args);
    let psnr: Vec<f64> = each
        .lines()
        .map(|line| {
            let (_, value) = line.split_once("PSNR ").unwrap();
            value.trim_end_matches(" dB").parse().unwrap()
        })
        .collect();
    assert_eq!(psnr.len(), 24);
    let mean = psnr.iter().sum::<f64>() / 24.0;
    assert!((number("PSNR ") - mean).abs() < 0.011, "{out} {mean}");
    let used = number("codes used ");
    assert!((1.0..=used).contains(&number("perplexity ")), "{out}");
}

#[test]
fn bad_input_is_named() {
    let (folder, model) = native_model();
    let mut real = gallery(folder.path());
    let evaluate = |args: &[&str], words: &[&str]| {
        let first = ["evaluate", "retrieval", "--gallery", "real", "--out", "out"];
        refuse(folder.path(), &[&first[..], args].concat(), words);
        assert!(!folder.path().join("out/report.json").exists());
    };
    let list = |name: &str, text: &str| {
        std::fs::create_dir_all(folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join(name).join("captions.jsonl"), text).unwrap();
    };
    evaluate(&["--pictures", "absent"], &["absent/captions.jsonl"]);
    list("empty", "\n\n");
    evaluate(
        &["--pictures", "empty"],
        &["empty/captions.jsonl", "names no picture"],
    );
    list(
        "plain",
        "{\"file\": \"a.png\", \"captions\": [\"a\"], \"style\": \"x\"}\n",
    );
    evaluate(
        &["--pictures", "plain"],
        &["plain/captions.jsonl", "line 1", "`concept`"],
    );
    list(
        "gone",
        "\n{\"file\": \"a.png\", \"concept\": \"red disc\", \"style\": \"flat\"}\n",
    );
    evaluate(
        &["--pictures", "gone"],
        &["gone/captions.jsonl", "line 2", "a.png"],
    );
    evaluate(
        &["--checkpoint", s(&model), "--prompts", "gone"],
        &["gone/captions.jsonl", "line 2", "no caption"],
    );
    list(
        "other",
        "{\"file\": \"a.png\", \"concept\": \"red cube\", \"style\": \"flat\"}\n",
    );
    evaluate(
        &["--pictures", "other"],
        &["other/captions.jsonl", "line 1", "red cube", "flat"],
    );
    evaluate(
        &["--pictures", "gone", "--steps", "3"],
        &["--pictures", "--steps"],
    );
    evaluate(&["--checkpoint", s(&model)], &["--prompts"]);
    evaluate(
        &[
            "--checkpoint",
            s(&model),
            "--prompts",
            "real",
            "--steps",
            "0",
        ],
        &["steps"],
    );
    refuse(
        folder.path(),
        &[
            "evaluate",
            "colours",
            "--gallery",
            "real",
            "--out",
            "out",
            "--pictures",
            "other",
        ],
        &["other/captions.jsonl", "line 1", "no colour"],
    );
    std::fs::write(real.path.join("0-red-disc-flat.png"), b"no picture").unwrap();
    real.lines.clear();
    evaluate(
        &["--checkpoint", s(&model), "--prompts", "real"],
        &["real/captions.jsonl", "line 1", "0-red-disc-flat.png"],
    );
}

#[test]
fn a_signal_leaves_a_report_of_what_was_made() {
    let (folder, model) = native_model();
    gallery(folder.path());
    let mut run = command(
        folder.path(),
        &[
            "evaluate",
            "retrieval",
            "--checkpoint",
            s(&model),
            "--prompts",
            "real",
            "--gallery",
            "real",
            "--out",
            "out",
            "--device",
            "cpu",
        ],
    );
    run.stdout(std::process::Stdio::null());
    let child = run.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let made = || std::fs::read_dir(folder.path().join("out/real")).map_or(0, Iterator::count);
    let start = std::time::Instant::now();
    while made() == 0 && start.elapsed().as_secs() < 60 {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    // SAFETY: sends a signal to a process that is ours and not waited for yet.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
    let output = child.wait_with_output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{message}");
    assert!(message.contains("stopped by a signal"), "{message}");
    let report = report(&folder.path().join("out"));
    assert_eq!(report["stopped"], true);
    let split = &report["splits"][0];
    let measured = split["measured"].as_u64().unwrap();
    assert!((1..24).contains(&measured), "{measured}");
    assert_eq!(split["all"]["top1"]["of"], measured);
    let list = std::fs::read_to_string(folder.path().join("out/real/captions.jsonl")).unwrap();
    assert_eq!(list.lines().count() as u64, measured);
}

#[test]
fn the_distance_is_the_mean_over_three_levels() {
    // Two flat pictures that differ by 30 in one channel: every cell of every level does,
    // so the mean square over the channels is 30² / 3.
    let [a, b] = [[100, 50, 70], [130, 50, 70]].map(|rgb| drawn(|_, _| rgb));
    let distance = |view: View, a: &Picture, b: &Picture| {
        let both = features(&[a.clone(), b.clone()], view);
        squared_distances(&both, &both).double_value(&[0, 1])
    };
    assert!((distance(View::Rgb, &a, &b) - 300.0).abs() < 1e-6);
    // The largest channel differs by 30, the smallest by nothing.
    assert!((distance(View::Hueless, &a, &b) - 450.0).abs() < 1e-6);
    // Two of the 4×4 cells of the finest level in the corner of one coarser cell each: the
    // squares are 9² of 2/256 cells, (9 · 2/4)² of 1/64 and (9 · 2/16)² of 1/16.
    let c = drawn(|x, y| {
        if x < 8.0 && y < 4.0 {
            [109; 3]
        } else {
            [100; 3]
        }
    });
    let flat = drawn(|_, _| [100; 3]);
    let expected = (81.0 * 2.0 / 256.0 + 20.25 / 64.0 + 1.265_625 / 16.0) / 3.0;
    assert!((distance(View::Rgb, &flat, &c) - expected).abs() < 1e-6);
    // Turning the hue keeps the largest and the smallest channel.
    let turned = drawn(|_, _| [50, 70, 100]);
    assert!(distance(View::Hueless, &a, &turned) < 1e-6);
}

#[test]
fn hues_and_objects_are_named() {
    let hue = |rgb: [u8; 3]| dominant_hue(&shape("disc", "flat", rgb));
    for (rgb, wanted) in [
        ([200, 0, 0], 0.0),
        ([200, 100, 0], 30.0),
        ([0, 200, 100], 150.0),
        ([100, 0, 200], 270.0),
        ([200, 0, 2], 359.4),
    ] {
        let found = hue(rgb).unwrap();
        let off = (found - wanted + 180.0f64).rem_euclid(360.0) - 180.0;
        assert!(off.abs() < 0.01, "{rgb:?}: {found}, expected {wanted}");
    }
    assert_eq!(hue([120; 3]), None, "grey has no hue");
    assert_eq!(hue([20, 0, 0]), None, "nearly black");
    assert_eq!(object("light blue heart"), "heart");
    assert_eq!(object("purple admission tickets"), "admission tickets");
    assert_eq!(object("orange"), "orange");
}

#[test]
fn intervals_are_wilsons() {
    // 8 of 10 and none of 20 by the published closed form.
    let rate = Rate::new((0..10).map(|i| i < 8));
    assert!((rate.interval[0] - 0.4902).abs() < 5e-5, "{rate:?}");
    assert!((rate.interval[1] - 0.9433).abs() < 5e-5, "{rate:?}");
    let none = Rate::new((0..20).map(|_| false));
    assert_eq!(none.interval[0], 0.0);
    assert!((none.interval[1] - 0.1611).abs() < 5e-5, "{none:?}");
}
