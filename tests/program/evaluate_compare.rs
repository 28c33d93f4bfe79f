//! Measures that tell samplers apart, and two runs side by side, through the real binary.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;
use tch::Tensor;
use tempfile::TempDir;
use vqdiffusion::evaluate::bound::{of_picture, Bound};
use vqdiffusion::evaluate::emoji::seeds::token_entropy;
use vqdiffusion::{DeviceChoice, Pipeline, Precision, Subject};

use crate::evaluate::{gallery, report, shape, Set, COLOURS};
use crate::running::{native_model, refuse, s, succeed};

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Runs `evaluate retrieval` of the model on `real` in f32, to the folder `out`.
fn measured(folder: &Path, model: &Path, out: &str, options: &[&str]) -> Value {
    let mut args = vec!["evaluate", "retrieval", "--checkpoint", s(model)];
    args.extend(["--prompts", "real", "--gallery", "real", "--device", "cpu"]);
    args.extend(["--dtype", "f32", "--out", out]);
    succeed(folder, &[&args[..], options].concat());
    report(&folder.join(out))
}

#[test]
fn of_a_bare_name_the_concept_alone_counts() {
    let folder = TempDir::new().unwrap();
    gallery(folder.path());
    let mut made = Set::new(folder.path().join("made"));
    let [red, green, blue] = COLOURS.map(|(_, rgb)| rgb);
    made.add(&shape("disc", "flat", red), "red", "disc", "dotted"); // the other style
    made.add(&shape("bar", "dotted", blue), "blue", "bar", "dotted");
    made.add(&shape("wedge", "flat", green), "red", "wedge", "flat"); // the other colour
    let args = ["evaluate", "retrieval", "--pictures", "made"];
    let more = ["--gallery", "real", "--ask", "name", "--out", "out"];
    let said = succeed(folder.path(), &[&args[..], &more].concat());
    assert!(
        said.contains("made all styles: 3 pictures, top-1 66.7 %"),
        "{said}"
    );
    let report = report(&folder.path().join("out"));
    assert_eq!(report["ask"], "name");
    let split = &report["splits"][0];
    assert_eq!(split["all"]["top1"]["hits"], 2);
    assert_eq!(split["all"]["concept"]["hits"], 2);
    assert_eq!(split["all"]["style"], Value::Null);
    assert_eq!(split["styles"], serde_json::json!({}));
    // Two of the gallery's 24 pictures have the concept.
    assert_eq!(split["all"]["chance"], 1.0 / 12.0);
    // The wanted one is the nearest of the concept in whatever style.
    let rows = list(&split["pictures"]);
    let distance = |of: &str, name: &str| {
        let row = rows.iter().find(|row| row["concept"] == name).unwrap();
        number(&row[of])
    };
    assert!(distance("wanted_distance", "red disc") < 1e-3);
    assert!(distance("wanted_distance", "red wedge") > 1.0);
    assert!(distance("nearest_distance", "red wedge") < 1e-3);
    // Means over the pictures, within their intervals.
    for of in ["wanted_distance", "nearest_distance"] {
        let mean = rows.iter().map(|row| number(&row[of])).sum::<f64>() / 3.0;
        let found = &split["all"][of];
        assert!((number(&found["mean"]) - mean).abs() < 1e-9, "{of}");
        let [low, high] = [0, 1].map(|at| number(&found["interval"][at]));
        assert!(low <= mean && mean <= high, "{of}: {found}");
    }
    // Asked for by captions, two of the three are wrong.
    let args = ["evaluate", "retrieval", "--pictures", "made"];
    succeed(
        folder.path(),
        &[&args[..], &["--gallery", "real", "--out", "styled"]].concat(),
    );
    let styled = self::report(&folder.path().join("styled"));
    assert_eq!(styled["splits"][0]["all"]["top1"]["hits"], 1);
}

/// Names are asked for as they are, a picture's bound is the library's for its tokens, and the
/// entropy of a prompt is that of the tokens of its pictures.
#[test]
fn a_models_pictures_have_bounds_and_entropies() {
    let (folder, model) = native_model();
    gallery(folder.path());
    let options = ["--ask", "name", "--seeds", "3", "--bound", "2"];
    let usual = [
        "--steps",
        "4",
        "--guidance",
        "1",
        "--limit",
        "2",
        "--seed",
        "5",
    ];
    let report = measured(
        folder.path(),
        &model,
        "out",
        &[&options[..], &usual].concat(),
    );
    let split = &report["splits"][0];
    assert_eq!(
        (split["asked"].as_u64(), report["bound_draws"].as_u64()),
        (Some(6), Some(2))
    );
    let rows = list(&split["pictures"]);
    assert_eq!(rows.len(), 6);

    let pipeline = Pipeline::builder()
        .threads(1)
        .precision(Precision::F32)
        .device("cpu".parse::<DeviceChoice>().unwrap())
        .open(&model)
        .unwrap();
    let schedule = pipeline.config().schedule();
    let bound = Bound::new(&schedule, pipeline.device());
    let mut tokens: HashMap<String, Vec<Vec<i64>>> = HashMap::new();
    let mut seeds: HashMap<String, Vec<u64>> = HashMap::new();
    for row in rows {
        let prompt = row["prompt"].as_str().unwrap();
        assert_eq!(row["concept"], prompt);
        let seed = row["seed"].as_u64().unwrap();
        let options = pipeline.usual().steps(4).guidance(1.0).seed(seed);
        let made = pipeline.pictures(&[prompt], &options).unwrap().remove(0);
        let of_tokens = Tensor::from_slice(&made.tokens).unsqueeze(0);
        let subject = Subject::from(prompt);
        let found = of_picture(&pipeline, &bound, &subject, &of_tokens, 2, 0, seed).unwrap();
        let difference = number(&row["bound"]) - found.total();
        assert!(difference.abs() < 1e-3 * found.total(), "{row} {found:?}");
        tokens.entry(prompt.into()).or_default().push(made.tokens);
        seeds.entry(prompt.into()).or_default().push(seed);
    }
    // The j-th picture of line i of the 24 has the seed 5 + i + 24 j.
    for seeds in seeds.values() {
        let first = seeds[0];
        assert!((5..29).contains(&first));
        assert_eq!(*seeds, [first, first + 24, first + 48]);
    }
    let prompts = list(&split["prompts"]);
    assert_eq!(prompts.len(), 2);
    for found in prompts {
        let pictures = &tokens[found["prompt"].as_str().unwrap()];
        let pictures: Vec<&[i64]> = pictures.iter().map(Vec::as_slice).collect();
        let expected = token_entropy(&pictures);
        assert!((number(&found["token_entropy"]) - expected).abs() < 1e-12);
        assert_eq!(found["pictures"], 3);
    }
    let mean = prompts
        .iter()
        .map(|p| number(&p["token_entropy"]))
        .sum::<f64>()
        / 2.0;
    let found = number(&split["all"]["token_entropy"]["mean"]);
    assert!((found - mean).abs() < 1e-12);
    // As if two trials and not six.
    let interval = &split["all"]["top1"]["interval"];
    assert!(
        number(&interval[1]) - number(&interval[0]) > 0.6,
        "{interval}"
    );

    // The first pictures of each, and their bounds, are those of a run with one.
    let options = ["--ask", "name", "--bound", "2"];
    let one = measured(
        folder.path(),
        &model,
        "one",
        &[&options[..], &usual].concat(),
    );
    for row in list(&one["splits"][0]["pictures"]) {
        let same = rows.iter().find(|of| of["seed"] == row["seed"]).unwrap();
        assert_eq!(
            (&same["prompt"], &same["bound"]),
            (&row["prompt"], &row["bound"])
        );
    }
    assert_eq!(one["splits"][0]["prompts"], Value::Null);
}

#[test]
fn the_entropy_of_tokens_has_its_closed_form() {
    // Four pictures of three positions: all alike, two and two, all different.
    let pictures: [&[i64]; 4] = [&[7, 1, 1], &[7, 1, 2], &[7, 2, 3], &[7, 2, 4]];
    let expected = (0.0 + 2f64.ln() + 4f64.ln()) / 3.0;
    assert!((token_entropy(&pictures) - expected).abs() < 1e-12);
    // One of three differs: ln 3 − (2/3) ln 2.
    let pictures: [&[i64]; 3] = [&[1], &[1], &[0]];
    let expected = 3f64.ln() - 2.0 / 3.0 * 2f64.ln();
    assert!((token_entropy(&pictures) - expected).abs() < 1e-12);
}

#[test]
fn two_runs_are_compared_picture_by_picture() {
    let (folder, model) = native_model();
    gallery(folder.path());
    let run = |out: &str, steps: &str, more: &[&str]| {
        let usual = [
            "--guidance",
            "1",
            "--steps",
            steps,
            "--seeds",
            "2",
            "--bound",
            "1",
        ];
        measured(folder.path(), &model, out, &[&usual[..], more].concat())
    };
    let fast = run("fast", "2", &["--limit", "6"]);
    let slow = run("slow", "5", &["--limit", "8"]);
    let compare = |args: &[&str]| {
        let first = ["evaluate", "compare", "--overwrite", "--out", "found.json"];
        let said = succeed(folder.path(), &[&first[..], args].concat());
        let found = std::fs::read(folder.path().join("found.json")).unwrap();
        (said, serde_json::from_slice::<Value>(&found).unwrap())
    };
    let (said, found) = compare(&["fast", "slow"]);
    assert!(said.contains("fast against slow"), "{said}");
    assert!(
        said.contains("real: 12 pictures of 6 prompts that both have, of 12 and 16"),
        "{said}"
    );
    let split = &found["splits"][0];
    // Every figure by hand from the two reports.
    let rows = |report: &Value| -> HashMap<u64, Value> {
        let rows = list(&report["splits"][0]["pictures"]).iter();
        rows.map(|row| (row["seed"].as_u64().unwrap(), row.clone()))
            .collect()
    };
    let (a, b) = (rows(&fast), rows(&slow));
    for name in ["wanted_distance", "nearest_distance", "bound"] {
        let mean = |of: &dyn Fn(&u64) -> f64| a.keys().map(of).sum::<f64>() / a.len() as f64;
        let (a, b) = (
            mean(&|s| number(&a[s][name])),
            mean(&|s| number(&b[s][name])),
        );
        let figure = &split["figures"][name];
        assert!((number(&figure["a"]) - a).abs() < 1e-9, "{name}");
        assert!((number(&figure["b"]) - b).abs() < 1e-9, "{name}");
        assert!(
            (number(&figure["difference"]) - (a - b)).abs() < 1e-9,
            "{name}"
        );
        assert!(
            (number(&figure["ratio"]["ratio"]) - a / b).abs() < 1e-9,
            "{name}"
        );
        let [low, high] = [0, 1].map(|at| number(&figure["interval"][at]));
        assert!(
            low <= a - b && a - b <= high && low < high,
            "{name}: {figure}"
        );
    }
    let hit = |row: &Value| row["hit"].as_bool().unwrap();
    let only = |x: &HashMap<u64, Value>, y: &HashMap<u64, Value>| {
        a.keys()
            .filter(|seed| hit(&x[seed]) && !hit(&y[seed]))
            .count() as u64
    };
    let test = &split["figures"]["hit"]["mcnemar"];
    assert_eq!(
        (test["only_a"].as_u64(), test["only_b"].as_u64()),
        (Some(only(&a, &b)), Some(only(&b, &a)))
    );
    assert!(
        split["figures"]["token_entropy"]["a"].is_number(),
        "{split}"
    );

    // A run differs in nothing from itself.
    let (_, same) = compare(&["slow", "slow/report.json"]);
    for figure in same["splits"][0]["figures"].as_object().unwrap().values() {
        assert_eq!(
            (&figure["difference"], &figure["interval"]),
            (&0.0.into(), &serde_json::json!([0.0, 0.0]))
        );
    }
    // Another seed of the same two runs is taken together with the first.
    run("fast2", "2", &["--limit", "6", "--seed", "100"]);
    run("slow2", "5", &["--limit", "6", "--seed", "100"]);
    let (_, both) = compare(&["fast", "slow", "fast2", "slow2"]);
    let split = &both["splits"][0];
    assert_eq!(
        (split["pictures"].as_u64(), split["prompts"].as_u64()),
        (Some(24), Some(6))
    );

    // What cannot be compared is refused by what is unlike.
    let refused = |args: &[&str], words: &[&str]| {
        refuse(
            folder.path(),
            &[&["evaluate", "compare"], args].concat(),
            words,
        );
    };
    refused(
        &["fast", "slow2"],
        &["not of the same prompts and seeds", "of seed"],
    );
    refused(&["fast", "slow", "fast2"], &["fast2", "pairs"]);
    refused(&["fast", "absent"], &["absent"]);
    run("named", "2", &["--limit", "6", "--ask", "name"]);
    refused(
        &["fast", "named"],
        &["what was asked for", "caption", "name"],
    );
    let seeds = [
        "--guidance",
        "1",
        "--steps",
        "2",
        "--limit",
        "6",
        "--seeds",
        "3",
        "--bound",
        "2",
    ];
    measured(folder.path(), &model, "three", &seeds);
    let (said, found) = compare(&["three", "fast"]);
    assert!(said.contains("not compared: token entropy"), "{said}");
    assert!(said.contains("not compared: bound"), "{said}");
    assert!(found["splits"][0]["figures"]["bound"].is_null());
    std::fs::write(folder.path().join("other.json"), "{\"measure\": \"model\"}").unwrap();
    refused(&["fast", "other.json"], &["other.json", "single pictures"]);
    std::fs::write(folder.path().join("none.json"), "no report").unwrap();
    refused(&["fast", "none.json"], &["none.json"]);
    let mut other = fast.clone();
    other["gallery_sha256"] = "another".into();
    std::fs::write(folder.path().join("gallery.json"), other.to_string()).unwrap();
    refused(&["fast", "gallery.json"], &["gallery", "another"]);
    other["splits"][0]["pictures"] = "none".into();
    std::fs::write(folder.path().join("odd.json"), other.to_string()).unwrap();
    refused(&["fast", "odd.json"], &["odd.json", "expected"]);
}
