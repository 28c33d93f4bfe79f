//! PNGs say how they were made, and repeat themselves.

use std::path::Path;

use crate::running::{fixture, native_model, refuse, s, sample, succeed};

#[test]
fn a_png_repeats_itself() {
    let (folder, model) = native_model();
    let cases: [&[&str]; 9] = [
        &["--steps", "6", "--guidance", "2.5", "--truncation", "0.7"],
        &["--steps", "6", "--times", "cosine"],
        &["--steps", "6", "--order", "halton"],
        &[
            "--steps",
            "9",
            "--guidance",
            "3",
            "--guidance-span",
            "0.2..0.9",
        ],
        &["--steps", "9", "--guidance", "3", "--local-steps", "2"],
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
fn times_orders_and_spans_are_refused_by_name() {
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
            &["--order", "spiral"],
            &["--order", "independent", "halton"],
        ),
        (
            &["--compat", "official", "--order", "halton"],
            &["order", "halton", "exact rule"],
        ),
        (
            &["--tokens-per-step", "4", "--order", "halton"],
            &["order", "halton", "fixed counts"],
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

/// Local steps are said in the PNG, change the picture, and are refused by name where part of
/// the tokens cannot be evaluated alone.
#[test]
fn local_steps_are_recorded_or_refused() {
    use vqdiffusion::Record;

    let (folder, model) = native_model();
    let made = |out: &str, more: &[&str]| {
        let fixed = ["--steps", "9", "--seed", "2", "--out", out, "x"];
        sample(folder.path(), &model, &[&fixed[..], more].concat());
        folder.path().join(out).join("2-x.png")
    };
    let full = made("full", &[]);
    let local = made("local", &["--local-steps", "1"]);
    let read = |png: &Path| std::fs::read(png).unwrap();
    assert_eq!(
        Record::read(&local).unwrap().settings.sampler.local_steps,
        1
    );
    assert_eq!(Record::read(&full).unwrap().settings.sampler.local_steps, 0);
    assert_ne!(read(&local), read(&full));
    // None are today's bytes, said or not.
    assert_eq!(read(&made("none", &["--local-steps", "0"])), read(&full));
    let refused = |options: &[&str], words: &[&str]| {
        let fixed = [
            "sample",
            "--checkpoint",
            s(&model),
            "--local-steps",
            "1",
            "x",
        ];
        refuse(folder.path(), &[&fixed[..], options].concat(), words);
    };
    refused(&["--purity", "1"], &["local steps", "purity"]);
    refused(&["--compat", "official"], &["local steps", "exact rule"]);
    let class = fixture("class_tiny");
    let (weights, config) = (class.join("last.pth"), class.join("config.yaml"));
    let args = [
        "sample",
        "--checkpoint",
        s(&weights),
        "--config",
        s(&config),
    ];
    refuse(
        folder.path(),
        &[&args[..], &["--class", "1", "--local-steps", "1"]].concat(),
        &["local steps is 1", "expected 0"],
    );
}
