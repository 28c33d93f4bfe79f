//! Pictures that start from others.

use serde_json::json;
use vqdiffusion::picture::{png_bytes, Mask, Picture};

use super::client::{base64, events, pixels, unbase64, Server};
use super::sameness::sampled;
use crate::running::native_model;

/// A PNG that is transparent where `mask` selects.
fn with_holes(picture: &Picture, mask: &Mask) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, mask.width, mask.height);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Eight);
    let pixels = picture.rgb.chunks(3).zip(&mask.selected);
    let rgba: Vec<u8> = pixels
        .flat_map(|(rgb, &hole)| [rgb[0], rgb[1], rgb[2], if hole { 0 } else { 255 }])
        .collect();
    let mut writer = encoder.write_header().expect("a head");
    writer.write_image_data(&rgba).expect("pixels");
    writer.finish().expect("an end");
    bytes
}

#[test]
fn edits_are_those_of_sample() {
    let (folder, model) = native_model();
    let folder = folder.path();
    let server = Server::of(folder, &model, &[]);
    let start = sampled(folder, &model, &["--seed", "1", "--steps", "3", "a cat"]);
    let picture = pixels(&start);
    let (width, height) = (picture.width, picture.height);
    let selected: Vec<bool> = (0..width * height).map(|i| i % width < width / 2).collect();
    let mask = Mask {
        width,
        height,
        selected,
    };
    let white = png_bytes(&mask.to_picture(), &[]).expect("a PNG");
    std::fs::write(folder.join("start.png"), &start).expect("a file");
    std::fs::write(folder.join("white.png"), &white).expect("a file");
    let options = [
        "--seed",
        "7",
        "--steps",
        "4",
        "--init-image",
        "start.png",
        "a bird",
    ];
    let masked = [&options[..], &["--mask", "white.png"]].concat();
    let redrawn = pixels(&sampled(folder, &model, &masked));
    let varied = [&options[..], &["--strength", "0.5"]].concat();
    let varied = pixels(&sampled(folder, &model, &varied));
    assert!(redrawn != varied && redrawn != picture);

    // OpenAI's: transparent is redrawn, in a mask or in the picture itself.
    let texts = [
        ("prompt", "a bird"),
        ("seed", "7"),
        ("steps", "4"),
        ("model", "gpt-image-1"),
    ];
    let holes = with_holes(&picture, &mask);
    let made = |texts: &[(&str, &str)], files: &[(&str, &[u8])]| {
        let answer = server.form("/v1/images/edits", texts, files).ok().json();
        pixels(&unbase64(&answer["data"][0]["b64_json"]))
    };
    assert!(made(&texts, &[("image", &start), ("mask", &holes)]) == redrawn);
    assert!(made(&texts, &[("image[]", &start), ("mask", &holes)]) == redrawn);
    let strength = [&texts[..], &[("strength", "0.5")]].concat();
    assert!(made(&strength, &[("image", &start)]) == varied);
    let streamed = [&texts[..], &[("stream", "true")]].concat();
    let files: [(&str, &[u8]); 2] = [("image", &start), ("mask", &holes)];
    let stream = events(
        &server
            .form("/v1/images/edits", &streamed, &files)
            .ok()
            .text(),
    );
    assert_eq!(stream[0].0, "image_edit.completed");
    assert!(pixels(&unbase64(&stream[0].1["b64_json"])) == redrawn);
    let opaque: [(&str, &[u8]); 2] = [("image", &start), ("mask", &white)];
    server
        .form("/v1/images/edits", &texts, &opaque)
        .refused(400, Some("mask"));
    server
        .form("/v1/images/edits", &texts, &[])
        .refused(400, Some("image"));
    let broken: [(&str, &[u8]); 1] = [("image", b"GIF89a")];
    server
        .form("/v1/images/edits", &texts, &broken)
        .refused(400, Some("image"));

    // Picture and mask of other sizes than the model's.
    let large = png_bytes(&picture.resize(100, 80), &[]).expect("a PNG");
    let small = Mask {
        width: 10,
        height: 8,
        selected: (0..80).map(|i| i % 10 > 4 && i > 30).collect(),
    };
    let white_small = png_bytes(&small.to_picture(), &[]).expect("a PNG");
    std::fs::write(folder.join("large.png"), &large).expect("a file");
    std::fs::write(folder.join("small.png"), &white_small).expect("a file");
    let options = [
        "--seed",
        "7",
        "--steps",
        "4",
        "--init-image",
        "large.png",
        "a bird",
    ];
    let masked = [&options[..], &["--mask", "small.png"]].concat();
    let expected = pixels(&sampled(folder, &model, &masked));
    let holes_small = with_holes(&small.to_picture(), &small);
    assert!(made(&texts, &[("image", &large), ("mask", &holes_small)]) == expected);

    // AUTOMATIC1111's: white is redrawn.
    let mut request = json!({
        "prompt": "a bird", "seed": 7, "steps": 4, "denoising_strength": 1.0,
        "init_images": [format!("data:image/png;base64,{}", base64(&start))],
        "mask": base64(&white),
    });
    let answer = server.post("/sdapi/v1/img2img", &request).ok().json();
    assert!(pixels(&unbase64(&answer["images"][0])) == redrawn);
    let inverse = Mask {
        selected: mask.selected.iter().map(|s| !s).collect(),
        ..mask.clone()
    };
    request["mask"] = base64(&png_bytes(&inverse.to_picture(), &[]).expect("a PNG")).into();
    request["inpainting_mask_invert"] = 1.into();
    let answer = server.post("/sdapi/v1/img2img", &request).ok().json();
    assert!(pixels(&unbase64(&answer["images"][0])) == redrawn);
    request["init_images"] = json!(["http://127.0.0.1/secret.png"]);
    server
        .post("/sdapi/v1/img2img", &request)
        .refused(400, Some("init_images"));
}

#[test]
fn tokens_that_are_not_redrawn_are_kept() {
    let (folder, model) = native_model();
    let server = Server::of(folder.path(), &model, &[]);
    let wait = |wish: serde_json::Value| {
        let job = server.post("/api/jobs", &wish).ok().json();
        let path = format!("/api/jobs/{}/events", job["id"].as_str().expect("an id"));
        let stream = events(&server.get(&path).ok().text());
        let made = stream
            .iter()
            .find(|(name, _)| name == "picture")
            .expect("a picture");
        made.1["id"].as_str().expect("an id").to_string()
    };
    let tokens = |id: &str| {
        let png = server.get(&format!("/api/pictures/{id}/png")).ok().body;
        let kind = [("Content-Type", "image/png")];
        let answer = server.ask("POST", "/api/tokens", &kind, &png).ok().json();
        assert_eq!(answer["own"], true);
        serde_json::from_value::<Vec<i64>>(answer["tokens"].clone()).expect("tokens")
    };
    let first = wait(json!({"prompt": "a bird", "seed": 1, "steps": 4}));
    let wish =
        json!({"prompt": "a cat", "seed": 2, "steps": 4, "picture": first, "redraw": [0, 1]});
    let second = wait(wish);
    let (before, after) = (tokens(&first), tokens(&second));
    assert_eq!(before[2..], after[2..]);
    // Once more from that: still nothing is lost.
    let wish = json!({"prompt": "a cat", "seed": 3, "steps": 4, "picture": second, "redraw": [3]});
    let third = tokens(&wait(wish));
    assert!(after
        .iter()
        .zip(&third)
        .enumerate()
        .all(|(i, (a, b))| i == 3 || a == b));

    let refused = |wish: serde_json::Value, param: &str| {
        server.post("/api/jobs", &wish).refused(400, Some(param));
    };
    refused(
        json!({"prompt": "a", "picture": first, "redraw": [before.len()]}),
        "redraw",
    );
    refused(
        json!({"prompt": "a", "picture": first, "redraw": []}),
        "mask",
    );
    refused(
        json!({"prompt": "a", "picture": "../../secret", "redraw": [0]}),
        "picture",
    );
    refused(json!({"prompt": "a", "redraw": [0]}), "picture");
    refused(json!({"prompt": "a", "picture": first}), "strength");
}
