//! A picture is that of `vqdiffusion sample`, whichever API is asked.

use std::path::Path;

use serde_json::json;
use vqdiffusion::picture::png_texts;
use vqdiffusion::Record;

use super::client::{events, pixels, unbase64, Server};
use crate::running::{native_model, s, succeed};

/// The file that `sample` makes with the same options.
pub fn sampled(folder: &Path, model: &Path, options: &[&str]) -> Vec<u8> {
    let fixed = [
        "sample",
        "--checkpoint",
        s(model),
        "--dtype",
        "f32",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--out",
        "cli",
        "--overwrite",
    ];
    let said = succeed(folder, &[&fixed[..], options].concat());
    let name = said.lines().last().expect("a file");
    std::fs::read(folder.join(name)).expect("a picture")
}

#[test]
fn every_api_makes_the_picture_of_sample() {
    let (folder, model) = native_model();
    let folder = folder.path();
    let server = Server::of(folder, &model, &[]);
    let options = ["--seed", "7", "--steps", "4", "--guidance", "2", "a bird"];
    let file = sampled(folder, &model, &options);
    let expected = pixels(&file);
    let own = json!({"prompt": "a bird", "seed": 7, "steps": 4, "guidance": 2});

    let with = |more: &str| {
        let mut all = own.clone();
        let more: serde_json::Value = serde_json::from_str(more).expect("JSON");
        all.as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("one").clone());
        all
    };
    let answer = server
        .post(
            "/v1/images/generations",
            &with(r#"{"n": 2, "size": "auto"}"#),
        )
        .ok();
    let answer = answer.json();
    let first = unbase64(&answer["data"][0]["b64_json"]);
    assert!(pixels(&first) == expected);
    let size = format!("{}x{}", expected.width, expected.height);
    assert_eq!(answer["size"], size);
    assert_eq!(answer["data"][1]["seed"], 8);
    let options = ["--seed", "8", "--steps", "4", "--guidance", "2", "a bird"];
    let second = pixels(&unbase64(&answer["data"][1]["b64_json"]));
    assert!(second == pixels(&sampled(folder, &model, &options)));

    // It says how it was made as that of `sample` does, and for other programs.
    let texts = png_texts(&first).expect("texts");
    let record = |file: &[u8]| {
        Record::of_texts(&png_texts(file).expect("texts"), "picture").expect("a record")
    };
    assert_eq!(record(&first), record(&file));
    let parameters = texts
        .iter()
        .find(|(key, _)| key == "parameters")
        .expect("parameters");
    let start = "a bird\nSteps: 4, Sampler: VQ-Diffusion, CFG scale: 2, Seed: 7, Size: ";
    assert!(parameters.1.starts_with(start), "{}", parameters.1);

    let larger = with(&format!(r#"{{"size": "{}x9999"}}"#, expected.width));
    server
        .post("/v1/images/generations", &larger)
        .refused(400, Some("size"));
    let larger = with(r#"{"size": "96x160"}"#);
    let answer = server.post("/v1/images/generations", &larger).ok().json();
    assert_eq!(answer["size"], "96x96");
    let scaled = pixels(&unbase64(&answer["data"][0]["b64_json"]));
    assert!(scaled == expected.resize(96, 96));
    let jpeg = with(r#"{"output_format": "jpeg"}"#);
    let answer = server.post("/v1/images/generations", &jpeg).ok().json();
    let file = unbase64(&answer["data"][0]["b64_json"]);
    assert!(file.starts_with(&[0xff, 0xd8]) && answer["output_format"] == "jpeg");

    let streamed = with(r#"{"stream": true, "partial_images": 2}"#);
    let text = server.post("/v1/images/generations", &streamed).ok().text();
    let stream = events(&text);
    let names: Vec<&str> = stream.iter().map(|(name, _)| name.as_str()).collect();
    let (partial, completed) = (
        "image_generation.partial_image",
        "image_generation.completed",
    );
    assert_eq!(names, [partial, partial, completed]);
    for (name, data) in &stream {
        assert_eq!(data["type"], name.as_str());
    }
    assert_eq!(stream[1].1["partial_image_index"], 1);
    assert!(pixels(&unbase64(&stream[0].1["b64_json"])) != expected);
    assert!(pixels(&unbase64(&stream[2].1["b64_json"])) == expected);

    let sdapi = json!({"prompt": "a bird", "seed": 7, "steps": 4, "cfg_scale": 2});
    let answer = server.post("/sdapi/v1/txt2img", &sdapi).ok().json();
    assert!(pixels(&unbase64(&answer["images"][0])) == expected);

    let parameters = json!({"seed": 7, "num_inference_steps": 4, "guidance_scale": 2});
    let hf = json!({"inputs": "a bird", "parameters": parameters});
    let answer = server.post("/api/hf", &hf).ok();
    assert_eq!(answer.header("content-type"), Some("image/png"));
    assert!(pixels(&answer.body) == expected);

    let job = server.post("/api/jobs", &own).ok().json();
    let path = format!("/api/jobs/{}/events", job["id"].as_str().expect("an id"));
    let stream = events(&server.get(&path).ok().text());
    let made = stream
        .iter()
        .find(|(name, _)| name == "picture")
        .expect("a picture");
    let path = format!(
        "/api/pictures/{}/png",
        made.1["id"].as_str().expect("an id")
    );
    assert!(pixels(&server.get(&path).ok().body) == expected);
}
