//! Training runs that are looked at.

use serde_json::json;
use tempfile::TempDir;
use vqdiffusion::picture::{write_png, Picture};

use super::client::Server;
use crate::running::s;

#[test]
fn logs_are_followed_as_they_grow() {
    let folder = TempDir::new().expect("a folder");
    let run = folder.path().join("papers/one");
    std::fs::create_dir_all(&run).expect("a folder");
    std::fs::create_dir_all(folder.path().join("empty")).expect("a folder");
    let log = run.join("log.jsonl");
    std::fs::write(&log, "{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"loss\":nu").expect("a log");
    let sheet = Picture {
        width: 2,
        height: 1,
        rgb: vec![1, 2, 3, 4, 5, 6],
    };
    write_png(&run.join("samples-00000002.png"), &sheet, &[]).expect("a sheet");
    let server = Server::start(folder.path(), &["--runs", s(folder.path())]);
    let runs = server.get("/api/runs").ok().json();
    assert_eq!(runs.as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&runs[0]["name"], &runs[0]["sheets"]),
        (&json!("papers/one"), &json!([2]))
    );
    let id = runs[0]["id"].as_str().expect("an id");
    let read = |after: u64| {
        server
            .get(&format!("/api/runs/{id}/log?after={after}"))
            .ok()
            .json()
    };

    // A line that is being written is none yet.
    let first = read(0);
    assert_eq!(first["lines"], json!([{"step": 1, "loss": 2.5}]));
    let next = first["next"].as_u64().expect("a place");
    let text = "{\"step\":1,\"loss\":2.5}\n{\"step\":2,\"loss\":null}\n{\"step\":3,\"loss\":2}\n";
    std::fs::write(&log, text).expect("a log");
    let second = read(next);
    assert_eq!(
        second["lines"],
        json!([{"step": 2, "loss": null}, {"step": 3, "loss": 2}])
    );
    assert_eq!(second["restarted"], false);
    let end = second["next"].as_u64().expect("a place");
    assert_eq!(read(end)["lines"], json!([]));
    // A run that was resumed has a shorter log.
    std::fs::write(&log, "{\"step\":1,\"loss\":2.5}\n").expect("a log");
    let third = read(end);
    assert_eq!(third["restarted"], true);
    assert_eq!(third["lines"], json!([{"step": 1, "loss": 2.5}]));

    let sheet = server.get(&format!("/api/runs/{id}/previews/2")).ok();
    assert_eq!(super::client::pixels(&sheet.body).width, 2);
    server
        .get(&format!("/api/runs/{id}/previews/3"))
        .refused(404, None);
    server
        .get(&format!("/api/runs/{id}/previews/..%2Flog.jsonl"))
        .refused(400, None);
    server.get("/api/runs/..%2F..%2Fetc/log").refused(404, None);
    server.get("/api/model").refused(503, None);
    let message = server
        .post("/v1/images/generations", &json!({"prompt": "x"}))
        .refused(503, None);
    assert!(message.contains("--checkpoint"));
}
