//! Pictures to start from: invariants through the real binary and the library, on the
//! text_tiny model (64×64 pixels, 8×8 tokens of 8×8 pixels).

use std::path::Path;

use image::{DynamicImage, GrayImage, ImageBuffer, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use tch::{Device, Kind, Tensor};
use vqdiffusion::checkpoint::{Checkpoint, OpenOptions};
use vqdiffusion::diffusion::purity::Revealing;
use vqdiffusion::diffusion::truncation::Truncation;
use vqdiffusion::diffusion::{RevealOrder, ReverseRule, SamplerConfig, Times};
use vqdiffusion::picture::{read_picture, Mask, Picture};
use vqdiffusion::pipeline::{Canvas, EditError, Margins};
use vqdiffusion::pipeline::{Edits, Origin, Pipeline, Subject};
use vqdiffusion::torch::device::Precision;

use crate::running::{fixture, native_model, refuse, s, succeed};

/// A picture without symmetries.
pub fn photo(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([
            (x * 255 / width) as u8,
            (y * 255 / height) as u8,
            ((x * x + 3 * y) % 200) as u8,
        ])
    })
}

pub fn save(folder: &Path, name: &str, picture: impl Into<DynamicImage>) {
    picture.into().save(folder.join(name)).unwrap();
}

pub fn pixels(path: &Path) -> RgbImage {
    image::open(path).unwrap().to_rgb8()
}

pub fn picture(image: &RgbImage) -> Picture {
    Picture {
        width: image.width(),
        height: image.height(),
        rgb: image.as_raw().clone(),
    }
}

/// `vqdiffusion sample` with the model, few steps and f32.
pub fn sample(folder: &Path, model: &Path, out: &str, options: &[&str]) {
    let mut args = vec!["sample", "--checkpoint", s(model), "--dtype", "f32"];
    args.extend(["--steps", "10", "--out", out]);
    args.extend(options);
    succeed(folder, &args);
}

pub fn pipeline() -> Pipeline {
    let case = fixture("text_tiny");
    let options = OpenOptions {
        config: Some(case.join("config.yaml")),
        ..OpenOptions::default()
    };
    let checkpoint = Checkpoint::open(&case.join("last.pth"), &options).unwrap();
    Pipeline::load(&checkpoint, Device::Cpu, Precision::F32).unwrap()
}

pub fn config(rule: ReverseRule, steps: usize, revealing: Option<Revealing>) -> SamplerConfig {
    SamplerConfig {
        steps,
        times: Times::Even,
        order: RevealOrder::Independent,
        guidance: 2.0,
        guidance_span: None,
        local_steps: 0,
        truncation: Truncation::Off,
        revealing,
        rule,
    }
}

fn integers(x: &Tensor) -> Vec<i64> {
    Vec::try_from(x.flatten(0, -1)).unwrap()
}

#[test]
fn no_strength_is_the_reconstruction_and_full_strength_a_run_from_nothing() {
    let (folder, model) = native_model();
    let folder = folder.path();
    save(folder, "photo.png", photo(90, 70));
    let out = succeed(
        folder,
        &[
            "reconstruct",
            "--checkpoint",
            s(&model),
            "--out",
            "codec",
            "photo.png",
        ],
    );
    let line = out.trim_end().strip_prefix("codec/photo.png: PSNR ");
    let decibels: f64 = line
        .and_then(|rest| rest.strip_suffix(" dB"))
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{out}"));
    let reconstruction = pixels(&folder.join("codec/photo.png"));
    let original = picture(&photo(90, 70)).cover(64, 64);
    let squares: f64 = original
        .rgb
        .iter()
        .zip(reconstruction.as_raw())
        .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
        .sum();
    let expected = 20.0 * 255f64.log10() - 10.0 * (squares / (64.0 * 64.0 * 3.0)).log10();
    assert!((decibels - expected).abs() < 0.006, "{decibels} {expected}");

    let start = ["--init-image", "photo.png", "--seed", "8", "a dog"];
    let with = |strength: &'static str| [&["--strength", strength], &start[..]].concat();
    sample(folder, &model, "none", &with("0"));
    sample(folder, &model, "all", &with("1"));
    sample(folder, &model, "half", &with("0.5"));
    let variation = [
        "--init-image",
        "photo.png",
        "--strength",
        "0.5",
        "--seed",
        "9",
        "a dog",
    ];
    sample(folder, &model, "other", &variation);
    sample(folder, &model, "nothing", &["--seed", "8", "a dog"]);
    let made = |out: &str| pixels(&folder.join(out).join("8-a-dog.png"));
    assert_eq!(made("none"), reconstruction);
    assert_eq!(made("all"), made("nothing"));
    assert_ne!(made("half"), made("none"));
    assert_ne!(made("half"), made("all"));
    assert_ne!(made("half"), pixels(&folder.join("other/9-a-dog.png")));
}

#[test]
fn only_the_masks_tokens_are_redrawn() {
    let (folder, model) = native_model();
    let folder = folder.path();
    let photo = photo(128, 64); // cut to its middle: pixels 32 to 96
    save(folder, "photo.png", photo.clone());
    // One white pixel in the cell of row 2, column 3; and one whose cell is cut off.
    let mut mask = GrayImage::new(128, 64);
    mask.put_pixel(32 + 3 * 8 + 7, 2 * 8, Luma([255]));
    mask.put_pixel(31, 20, Luma([255]));
    mask.put_pixel(40, 40, Luma([127])); // darker than half
    save(folder, "mask.png", mask);
    let options = ["--init-image", "photo.png", "--mask", "mask.png", "a dog"];
    let cases: [&[&str]; 5] = [
        &[],
        &["--strength", "0.3"],
        &["--compat", "official", "--steps", "34"],
        &["--compat", "diffusers"],
        &["--purity", "1", "--tokens-per-step", "2"],
    ];
    let original = picture(&photo).cover(64, 64);
    for (i, more) in cases.iter().enumerate() {
        let out = format!("out{i}");
        let mut args = vec!["sample", "--checkpoint", s(&model), "--out", &out];
        args.extend(*more);
        args.extend(options);
        succeed(folder, &args);
        let made = pixels(&folder.join(&out).join("0-a-dog.png"));
        for (x, y, pixel) in made.enumerate_pixels() {
            let at = 3 * (y * 64 + x) as usize;
            let same = pixel.0 == original.rgb[at..at + 3];
            let redrawn = (24..32).contains(&x) && (16..24).contains(&y);
            assert!(same || redrawn, "{more:?}: pixel {x}, {y} was kept");
        }
        let changed = made
            .enumerate_pixels()
            .filter(|(x, y, p)| p.0[..] != original.rgb[3 * (y * 64 + x) as usize..][..3])
            .count();
        assert!(changed > 32, "{more:?}: {changed} of 64 pixels changed");
    }
    // An outpainted picture keeps its own part.
    succeed(
        folder,
        &[
            "sample",
            "--checkpoint",
            s(&model),
            "--init-image",
            "photo.png",
            "--outpaint",
            "left=16,bottom=8",
            "--steps",
            "5",
            "a dog",
        ],
    );
    let made = pixels(&folder.join("outputs/0-a-dog.png"));
    let inner = picture(&photo).cover(48, 56);
    assert_eq!(picture(&made).crop(16, 0, 48, 56), inner);
}

#[test]
fn kept_tokens_never_change() {
    let pipeline = pipeline();
    let x_0 = pipeline.encode(&picture(&photo(64, 64)));
    let redrawn = Tensor::arange(64, (Kind::Int64, Device::Cpu))
        .remainder(3)
        .eq(0)
        .unsqueeze(0);
    let edits = Edits {
        origin: Some(Origin {
            tokens: x_0.shallow_clone(),
            redrawn: Some(redrawn.shallow_clone()),
        }),
        ..Edits::default()
    };
    let revealing = Revealing {
        purity: Some(0.5),
        tokens_per_evaluation: 3,
    };
    for config in [
        config(ReverseRule::Exact, 20, None),
        config(ReverseRule::Official, 26, None),
        config(ReverseRule::Diffusers, 20, None),
        config(ReverseRule::Exact, 10, Some(revealing)),
        config(ReverseRule::Official, 26, Some(revealing)),
    ] {
        let plan = pipeline.plan(&config).unwrap();
        let mut steps = 0;
        let mut observe = |step: vqdiffusion::diffusion::sampler::Progress| {
            steps += 1;
            let differ = step
                .tokens
                .ne_tensor(&x_0)
                .logical_and(&redrawn.logical_not());
            assert_eq!(differ.any().int64_value(&[]), 0, "step {}", step.done);
            std::ops::ControlFlow::Continue(())
        };
        let subjects = ["a dog", "a cat"].map(|text| Subject::Text(text.into()));
        let condition = pipeline.edited_condition(&subjects, &plan, &edits).unwrap();
        let tokens = pipeline
            .sample_batch(&plan, &[4, 5], &edits, &condition, &mut observe)
            .unwrap();
        assert_eq!(steps, config.steps);
        assert_eq!(tokens.size(), [2, 64]);
        assert!(tokens.max().int64_value(&[]) < 33, "no mask is left");
        let other = tokens.ne_tensor(&x_0).any().int64_value(&[]);
        assert_eq!(other, 1, "something was redrawn");
    }
}

#[test]
fn an_edit_does_not_depend_on_its_batch() {
    let (folder, model) = native_model();
    let folder = folder.path();
    save(folder, "photo.png", photo(64, 64));
    let start = ["--init-image", "photo.png", "--strength", "0.6"];
    let together = [&start[..], &["--seed", "3", "--count", "3", "a cat"]].concat();
    sample(folder, &model, "together", &together);
    let alone = [&start[..], &["--seed", "5", "--batch-size", "1", "a cat"]].concat();
    sample(folder, &model, "alone", &alone);
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    assert_eq!(read("together/5-a-cat.png"), read("alone/5-a-cat.png"));
    assert_ne!(read("together/4-a-cat.png"), read("alone/5-a-cat.png"));
}

#[test]
fn an_edited_png_repeats_itself_with_the_same_files() {
    let (folder, model) = native_model();
    let folder = folder.path();
    save(folder, "photo.png", photo(64, 80));
    save(folder, "other.png", photo(64, 81));
    let mut mask = GrayImage::new(10, 10);
    mask.put_pixel(4, 4, Luma([255]));
    save(folder, "mask.png", mask.clone());
    mask.put_pixel(5, 5, Luma([255]));
    save(folder, "other_mask.png", mask);
    let photo = ["--init-image", "photo.png"];
    let masked = ["--init-image", "photo.png", "--mask", "mask.png"];
    let cases: [(&[&str], &[&str]); 4] = [
        (&masked, &["--strength", "0.7"]),
        (&masked, &["--guidance", "3", "--negative-prompt", "blurry"]),
        (&photo, &["--strength", "0.4"]),
        (&photo, &["--outpaint", "top=24,left=8"]),
    ];
    let again = |png: &str, out: &str, files: &[&str]| -> Vec<String> {
        let args = [
            "sample",
            "--checkpoint",
            s(&model),
            "--from-image",
            png,
            "--out",
            out,
        ];
        args.iter().chain(files).map(|a| a.to_string()).collect()
    };
    for (i, (files, options)) in cases.iter().enumerate() {
        let out = format!("first{i}");
        let all = [*files, options, &["--seed", "6", "a dog"]].concat();
        sample(folder, &model, &out, &all);
        let png = format!("{out}/6-a-dog.png");
        let repeat = again(&png, &format!("again{i}"), files);
        let repeat: Vec<&str> = repeat.iter().map(String::as_str).collect();
        succeed(folder, &repeat);
        assert_eq!(
            std::fs::read(folder.join(&png)).unwrap(),
            std::fs::read(folder.join(format!("again{i}/6-a-dog.png"))).unwrap(),
            "{options:?}"
        );
    }
    let refused = |png: &str, files: &[&str], words: &[&str]| {
        let args = again(png, "no", files);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        refuse(folder, &args, words);
        assert!(!folder.join("no/6-a-dog.png").exists());
    };
    let png = "first0/6-a-dog.png";
    refused(
        png,
        &[],
        &["made from the picture of SHA-256", "--init-image"],
    );
    refused(png, &photo, &["made with the mask of SHA-256", "--mask"]);
    refused(
        png,
        &["--init-image", "other.png", "--mask", "mask.png"],
        &["other.png", "SHA-256"],
    );
    refused(
        png,
        &["--init-image", "photo.png", "--mask", "other_mask.png"],
        &["other_mask.png", "SHA-256"],
    );
    refused("first2/6-a-dog.png", &masked, &["without a mask"]);
    sample(folder, &model, "plain", &["--seed", "6", "a dog"]);
    refused("plain/6-a-dog.png", &photo, &["not made from a picture"]);
    // No path of this machine is in the file.
    for (_, value) in vqdiffusion::picture::read_png_texts(&folder.join(png)).unwrap() {
        assert!(
            !value.contains("photo") && !value.contains("mask.png"),
            "{value}"
        );
    }
}

/// With the prompt itself in the null text's place guidance has nothing to strengthen.
#[test]
fn a_negative_prompt_takes_the_null_texts_place() {
    let (folder, model) = native_model();
    let folder = folder.path();
    let guided = ["--guidance", "4", "--truncation", "1"];
    let negative =
        |prompt: &'static str| [&guided[..], &["--negative-prompt", prompt, "a dog"]].concat();
    sample(folder, &model, "itself", &negative("a dog"));
    sample(folder, &model, "empty", &negative(""));
    sample(folder, &model, "cat", &negative("a cat"));
    sample(
        folder,
        &model,
        "plain",
        &["--guidance", "1", "--truncation", "1", "a dog"],
    );
    sample(
        folder,
        &model,
        "guided",
        &[&guided[..], &["a dog"]].concat(),
    );
    let made = |out: &str| pixels(&folder.join(out).join("0-a-dog.png"));
    assert_eq!(made("itself"), made("plain"));
    assert_ne!(made("cat"), made("guided"));
    assert_ne!(made("cat"), made("plain"));
    // This model's null text is that of the empty prompt.
    assert_eq!(made("empty"), made("guided"));
}

#[test]
fn bad_edits_are_refused() {
    let (folder, model) = native_model();
    let folder = folder.path();
    save(folder, "photo.png", photo(64, 64));
    save(folder, "black.png", GrayImage::new(9, 9));
    std::fs::write(folder.join("text.png"), "no picture").unwrap();
    std::fs::write(folder.join("map.bmp"), "BM and so on").unwrap();
    let whole = std::fs::read(folder.join("photo.png")).unwrap();
    std::fs::write(folder.join("half.png"), &whole[..whole.len() / 2]).unwrap();
    let photo = ["--init-image", "photo.png"];
    let cases: [(&[&str], &[&str]); 17] = [
        (&photo, &["--strength, --mask or --outpaint"]),
        (&["--strength", "0.5"], &["--init-image"]),
        (&["--mask", "black.png"], &["--init-image"]),
        (&["--outpaint", "left=8"], &["--init-image"]),
        (
            &["--init-image", "photo.png", "--strength", "1.5"],
            &["strength is 1.5", "0 to 1"],
        ),
        (
            &["--init-image", "photo.png", "--strength", "NaN"],
            &["strength is NaN", "0 to 1"],
        ),
        (
            &["--init-image", "photo.png", "--mask", "black.png"],
            &["black.png", "selects nothing"],
        ),
        (
            &["--init-image", "absent.png", "--strength", "1"],
            &["absent.png"],
        ),
        (
            &["--init-image", "text.png", "--strength", "1"],
            &["text.png", "expected PNG, JPEG"],
        ),
        (
            &["--init-image", "map.bmp", "--strength", "1"],
            &["map.bmp", "BMP", "expected PNG, JPEG"],
        ),
        (
            &["--init-image", "half.png", "--strength", "1"],
            &["half.png"],
        ),
        (
            &["--init-image", "photo.png", "--outpaint", "left=7"],
            &["left is 7", "multiple of 8"],
        ),
        (
            &[
                "--init-image",
                "photo.png",
                "--outpaint",
                "top=32,bottom=32",
            ],
            &["top and bottom is 64", "64 pixels"],
        ),
        (
            &["--init-image", "photo.png", "--outpaint", "up=8"],
            &["'up' is not a side"],
        ),
        (
            &[
                "--init-image",
                "photo.png",
                "--outpaint",
                "left=8",
                "--strength",
                "1",
            ],
            &["--strength"],
        ),
        (
            &["--negative-prompt", "x", "--guidance", "1"],
            &["--negative-prompt", "guidance"],
        ),
        (
            &[
                "--init-image",
                "photo.png",
                "--strength",
                "0.5",
                "--purity",
                "1",
            ],
            &["strength is 0.5", "masks alone"],
        ),
    ];
    for (options, words) in cases {
        let mut args = vec!["sample", "--checkpoint", s(&model)];
        args.extend(options);
        args.push("a dog");
        refuse(folder, &args, words);
        assert!(!folder.join("outputs/0-a-dog.png").exists(), "{options:?}");
    }
    let codec = ["--checkpoint", s(&model)];
    let reconstruct = [&["reconstruct"], &codec[..]].concat();
    let refused = |command: &[&str], more: &[&str], words: &[&str]| {
        refuse(folder, &[command, more].concat(), words);
    };
    refused(
        &reconstruct,
        &["photo.png", "--out", "."],
        &["photo.png", "would be replaced"],
    );
    refused(
        &reconstruct,
        &["--overwrite", "--out", ".", "photo.png"],
        &["photo.png", "would be replaced"],
    );
    refused(
        &reconstruct,
        &["a/p.png", "b/p.png", "--out", "new"],
        &["a/p.png", "b/p.png", "both"],
    );
    refused(
        &reconstruct,
        &["text.png", "--out", "new"],
        &["text.png", "expected PNG, JPEG"],
    );
    refused(
        &reconstruct,
        &["--seed", "3", "photo.png", "--out", "new"],
        &["--sampled"],
    );
    let nearest = fixture("diffusers_tiny").join("pipeline");
    let nearest = ["tokenize", "--checkpoint", s(&nearest)];
    refused(
        &nearest,
        &["photo.png", "--sampled"],
        &["--sampled", "Gumbel"],
    );
    let tokenize = [&["tokenize"], &codec[..]].concat();
    refused(&tokenize, &["absent.png"], &["absent.png"]);
    refused(
        &tokenize,
        &["photo.png", "--out", "none/x.json"],
        &["none/x.json"],
    );
}

#[test]
fn tokens_as_json_are_the_codecs() {
    let (folder, model) = native_model();
    let folder = folder.path();
    save(folder, "photo.png", photo(70, 64));
    let tokenize = |more: &[&str]| -> Vec<serde_json::Value> {
        let args = ["tokenize", "--checkpoint", s(&model), "photo.png"];
        succeed(folder, &[&args[..], more].concat())
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let plain = tokenize(&[]);
    let pipeline = pipeline();
    let expected = pipeline.encode(&picture(&photo(70, 64)).cover(64, 64));
    let rows: Vec<Vec<i64>> = serde_json::from_value(plain[0]["tokens"].clone()).unwrap();
    assert_eq!(rows.concat(), integers(&expected));
    assert_eq!((rows.len(), rows[0].len()), (8, 8));
    assert_eq!(plain[0]["codes"], 33);
    assert_eq!(plain[0]["image"], "photo.png");

    let drawn = tokenize(&["--sampled", "--seed", "1", "photo.png"]);
    assert_eq!(drawn.len(), 2);
    assert_ne!(drawn[0]["tokens"], plain[0]["tokens"]);
    assert_ne!(drawn[0]["tokens"], drawn[1]["tokens"], "seeds 1 and 2");
    let second = tokenize(&["--sampled", "--seed", "2"]);
    assert_eq!(drawn[1]["tokens"], second[0]["tokens"]);

    assert!(tokenize(&["--out", "tokens.jsonl"]).is_empty());
    let line = std::fs::read_to_string(folder.join("tokens.jsonl")).unwrap();
    let read: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(read, plain[0]);
}

/// The cells that a mask selects, against the overlap of every pixel's rectangle with
/// every cell's.
#[test]
fn mask_edges_are_at_token_granularity() {
    let model = pipeline().config().clone();
    let mut random = 12345u32;
    let mut next = |below: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) % below
    };
    for round in 0..200 {
        let [width, height, w, h] = [1, 2, 3, 4].map(|_| 1 + next(150));
        let mut selected = vec![false; (w * h) as usize];
        for _ in 0..1 + round % 3 {
            selected[next(w * h) as usize] = true;
        }
        let mask = Mask {
            width: w,
            height: h,
            selected: selected.clone(),
        };
        let image = picture(&photo(width, height));
        let (short, long) = (width.min(height), width.max(height));
        let scaled = long * 64 / short;
        let offset = (scaled - 64) / 2;
        let (sx, sy, ox, oy) = match width < height {
            true => (64, scaled, 0, offset),
            false => (scaled, 64, offset, 0),
        };
        // In units of 1 / (w h) of a canvas pixel, so that all is whole.
        let overlap = |at: u32, count: u32, other: u32, scaled: u32, offset: u32, cell: u32| {
            let (count, other) = (i64::from(count), i64::from(other));
            let start = (i64::from(at) * i64::from(scaled) - i64::from(offset) * count) * other;
            let end = start + i64::from(scaled) * other;
            let unit = count * other;
            let (from, to) = (i64::from(8 * cell) * unit, i64::from(8 * cell + 8) * unit);
            start.max(from) < end.min(to)
        };
        let expected: Vec<bool> = (0..64)
            .map(|cell| {
                (0..w * h).any(|i| {
                    let (x, y) = (i % w, i / w);
                    selected[i as usize]
                        && overlap(x, w, h, sx, ox, cell % 8)
                        && overlap(y, h, w, sy, oy, cell / 8)
                })
            })
            .collect();
        match Canvas::masked(&image, &mask, "mask.png", &model) {
            Ok(canvas) => assert_eq!(canvas.redrawn, Some(expected)),
            Err(EditError::EmptyMask { .. }) => assert!(!expected.contains(&true)),
            Err(error) => panic!("{error}"),
        }
    }
    let margins = Margins {
        left: 8,
        right: 0,
        top: 0,
        bottom: 24,
    };
    let canvas = Canvas::outpainted(&picture(&photo(30, 30)), margins, &model).unwrap();
    let expected = (0..64).map(|cell| cell % 8 < 1 || cell / 8 >= 5).collect();
    assert_eq!(canvas.redrawn, Some(expected));
}

/// Values of Pillow 13.0: the picture below, `resize` to cover the target (the longer
/// side rounded down), `crop` from half the rest rounded down; its first two pixels, and
/// all bytes folded as f ← (1000003 f + byte) mod 2^61.
#[test]
fn pictures_are_scaled_and_cut_as_by_pillow() {
    let cases = [
        (
            [13, 9],
            [8, 8],
            [12, 65, 118, 44, 97, 155],
            1156937880540330657,
        ),
        (
            [9, 13],
            [8, 8],
            [19, 71, 124, 46, 102, 159],
            2017782024232919532,
        ),
        (
            [300, 211],
            [64, 64],
            [120, 141, 134, 125, 114, 120],
            1947905885557067613,
        ),
        (
            [5, 7],
            [16, 16],
            [3, 56, 109, 4, 57, 110],
            1615847872072547482,
        ),
        (
            [64, 48],
            [24, 40],
            [210, 24, 77, 219, 14, 67],
            1475692196084761094,
        ),
        (
            [31, 31],
            [31, 31],
            [0, 53, 106, 7, 60, 113],
            565319525858414876,
        ),
    ];
    for ([width, height], [to_width, to_height], first, folded) in cases {
        let image = RgbImage::from_fn(width, height, |x, y| {
            let base = 7 * x * x + 11 * y * y + 13 * x * y;
            Rgb([0, 53, 106].map(|c| ((base + c) % 256) as u8))
        });
        let made = picture(&image).cover(to_width, to_height);
        assert_eq!((made.width, made.height), (to_width, to_height));
        assert_eq!(made.rgb[..6], first, "{width}×{height}");
        let fold = made.rgb.iter().fold(0u64, |f, &byte| {
            ((u128::from(f) * 1_000_003 + u128::from(byte)) % (1 << 61)) as u64
        });
        assert_eq!(fold, folded, "{width}×{height}");
    }
}

#[test]
fn pictures_of_every_kind_are_read() {
    let folder = tempfile::TempDir::new().unwrap();
    let read = |name: &str| read_picture(&folder.path().join(name)).unwrap();
    let colour = |x: u32| [10 * x as u8, 200, 255 - 10 * x as u8];
    save(
        folder.path(),
        "rgb.png",
        RgbImage::from_fn(5, 3, |x, _| Rgb(colour(x))),
    );
    assert_eq!(read("rgb.png").rgb[3..6], colour(1));

    let grey = GrayImage::from_fn(5, 3, |x, y| Luma([(40 * x + y) as u8]));
    save(folder.path(), "grey.png", grey);
    assert_eq!(read("grey.png").rgb[15..21], [1, 1, 1, 41, 41, 41]);

    // Transparent is white, half transparent half way there.
    let alpha = RgbaImage::from_fn(3, 1, |x, _| Rgba([0, 100, 200, [0, 51, 255][x as usize]]));
    save(folder.path(), "alpha.png", alpha);
    assert_eq!(
        read("alpha.png").rgb,
        [255, 255, 255, 204, 224, 244, 0, 100, 200]
    );

    let deep: ImageBuffer<Rgb<u16>, Vec<u16>> =
        ImageBuffer::from_fn(2, 1, |x, _| Rgb([x as u16 * 65535, 257 * 7, 32768]));
    save(folder.path(), "deep.png", DynamicImage::ImageRgb16(deep));
    assert_eq!(read("deep.png").rgb, [0, 7, 128, 255, 7, 128]);

    save(
        folder.path(),
        "smooth.jpg",
        RgbImage::from_pixel(16, 16, Rgb([90, 90, 90])),
    );
    let jpeg = read("smooth.jpg");
    assert_eq!((jpeg.width, jpeg.height), (16, 16));
    assert!(jpeg.rgb.iter().all(|c| c.abs_diff(90) <= 1));

    let whole = std::fs::read(folder.path().join("smooth.jpg")).unwrap();
    std::fs::write(folder.path().join("cut.jpg"), &whole[..whole.len() - 2]).unwrap();
    save(folder.path(), "narrow.png", GrayImage::new(2, 200));
    let file = std::fs::File::create(folder.path().join("huge.png")).unwrap();
    let mut encoder = png::Encoder::new(file, 1 << 14, 1 << 14);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&vec![0; 1 << 25]).unwrap();
    drop(writer);
    for (name, words) in [
        ("narrow.png", "2 by 200"),
        ("huge.png", "16384 by 16384"),
        ("cut.jpg", "end too early"),
    ] {
        let error = read_picture(&folder.path().join(name))
            .unwrap_err()
            .to_string();
        assert!(error.contains(name) && error.contains(words), "{error}");
    }
}
