//! Preprocessing against Pillow and the original's rule, and the keyed draws.

use std::collections::HashSet;

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use vqdiffusion::data::dataset::Epoch;
use vqdiffusion::data::order::shuffled;
use vqdiffusion::data::{CropRule, DataError, Dataset, PictureLoader, Rows, Split, Transform};
use vqdiffusion::picture::{write_png, Picture};
use vqdiffusion::random::{below, sample_generator, TrainingDraw};

#[test]
fn resizing_equals_pillow() {
    let text = include_str!("../resize/pillow.json");
    let recorded: serde_json::Value = serde_json::from_str(text).unwrap();
    let (width, height) = (97u32, 64u32);
    let mut state = 12345u64; // the sequence of tests/resize/generate.py
    let rgb = (0..3 * width * height)
        .map(|_| {
            state = (1_103_515_245 * state + 12345) % (1 << 31);
            (state >> 16) as u8
        })
        .collect();
    let source = Picture { width, height, rgb };
    let cases = recorded["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 10);
    for case in cases {
        let side = |name: &str| case[name].as_u64().unwrap() as u32;
        let resized = source.resize(side("width"), side("height"));
        let first: Vec<u64> = resized.rgb.iter().take(24).map(|&v| v.into()).collect();
        let name = format!("{} x {}", side("width"), side("height"));
        assert_eq!(serde_json::json!(first), case["first"], "{name}");
        let hash: String = Sha256::digest(&resized.rgb)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(hash, case["sha256"].as_str().unwrap(), "{name}");
    }
}

/// A picture whose red and green values are the column and the row.
fn ruler(width: u32, height: u32) -> Picture {
    let pixel = |n: u32| [(n % width) as u8, (n / width) as u8, 0];
    let rgb = (0..width * height).flat_map(pixel).collect();
    Picture { width, height, rgb }
}

#[test]
fn training_crops_follow_the_rule() {
    // Short side = target: neither resized nor cropped again, so the first pixel tells
    // the offset. Slack 40: offsets 15 to 24.
    let transform = Transform {
        size: 64,
        crop: CropRule::Random,
        flip: false,
    };
    let wide = ruler(104, 64);
    let mut offsets = HashSet::new();
    for sample in 0..400 {
        let square = transform.apply(&wide, 11, sample);
        assert_eq!((square.width, square.height), (64, 64));
        assert_eq!(square.rgb[1], 0);
        offsets.insert(square.rgb[0]);
        assert_eq!(
            square,
            transform.apply(&wide, 11, sample),
            "a function of its key"
        );
    }
    let mut offsets: Vec<u8> = offsets.into_iter().collect();
    offsets.sort();
    assert_eq!(offsets, (15..25).collect::<Vec<u8>>());

    // A larger square picture: sizes 64 to 72, so at the first pixel up to 8 pixels are
    // cropped away, and the scale is between 200/72 and 200/64.
    let large = ruler(200, 200);
    for sample in 0..200 {
        let square = transform.apply(&large, 11, sample);
        assert!(square.rgb[0] <= 25, "{}", square.rgb[0]);
        let span = f64::from(square.rgb[3 * 63]) - f64::from(square.rgb[0]);
        let scale = span / 63.0;
        assert!(
            (200.0 / 72.0 - 0.05..200.0 / 64.0 + 0.05).contains(&scale),
            "{scale}"
        );
    }
}

#[test]
fn validation_takes_the_centre_and_flips_mirror() {
    let mut transform = Transform {
        size: 64,
        crop: CropRule::Center,
        flip: false,
    };
    let square = transform.apply(&ruler(105, 64), 0, 0);
    assert_eq!(square.rgb[..3], [20, 0, 0], "(105 − 64) / 2, rounded down");
    let tall = transform.apply(&ruler(64, 101), 0, 0);
    assert_eq!(tall.rgb[..3], [0, 18, 0]);
    // Long side truncated: 99 · 64 / 70 = 90.5.
    let expected = ruler(99, 70).resize(90, 64);
    let square = transform.apply(&ruler(99, 70), 0, 0);
    assert_eq!(square.rgb[..3], expected.rgb[3 * 13..3 * 14]);

    transform.flip = true;
    let plain = ruler(64, 64);
    let mut mirrored = 0;
    for sample in 0..1000 {
        let square = transform.apply(&plain, 3, sample);
        if square.rgb[0] == 63 {
            mirrored += 1;
            assert_eq!(square.rgb[3 * 63], 0);
            assert_eq!(square.rgb[3 * 64 + 1], 1, "rows stay");
        } else {
            assert_eq!(square, plain);
        }
    }
    // Five standard deviations of Binomial(1000, ½).
    assert!((421..=579).contains(&mirrored), "{mirrored}");
}

#[test]
fn orders_are_permutations() {
    for count in [1u32, 2, 3, 1000] {
        let mut order = shuffled(5, 0, count);
        order.sort();
        assert_eq!(order, (0..count).collect::<Vec<u32>>());
    }
    assert_ne!(shuffled(5, 0, 1000), shuffled(5, 1, 1000), "by epoch");
    assert_ne!(shuffled(5, 0, 1000), shuffled(6, 0, 1000), "by seed");
    // All 24 orders of four rows, each about equally often: chi-square with 23 degrees
    // of freedom, 99.99 % quantile 57.
    let mut counts = std::collections::HashMap::new();
    for epoch in 0..2400 {
        *counts.entry(shuffled(5, epoch, 4)).or_insert(0u32) += 1;
    }
    let chi: f64 = counts
        .values()
        .map(|&n| (f64::from(n) - 100.0).powi(2) / 100.0)
        .sum();
    assert_eq!(counts.len(), 24);
    assert!(chi < 57.0, "{chi}");
}

#[test]
fn choices_are_uniform() {
    let mut counts = [0u32; 10];
    for sample in 0..10_000 {
        let mut generator = sample_generator(1, sample, TrainingDraw::Caption);
        counts[below(&mut generator, 10) as usize] += 1;
    }
    // 9 degrees of freedom, 99.99 % quantile 34.
    let chi: f64 = counts
        .iter()
        .map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0)
        .sum();
    assert!(chi < 34.0, "{counts:?}");
}

#[test]
fn picture_batches_are_functions_of_the_sample() {
    let root = TempDir::new().unwrap();
    for n in 0..5 {
        let value = |i: u32| ((i * (n + 3)) % 256) as u8;
        let (width, height) = (40, 30);
        let rgb = (0..3 * width * height).map(value).collect();
        let path = root.path().join(format!("{n}.png"));
        write_png(&path, &Picture { width, height, rgb }, &[]).unwrap();
    }
    std::fs::write(root.path().join("5.png"), b"").unwrap();
    let transform = Transform {
        size: 16,
        crop: CropRule::Random,
        flip: true,
    };
    let loader = |strict| {
        let dataset = Dataset::open(root.path(), Split::Train, false).unwrap();
        let rows = Rows::new(Epoch::Pictures, &dataset.items);
        PictureLoader::new(dataset, rows, transform, 9, strict).unwrap()
    };
    let whole = loader(false).batch(0, 24).unwrap();
    assert_eq!(whole.pictures.size(), [24, 3, 16, 16]);
    assert_eq!(whole.samples, (0..24).collect::<Vec<u64>>());
    // In parts, out of order, in another process's loader: the same.
    let other = loader(false);
    for first in [17, 3, 10] {
        let part = other.batch(first, 7).unwrap();
        let expected = whole.pictures.narrow(0, first as i64, 7);
        assert!(part.pictures.equal(&expected), "samples from {first}");
        assert_eq!(part.rows, whole.rows[first as usize..][..7]);
    }
    // Every readable picture once an epoch, and the unreadable one replaced and listed.
    for epoch in whole.rows.chunks(6) {
        let seen: HashSet<usize> = epoch.iter().map(|row| row.item).collect();
        assert_eq!(seen, (0..5).collect(), "{epoch:?}");
    }
    let listed = other.skipped();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].what.as_str(), listed[0].reason.as_str()),
        ("5.png", "the file is empty")
    );
    let error = loader(true).batch(0, 6).map(|_| ()).unwrap_err();
    assert!(matches!(error, DataError::Strict { .. }), "{error}");
}
