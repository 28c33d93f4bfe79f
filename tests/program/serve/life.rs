//! Full queues, clients that go away, and the end.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use super::client::{events, reply, Server};
use crate::running::native_model;

/// A model whose steps take a while in comparison.
fn emoji() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints/emoji.safetensors")
}

const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

fn long() -> String {
    json!({"prompt": "red heart", "seed": 1, "n": 10, "steps": 100}).to_string()
}

#[test]
fn a_full_queue_says_so_before_any_work() {
    let folder = TempDir::new().expect("a folder");
    let server = Server::of(folder.path(), &emoji(), &["--grace", "0"]);
    let body: serde_json::Value = serde_json::from_str(&long()).expect("JSON");
    let jobs: Vec<String> = (0..64)
        .map(|_| {
            server.post("/api/jobs", &body).ok().json()["id"]
                .as_str()
                .expect("an id")
                .into()
        })
        .collect();
    let places = [
        "/v1/images/generations",
        "/v1/images/edits",
        "/sdapi/v1/txt2img",
        "/api/jobs",
        "/api/hf",
    ];
    for path in places {
        // Not even the body is looked at.
        let answer = server.ask("POST", path, &JSON, b"not JSON");
        answer.refused(429, None);
        let seconds: u64 = answer
            .header("retry-after")
            .expect("seconds")
            .parse()
            .expect("a number");
        assert!((1..=60).contains(&seconds));
    }
    let last = server.get(&format!("/api/jobs/{}", jobs[63])).ok().json();
    assert_eq!(last["state"], "queued");
    assert!(last["position"].as_u64() > Some(60));
    // A job that is given up makes room at once, waiting or running.
    for job in [&jobs[63], &jobs[0]] {
        let state = server
            .ask("DELETE", &format!("/api/jobs/{job}"), &[], b"")
            .ok()
            .json();
        assert_eq!(state["state"], "cancelled");
        server.post("/api/jobs", &body).ok();
        server.post("/api/jobs", &body).refused(429, None);
    }
    assert_eq!(
        server.get(&format!("/api/jobs/{}", jobs[63])).json()["state"],
        "cancelled"
    );
    server.signal(libc::SIGTERM);
    let (status, said) = server.end();
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains("64 jobs were given up"), "{said}");
}

#[test]
fn a_client_that_goes_away_stops_its_job() {
    let folder = TempDir::new().expect("a folder");
    let server = Server::of(folder.path(), &emoji(), &["--grace", "0"]);
    let streamed =
        json!({"prompt": "red heart", "n": 10, "steps": 100, "stream": true}).to_string();
    let ways: [(&str, String); 3] = [
        ("/v1/images/generations", long()),
        ("/v1/images/generations", streamed),
        (
            "/sdapi/v1/txt2img",
            json!({"prompt": "x", "steps": 100, "batch_size": 10}).to_string(),
        ),
    ];
    for (path, body) in ways {
        let before = server.metric("steps_total");
        let stream = server.send("POST", path, &JSON, body.as_bytes());
        server.until("a step", |server| server.metric("steps_total") > before);
        drop(stream);
        server.until("an end", |server| server.metric("jobs_running") == 0.0);
        // The step under way may still be counted, no other.
        let then = server.metric("steps_total");
        let job = server
            .post("/api/jobs", &json!({"prompt": "x", "steps": 1}))
            .ok()
            .json();
        let path = format!("/api/jobs/{}/events", job["id"].as_str().expect("an id"));
        server.get(&path).ok();
        let since = server.metric("steps_total") - then;
        assert!((1.0..=2.0).contains(&since), "{since}");
        assert_eq!(server.metric("jobs_waiting"), 0.0);
    }
    // A job of the own API goes on without its listener.
    let job = server
        .post("/api/jobs", &json!({"prompt": "x", "steps": 30}))
        .ok()
        .json();
    let id = job["id"].as_str().expect("an id").to_string();
    let mut stream = server.send("GET", &format!("/api/jobs/{id}/events"), &[], b"");
    let mut some = [0; 64];
    stream.read_exact(&mut some).expect("a beginning");
    drop(stream);
    server.until("the end", |server| {
        server.get(&format!("/api/jobs/{id}")).json()["state"] == "done"
    });
}

#[test]
fn the_end_waits_for_jobs_and_no_longer() {
    let (folder, model) = native_model();
    let folder = folder.path();
    // Nothing to do: at once, whatever streams and connections are open.
    let server = Server::of(folder, &model, &["--grace", "60"]);
    server.ready();
    let _idle = server.connect();
    server.signal(libc::SIGINT);
    assert_eq!(server.end().0.code(), Some(0));

    // Work that ends in time is answered.
    let server = Server::of(folder, &emoji(), &["--grace", "60"]);
    let body = json!({"prompt": "red heart", "steps": 20}).to_string();
    let streamed = json!({"prompt": "x", "steps": 2, "stream": true}).to_string();
    let first = server.send("POST", "/v1/images/generations", &JSON, body.as_bytes());
    let second = server.send("POST", "/v1/images/generations", &JSON, streamed.as_bytes());
    server.until("a job that waits", |server| {
        server.metric("jobs_waiting") == 1.0 && server.metric("steps_total") > 0.0
    });
    server.signal(libc::SIGTERM);
    assert_eq!(reply(first).status, 200);
    let stream = events(&reply(second).text());
    assert_eq!(
        stream.last().map(|(name, _)| name.as_str()),
        Some("image_generation.completed")
    );
    assert_eq!(server.end().0.code(), Some(0));

    // Work that does not is given up, and its clients are told.
    let server = Server::of(folder, &emoji(), &["--grace", "0"]);
    let streamed = json!({"prompt": "x", "steps": 100, "n": 10, "stream": true}).to_string();
    let job = server
        .post("/api/jobs", &json!({"prompt": "x", "steps": 100, "n": 10}))
        .ok()
        .json();
    let path = format!("/api/jobs/{}/events", job["id"].as_str().expect("an id"));
    let own = server.send("GET", &path, &[], b"");
    let first = server.send("POST", "/v1/images/generations", &JSON, streamed.as_bytes());
    let second = server.send("POST", "/v1/images/generations", &JSON, long().as_bytes());
    // The first job has more pictures and waits again.
    server.until("jobs that wait", |server| {
        server.metric("jobs_waiting") == 3.0
    });
    server.signal(libc::SIGTERM);
    for stream in [own, first] {
        let stream = events(&reply(stream).text());
        let (name, data) = stream.last().expect("an event");
        assert_eq!(name, "error");
        assert!(data["error"]["message"].is_string());
    }
    let answer = reply(second);
    answer.refused(503, None);
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    let (status, said) = server.end();
    assert_eq!(status.code(), Some(3), "{said}");
}

#[test]
fn a_model_that_cannot_be_read_ends_the_server() {
    let folder = TempDir::new().expect("a folder");
    let broken = folder.path().join("broken.safetensors");
    std::fs::write(&broken, b"no model").expect("a file");
    let args = ["serve", "--port", "0", "--checkpoint", "broken.safetensors"];
    crate::running::refuse(folder.path(), &args, &["broken.safetensors"]);
}
