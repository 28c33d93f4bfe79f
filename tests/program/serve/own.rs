//! This program's own API.

use serde_json::{json, Value};

use super::client::{events, Server};
use crate::running::native_model;

#[test]
fn a_job_is_followed_and_looked_into() {
    let (folder, model) = native_model();
    let folder = folder.path();
    let server = Server::of(folder, &model, &["--out", "kept"]);
    let about = server.get("/api/model").ok().json();
    let grid = about["grid"].as_array().expect("a grid");
    let length = (grid[0].as_u64().expect("rows") * grid[1].as_u64().expect("columns")) as usize;
    let codes = about["codes"].as_i64().expect("codes");
    server.ready();
    server.until("colours", |server| server.get("/api/palette").status == 200);
    let palette = server.get("/api/palette").ok().json();
    assert_eq!(palette.as_array().map(Vec::len), Some(codes as usize));

    let wish = json!({
        "prompt": "a bird", "seed": 5, "steps": 4, "order": "halton", "n": 2, "entropy": true, "previews": 1,
    });
    let answer = server.post("/api/jobs", &wish);
    assert_eq!(answer.status, 202);
    let id = answer.json()["id"].as_str().expect("an id").to_string();
    let text = server.get(&format!("/api/jobs/{id}/events")).ok().text();
    let stream = events(&text);
    assert_eq!(
        stream.first().map(|(name, _)| name.as_str()),
        Some("queued")
    );
    assert_eq!(stream.last().map(|(name, _)| name.as_str()), Some("done"));

    // The steps lead from all masks to the picture's tokens.
    let mut tokens = vec![codes; length];
    let steps = stream
        .iter()
        .filter(|(name, data)| name == "step" && data["picture"] == 1);
    let mut states = Vec::new();
    for (_, step) in steps {
        let list = |name: &str| step[name].as_array().expect("a list").clone();
        for (at, code) in list("changed").iter().zip(&list("codes")) {
            tokens[at.as_u64().expect("a place") as usize] = code.as_i64().expect("a code");
        }
        states.push(tokens.clone());
        let entropy = step.get("entropy").map(|_| list("entropy").len());
        let expected = (step["done"] != 0).then(|| list("changed").len());
        assert_eq!(entropy, expected);
    }
    assert_eq!(states.len(), 5);
    let made: Vec<&Value> = stream
        .iter()
        .filter(|e| e.0 == "picture")
        .map(|e| &e.1)
        .collect();
    let picture = made[1]["id"].as_str().expect("an id");
    let png = server
        .get(&format!("/api/pictures/{picture}/png"))
        .ok()
        .body;
    let kind = [("Content-Type", "image/png")];
    let own = server.ask("POST", "/api/tokens", &kind, &png).ok().json();
    assert_eq!(own["tokens"], json!(tokens));

    // The trace goes through the same states.
    let trace = server
        .get(&format!("/api/pictures/{picture}/trace"))
        .ok()
        .json();
    for (step, state) in trace["steps"]
        .as_array()
        .expect("steps")
        .iter()
        .zip(&states[1..])
    {
        assert_eq!(step["tokens"], json!(state));
        assert_eq!(step["entropy"].as_array().map(Vec::len), Some(length));
    }
    assert!(trace["words"].as_array().expect("words").len() > 2);
    let last = server
        .get(&format!("/api/pictures/{picture}/steps/4"))
        .ok()
        .body;
    assert!(super::client::pixels(&last) == super::client::pixels(&png));
    server
        .get(&format!("/api/pictures/{picture}/steps/5"))
        .refused(404, None);
    let preview = server
        .get(&format!("/api/jobs/{id}/previews/1/0"))
        .ok()
        .body;
    assert!(super::client::pixels(&preview) != super::client::pixels(&png));

    // Behind an event that is known, only what follows comes.
    let count = stream.len();
    let known = (count - 3).to_string();
    let path = format!("/api/jobs/{id}/events");
    let rest = server
        .ask("GET", &path, &[("Last-Event-ID", &known)], b"")
        .ok()
        .text();
    assert_eq!(events(&rest), stream[count - 2..]);

    // What the PNG says makes it again.
    let settings = server.ask("POST", "/api/settings", &kind, &png).ok().json();
    let expected = [
        ("prompt", json!("a bird")),
        ("seed", json!(6)),
        ("steps", json!(4)),
        ("order", json!("halton")),
    ];
    for (name, value) in expected {
        assert_eq!(settings[name], value);
    }
    assert_eq!(settings["this_model"], true);
    server
        .ask("POST", "/api/settings", &kind, b"no picture")
        .refused(400, None);

    // The gallery, here and after a new start.
    let listed = server.get("/api/pictures").ok().json();
    assert_eq!(listed.as_array().map(Vec::len), Some(2));
    assert_eq!(listed[0]["place"], "session");
    server.signal(libc::SIGTERM);
    assert_eq!(server.end().0.code(), Some(0));
    let server = Server::of(folder, &model, &["--out", "kept"]);
    server.ready();
    let listed = server.get("/api/pictures").ok().json();
    assert_eq!(listed.as_array().map(Vec::len), Some(2));
    assert_eq!(listed[0]["place"], "folder");
    let seeds: Vec<&Value> = [0, 1].map(|i| &listed[i]["settings"]["seed"]).to_vec();
    assert!(seeds.contains(&&json!(5)) && seeds.contains(&&json!(6)));
    let id = listed[0]["id"].as_str().expect("an id");
    let again = server.get(&format!("/api/pictures/{id}/trace")).ok().json();
    assert_eq!(again["steps"].as_array().map(Vec::len), Some(4));
    let gone = server.ask("DELETE", &format!("/api/pictures/{id}"), &[], b"");
    assert_eq!(gone.status, 204);
    server
        .get(&format!("/api/pictures/{id}"))
        .refused(404, None);
    assert_eq!(crate::running::files(&folder.join("kept")).len(), 1);
}

#[test]
fn what_cannot_be_is_refused_by_its_field() {
    let (folder, model) = native_model();
    let server = Server::of(folder.path(), &model, &[]);
    let long = "x".repeat(2001);
    let own = [
        (json!({"prompt": "a", "stepz": 4}), "stepz"),
        (json!({"prompt": "a", "steps": 0}), "steps"),
        (json!({"prompt": "a", "steps": 1.5}), "steps"),
        (json!({"prompt": "a", "n": 11}), "n"),
        (json!({"prompt": "a", "n": 0}), "n"),
        (json!({"prompt": long}), "prompt"),
        (json!({"n": 1}), "prompt"),
        (json!({"prompt": "a\u{0}b"}), "prompt"),
        (json!({"prompt": "a", "guidance": 1e9}), "guidance"),
        (json!({"prompt": "a", "truncation": 0}), "truncation"),
        (json!({"prompt": "a", "top_k": 0}), "top_k"),
        (
            json!({"prompt": "a", "top_k": 1, "truncation": 0.5}),
            "top_k",
        ),
        (
            json!({"prompt": "a", "guidance_span": [0.9, 0.1]}),
            "guidance_span",
        ),
        (json!({"prompt": "a", "purity": -1}), "purity"),
        (
            json!({"prompt": "a", "purity": 1, "order": "halton"}),
            "order",
        ),
        (
            json!({"prompt": "a", "tokens_per_step": 0}),
            "tokens_per_step",
        ),
        (json!({"prompt": "a", "seed": u64::MAX, "n": 2}), "seed"),
        (
            json!({"prompt": "a", "guidance": 1, "negative_prompt": "b"}),
            "negative_prompt",
        ),
        (
            json!({"prompt": "a", "image": "%%%", "strength": 0.5}),
            "image",
        ),
        (
            json!({"prompt": "a", "image": "R0lGODlh", "strength": 0.5}),
            "image",
        ),
        (json!({"prompt": "a", "previews": 9}), "previews"),
    ];
    for (wish, param) in &own {
        let message = server.post("/api/jobs", wish).refused(400, Some(param));
        assert!(!message.contains('/') || *param == "image", "{message}");
    }
    let openai = [
        (
            json!({"prompt": "a", "background": "transparent"}),
            "background",
        ),
        (
            json!({"prompt": "a", "output_format": "webp"}),
            "output_format",
        ),
        (json!({"prompt": "a", "size": "huge"}), "size"),
        (json!({"prompt": "a", "size": "0x5"}), "size"),
        (
            json!({"prompt": "a", "stream": true, "partial_images": 4}),
            "partial_images",
        ),
        (
            json!({"prompt": "a", "output_compression": 101}),
            "output_compression",
        ),
        (json!({"n": 1}), "prompt"),
    ];
    for (wish, param) in &openai {
        server
            .post("/v1/images/generations", wish)
            .refused(400, Some(param));
    }
    // What other servers' clients send out of habit is left out.
    let lenient = json!({
        "prompt": "a", "steps": 9999, "guidance": 1, "negative_prompt": "b", "seed": -1,
        "model": "dall-e-3", "style": "vivid", "response_format": "b64_json", "user": "me",
        "quality": "hd", "safety_identifier": "x", "moderation": "low",
    });
    let few = json!({"prompt": "a", "steps": "2", "n": "1", "seed": "3", "size": ""});
    server.post("/v1/images/generations", &lenient).ok();
    server.post("/v1/images/generations", &few).ok();

    let json_type = [("Content-Type", "application/json")];
    for body in ["", "{", "[]", "1", "{} {}"] {
        let answer = server.ask("POST", "/api/jobs", &json_type, body.as_bytes());
        answer.refused(400, None);
    }
    let plain = [("Content-Type", "text/plain")];
    server
        .ask("POST", "/api/jobs", &plain, b"{}")
        .refused(415, None);
    server
        .ask("POST", "/v1/images/edits", &json_type, b"{}")
        .refused(415, None);
    server.ask("PUT", "/api/jobs", &[], b"").refused(405, None);
    server.get("/api/jobs/nope").refused(404, None);
    server.get("/nope").refused(404, None);
    let large = vec![b' '; (20 << 20) + 1];
    server
        .ask("POST", "/api/jobs", &json_type, &large)
        .refused(413, None);
    assert_eq!(server.metric("faults_total"), 0.0);
}
