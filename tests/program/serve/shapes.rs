//! Requests as known clients send them.

use serde_json::{json, Value};

use super::client::{pixels, unbase64, Server};
use crate::running::native_model;

#[test]
fn known_clients_are_understood() {
    let (folder, model) = native_model();
    let server = Server::of(folder.path(), &model, &[]);
    server.ready();

    // Open WebUI, engine "openai".
    let openai = json!({
        "model": "dall-e-2", "prompt": "a bird", "n": 1, "size": "64x64",
        "response_format": "b64_json",
    });
    let token = [
        ("Content-Type", "application/json"),
        ("Authorization", "Bearer sk-none"),
    ];
    let body = openai.to_string();
    let answer = server
        .ask("POST", "/v1/images/generations", &token, body.as_bytes())
        .ok()
        .json();
    let picture = pixels(&unbase64(&answer["data"][0]["b64_json"]));
    assert_eq!((picture.width, picture.height), (64, 64));
    let models = server.get("/v1/models").ok().json();
    let name = models["data"][0]["id"]
        .as_str()
        .expect("a name")
        .to_string();
    assert_eq!(
        server.get(&format!("/v1/models/{name}")).ok().json()["object"],
        "model"
    );

    // Open WebUI, engine "automatic1111", with empty Basic authentication.
    let basic = [
        ("Content-Type", "application/json"),
        ("Authorization", "Basic Og=="),
    ];
    let options = server
        .ask("GET", "/sdapi/v1/options", &basic, b"")
        .ok()
        .json();
    assert_eq!(options["sd_model_checkpoint"], name.as_str());
    let models = server.get("/sdapi/v1/sd-models").ok().json();
    assert_eq!(models[0]["title"], name.as_str());
    assert!(models[0]["model_name"].is_string());
    let chosen = json!({"sd_model_checkpoint": "another"}).to_string();
    server
        .ask("POST", "/sdapi/v1/options", &basic, chosen.as_bytes())
        .ok();
    assert_eq!(
        server.get("/sdapi/v1/options").json()["sd_model_checkpoint"],
        name.as_str()
    );
    let request = json!({"prompt": "a bird", "batch_size": 2, "width": 128, "height": 128});
    let answer = server.post("/sdapi/v1/txt2img", &request).ok().json();
    assert_eq!(answer["images"].as_array().map(Vec::len), Some(2));

    // SillyTavern.
    for list in [
        "samplers",
        "schedulers",
        "upscalers",
        "latent-upscale-modes",
        "sd-vae",
    ] {
        assert!(
            server
                .get(&format!("/sdapi/v1/{list}"))
                .ok()
                .json()
                .is_array(),
            "{list}"
        );
    }
    let progress = server.get("/sdapi/v1/progress").ok().json();
    assert_eq!(progress["progress"], 0.0);
    assert_eq!(progress["state"]["job_count"], 0);
    let request = json!({
        "url": "http://127.0.0.1:7860", "auth": "", "prompt": "a bird", "negative_prompt": "",
        "sampler_name": "VQ-Diffusion", "scheduler": "cosine", "steps": 4, "cfg_scale": 1.5,
        "width": 512, "height": 512, "enable_hr": false, "hr_upscaler": "None", "hr_scale": 1,
        "denoising_strength": 0.7, "hr_second_pass_steps": 0, "restore_faces": false,
        "override_settings": {"CLIP_stop_at_last_layers": 1, "sd_vae": ""},
        "override_settings_restore_afterwards": true, "clip_skip": 1, "save_images": true,
        "send_images": true, "do_not_save_grid": false, "do_not_save_samples": false,
    });
    let answer = server.post("/sdapi/v1/txt2img", &request).ok().json();
    assert_eq!(pixels(&unbase64(&answer["images"][0])).width, 512);
    assert!(answer["parameters"].get("auth").is_none());
    server.ask("POST", "/sdapi/v1/interrupt", &[], b"").ok();
    assert_eq!(
        server
            .ask("OPTIONS", "/v1/images/generations", &[], b"")
            .status,
        204
    );

    // LibreChat reads a text of JSON.
    let request = json!({
        "prompt": "a bird", "negative_prompt": "dull", "cfg_scale": 4.5, "steps": 3,
        "width": 100, "height": 50,
    });
    let answer = server.post("/sdapi/v1/txt2img", &request).ok().json();
    let info: Value = serde_json::from_str(answer["info"].as_str().expect("a text")).expect("JSON");
    assert_eq!((&info["width"], &info["height"]), (&json!(50), &json!(50)));
    assert!(info["seed"].is_u64() && info["infotexts"][0].is_string());

    // GIMP: the seed −1 is a random one.
    let start = unbase64(&answer["images"][0]);
    let request = json!({
        "prompt": "a bird", "seed": -1, "sampler_index": "Euler a", "steps": 3,
        "init_images": [super::client::base64(&start)], "denoising_strength": 0.5,
        "inpainting_mask_invert": 0,
    });
    server.post("/sdapi/v1/img2img", &request).ok();

    // Every path is described.
    let described = server.get("/openapi.json").ok().json();
    let paths = described["paths"].as_object().expect("paths");
    for path in [
        "/v1/images/edits",
        "/sdapi/v1/txt2img",
        "/api/jobs/{id}/events",
        "/ready",
    ] {
        assert!(paths.contains_key(path), "{path}");
    }
    // And whatever it refers to.
    let text = described.to_string();
    let schemas = &described["components"]["schemas"];
    for name in text.split("#/components/schemas/").skip(1) {
        let name = name.split('"').next().expect("a name");
        assert!(schemas[name].is_object(), "{name}");
    }
}
