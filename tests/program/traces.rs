//! What a run looked like from inside, and where it looked for each word.

use std::collections::BTreeMap;

use image::{GrayImage, Luma};
use tch::{Device, Kind, Tensor};
use vqdiffusion::checkpoint::{Checkpoint, OpenOptions};
use vqdiffusion::picture::Picture;
use vqdiffusion::pipeline::{Pipeline, Subject};
use vqdiffusion::torch::device::Precision;

use crate::editing::{photo, picture, pipeline, pixels, sample, save};
use crate::running::{files, fixture, native_model, refuse, s, succeed};

#[test]
fn a_trace_is_the_run_seen_from_inside() {
    let (folder, model) = native_model();
    let folder = folder.path();
    let options = ["--trace", "trace", "--guidance", "2", "--seed", "7"];
    let prompt = ["the quick brown foxes"];
    sample(folder, &model, "out", &[&options[..], &prompt].concat());
    sample(folder, &model, "plain", &[&options[2..], &prompt].concat());
    let name = "7-the-quick-brown-foxes";
    let made_name = format!("{name}.png");
    assert_eq!(
        std::fs::read(folder.join("out").join(&made_name)).unwrap(),
        std::fs::read(folder.join("plain").join(&made_name)).unwrap(),
        "looking changes nothing"
    );
    let trace_folder = folder.join("trace").join(name);
    for kind in ["tokens", "entropy", "changed"] {
        let names = files(&trace_folder.join(kind));
        assert_eq!(names.len(), 10, "{kind}");
        assert_eq!(names[9], "010.png");
    }
    let json = std::fs::read(trace_folder.join("trace.json")).unwrap();
    let trace: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let list =
        |value: &serde_json::Value| -> Vec<f64> { serde_json::from_value(value.clone()).unwrap() };

    let steps = trace["steps"].as_array().unwrap();
    let mut before = vec![33.0; 64];
    let colours = pixels(&trace_folder.join("tokens/004.png"));
    let mut colour_of: BTreeMap<i64, [u8; 3]> = BTreeMap::new();
    for (i, step) in steps.iter().enumerate() {
        let tokens = list(&step["tokens"]);
        let changed: Vec<f64> = (0..64)
            .filter(|&l| tokens[l] != before[l])
            .map(|l| l as f64)
            .collect();
        assert_eq!(list(&step["changed"]), changed, "step {i}");
        for entropy in list(&step["entropy"]) {
            assert!((0.0..=33f64.ln() + 1e-5).contains(&entropy), "{entropy}");
        }
        let map = pixels(&trace_folder.join(format!("changed/{:03}.png", i + 1)));
        for l in 0..64u32 {
            let white = map.get_pixel(l % 8 * 8 + 3, l / 8 * 8 + 5).0 == [255; 3];
            assert_eq!(
                white,
                changed.contains(&f64::from(l)),
                "step {i}, token {l}"
            );
            if i == 3 {
                let colour = colours.get_pixel(l % 8 * 8, l / 8 * 8).0;
                let token = tokens[l as usize] as i64;
                assert_eq!(*colour_of.entry(token).or_insert(colour), colour);
            }
        }
        before = tokens;
    }
    assert_eq!(colour_of[&33], [128; 3], "masks are grey");
    // The last state is the picture.
    let pipeline = pipeline();
    let last: Vec<i64> = before.iter().map(|&token| token as i64).collect();
    let decoded = pipeline.decode(&Tensor::from_slice(&last).unsqueeze(0));
    let decoded =
        vqdiffusion::codec::image_codec::to_bytes(&decoded, vqdiffusion::codec::Rounding::Nearest);
    let made = pixels(&folder.join("out").join(&made_name));
    assert_eq!(&Picture::from_tensor(&decoded.get(0)).rgb, made.as_raw());

    let words = trace["words"].as_array().unwrap();
    let texts: Vec<&str> = words.iter().map(|w| w["text"].as_str().unwrap()).collect();
    let expected = [
        "<|startoftext|>",
        "the",
        "quick",
        "brown",
        "foxes",
        "<|endoftext|>",
        "",
    ];
    assert_eq!(texts, expected);
    assert_eq!(files(&trace_folder.join("attention")).len(), 7);
    // Eight steps from left to right, in four rows; a word in each column.
    let overview = pixels(&trace_folder.join("steps.png"));
    assert_eq!(overview.dimensions(), (8 * 66 - 2, 4 * 66 - 2));
    let last = image::imageops::crop_imm(&overview, 7 * 66, 0, 64, 64).to_image();
    assert_eq!(
        last,
        pixels(&folder.join("out").join(&made_name)),
        "the picture itself"
    );
    let words_sheet = pixels(&trace_folder.join("words.png"));
    // Enlarged twice; "<|startoftext|>" needs a line.
    assert_eq!(words_sheet.dimensions(), (7 * 134 - 6, 128 + 16 + 6));
    let mut sum = vec![0.0; 64];
    for word in words {
        for (sum, share) in sum.iter_mut().zip(list(&word["attention"])) {
            assert!(share > 0.0);
            *sum += share;
        }
    }
    assert!(sum.iter().all(|sum| (sum - 1.0).abs() < 1e-4), "{sum:?}");
    refuse(
        folder,
        &[
            "sample",
            "--checkpoint",
            s(&model),
            "--trace",
            "trace",
            "--seed",
            "7",
            prompt[0],
        ],
        &["trace/7-the-quick-brown-foxes", "exists already"],
    );
}

#[test]
fn models_without_text_are_edited_and_traced_too() {
    let folder = tempfile::TempDir::new().unwrap();
    let folder = folder.path();
    save(folder, "photo.png", photo(60, 50));
    let half = GrayImage::from_fn(2, 1, |x, _| Luma([255 * (1 - x as u8)]));
    save(folder, "left.png", half);
    let cases: [(&str, &[&str], &str); 2] = [
        ("class_tiny", &["--class", "3"], "0-class-3"),
        ("uncond_tiny", &[], "0"),
    ];
    for (case, subject, name) in cases {
        let [checkpoint, config] = ["last.pth", "config.yaml"].map(|f| fixture(case).join(f));
        let model = ["--checkpoint", s(&checkpoint), "--config", s(&config)];
        let start = ["--init-image", "photo.png", "--mask", "left.png"];
        let more = ["--steps", "5", "--out", case, "--trace", "trace"];
        let sample = [&["sample"], &model[..], subject].concat();
        succeed(folder, &[&sample[..], &start, &more].concat());
        let made = picture(&pixels(&folder.join(case).join(format!("{name}.png"))));
        let original = picture(&photo(60, 50)).cover(made.width, made.height);
        let right = |p: &Picture| p.crop(p.width / 2, 0, p.width / 2, p.height);
        assert_eq!(right(&made), right(&original), "{case}");
        assert_ne!(made, original, "{case}");
        let trace_folder = folder.join("trace").join(name);
        assert_eq!(files(&trace_folder.join("entropy")).len(), 5, "{case}");
        assert!(files(&trace_folder.join("attention")).is_empty(), "{case}");
        assert!(!trace_folder.join("words.png").exists(), "{case}");
        let negative = ["--negative-prompt", "blurry", "--out", "no"];
        refuse(
            folder,
            &[&sample[..], &negative].concat(),
            &["--negative-prompt", "reads no text"],
        );
    }
}

/// Layer by layer from the weights, up to the first block's attention to the text.
#[test]
fn attention_to_the_text_is_the_softmax_of_the_first_block() {
    let case = fixture("text_tiny");
    let options = OpenOptions {
        config: Some(case.join("config.yaml")),
        ..OpenOptions::default()
    };
    let checkpoint = Checkpoint::open(&case.join("last.pth"), &options).unwrap();
    let pipeline = Pipeline::load(&checkpoint, Device::Cpu, Precision::F32).unwrap();
    let weight = |name: &str| {
        let name = format!("transformer.transformer.{name}");
        let entry = checkpoint
            .state
            .get(&name)
            .unwrap_or_else(|| panic!("{name}"));
        entry.read().unwrap().to_kind(Kind::Double)
    };
    let linear = |x: &Tensor, name: &str| {
        let (w, b) = (
            weight(&format!("{name}.weight")),
            weight(&format!("{name}.bias")),
        );
        x.matmul(&w.tr()) + b
    };
    let t = 37;
    let modulated = |x: &Tensor, name: &str| {
        let u = weight(&format!("{name}.emb.weight")).get(t);
        let parts = linear(&u.silu().unsqueeze(0), &format!("{name}.linear")).chunk(2, 1);
        let centred = x - x.mean_dim([-1i64].as_slice(), true, Kind::Double);
        let variance = centred
            .square()
            .mean_dim([-1i64].as_slice(), true, Kind::Double);
        centred / (variance + 1e-5).sqrt() * (&parts[0] + 1.0) + &parts[1]
    };
    // [64, 48] in 4 heads of 12 → softmax(q kᵀ / √12) [4, 64, keys]
    let attention = |q: &Tensor, k: &Tensor| {
        let heads = |x: &Tensor| x.view([-1, 4, 12]).transpose(0, 1);
        (heads(q).matmul(&heads(k).transpose(1, 2)) / 12f64.sqrt()).softmax(-1, Kind::Double)
    };
    let tokens = Tensor::arange(64, (Kind::Int64, Device::Cpu)).remainder(34);
    let row = weight("content_emb.height_emb.weight").repeat_interleave_self_int(8, 0, None);
    let column = weight("content_emb.width_emb.weight").repeat([8, 1]);
    let x = weight("content_emb.emb.weight").index_select(0, &tokens) + row + column;
    let h = modulated(&x, "blocks.0.ln1");
    let part = |name: &str| linear(&h, &format!("blocks.0.attn1.{name}"));
    let values = part("value").view([-1, 4, 12]).transpose(0, 1);
    let mixed = attention(&part("query"), &part("key")).matmul(&values);
    let mixed = mixed.transpose(0, 1).reshape([64, 48]);
    let x = x + linear(&mixed, "blocks.0.attn1.proj");
    let subject = [Subject::Text("a red fox".into())];
    let text = pipeline.conditioner().encode(&subject).unwrap();
    let query = linear(&modulated(&x, "blocks.0.ln1_1"), "blocks.0.attn2.query");
    let key = linear(&text.get(0).to_kind(Kind::Double), "blocks.0.attn2.key");
    let expected = attention(&query, &key).mean_dim([0i64].as_slice(), false, Kind::Double);

    let condition = pipeline.condition(&subject, false).unwrap();
    let maps = pipeline
        .denoiser()
        .text_attention(&tokens.unsqueeze(0), &Tensor::from_slice(&[t]), &condition)
        .unwrap();
    assert_eq!(
        maps.size(),
        [3, 1, 64, 77],
        "blocks, pictures, tokens, positions"
    );
    let sums = maps.sum_dim_intlist(-1, false, Kind::Double);
    assert!((sums - 1.0).abs().max().double_value(&[]) < 1e-5);
    let difference = (maps.get(0).get(0).to_kind(Kind::Double) - expected)
        .abs()
        .max();
    assert!(difference.double_value(&[]) < 1e-6, "{difference:?}");
}
