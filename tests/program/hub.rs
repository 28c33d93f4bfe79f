//! Models named on the Hugging Face Hub: its caches, and a small server in its place.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tempfile::TempDir;

use crate::formats::{command, copy_folder, pipeline, refuse, refuse_with, succeed, succeed_with};
use crate::running::{refused, s, succeeded};

/// Puts the pipeline into a cache of hub models, with links to blobs as there.
fn cached(hf_home: &Path) {
    let repo = hf_home.join("hub/models--tiny--model");
    let snapshot = repo.join("snapshots/0123abc");
    copy_folder(&pipeline(), &snapshot);
    std::fs::create_dir_all(repo.join("refs")).unwrap();
    std::fs::create_dir_all(repo.join("blobs")).unwrap();
    std::fs::write(repo.join("refs/main"), "0123abc").unwrap();
    let file = snapshot.join("transformer/config.json");
    std::fs::rename(&file, repo.join("blobs/aaa")).unwrap();
    std::os::unix::fs::symlink("../../../blobs/aaa", &file).unwrap();
}

#[test]
fn hub_names_come_from_the_cache() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    let offline = [("HF_HUB_OFFLINE", "1")];
    refuse_with(
        f,
        &["inspect", "tiny/model"],
        &offline,
        &["tiny/model", "HF_HUB_OFFLINE", "model_index.json"],
    );
    refuse(
        f,
        &["inspect", "tiny/model"],
        &["tiny/model", "Hugging Face Hub", "network"],
    );
    cached(&f.join("hf"));
    for variables in [&offline[..], &[]] {
        let out = succeed_with(f, &["inspect", "tiny/model"], variables);
        assert!(out.contains("diffusers folder"), "{out}");
    }
    let sample = [
        "sample",
        "--checkpoint",
        "tiny/model",
        "--steps",
        "2",
        "--out",
        "a",
        "x",
    ];
    succeed(f, &sample);
    refuse_with(
        f,
        &["inspect", "tiny/model@other"],
        &offline,
        &["tiny/model@other", "HF_HUB_OFFLINE"],
    );
    let snapshot = f.join("hf/hub/models--tiny--model/snapshots/0123abc");
    std::fs::remove_file(snapshot.join("vqvae/diffusion_pytorch_model.bin")).unwrap();
    refuse_with(
        f,
        &["inspect", "tiny/model"],
        &offline,
        &["vqvae/diffusion_pytorch_model", "HF_HUB_OFFLINE"],
    );
    // No hub name: an ending of files, or a folder that is there.
    refuse(f, &["inspect", "tiny/model.pth"], &["no such file"]);
    std::fs::create_dir(f.join("tiny")).unwrap();
    refuse(f, &["inspect", "tiny/model"], &["no such file"]);
}

/// The cache is found by every variable that Python's library reads.
#[test]
fn hub_caches_are_found_as_in_python() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    cached(&f.join("a/huggingface"));
    let at = |rest: &str| s(&f.join(rest)).to_string();
    let found = [
        ("HF_HUB_CACHE", at("a/huggingface/hub")),
        ("HF_HUB_CACHE", "~/huggingface/hub".into()),
        ("HF_HUB_CACHE", "$PLACE/huggingface/hub".into()),
        ("HUGGINGFACE_HUB_CACHE", at("a/huggingface/hub")),
        ("HF_HOME", at("a/huggingface")),
        ("HF_HOME", "~/huggingface".into()),
        ("XDG_CACHE_HOME", at("a")),
        ("XDG_CACHE_HOME", "~".into()),
    ];
    let inspect = |name: &str, variables: &[(&str, &str)]| {
        let mut command = command(f, &["inspect", name]);
        command.env_remove("HF_HOME").env("HF_HUB_OFFLINE", "1");
        command.env("HOME", f.join("a")).env("PLACE", f.join("a"));
        command.envs(variables.iter().copied());
        command
    };
    for (variable, value) in &found {
        succeeded(&mut inspect("tiny/model", &[(variable, value)]));
        succeeded(&mut inspect("tiny/model@0123abc", &[(variable, value)]));
    }
    let elsewhere = at("elsewhere");
    let both = [
        ("HF_HUB_CACHE", elsewhere.as_str()),
        ("HF_HOME", &found[4].1),
    ];
    refused(
        &mut inspect("tiny/model", &both),
        &["elsewhere", "HF_HUB_OFFLINE"],
    );
    std::fs::rename(f.join("a"), f.join(".cache")).unwrap();
    succeeded(inspect("tiny/model", &[]).env("HOME", f));
    // Copied by hand: no references, files in place of links.
    let repo = f.join(".cache/huggingface/hub/models--tiny--model");
    std::fs::remove_dir_all(repo.join("refs")).unwrap();
    let file = repo.join("snapshots/0123abc/transformer/config.json");
    let content = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    // A link whose target did not come along.
    std::os::unix::fs::symlink("../gone", &file).unwrap();
    let words = ["transformer/config.json", "HF_HUB_OFFLINE"];
    refused(inspect("tiny/model", &[]).env("HOME", f), &words);
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, content).unwrap();
    succeeded(inspect("tiny/model", &[]).env("HOME", f));
}

/// Path and token of every request that a hub got.
type Requests = Arc<Mutex<Vec<(String, String)>>>;

/// The address of a hub on this machine with the repository `tiny/model`.
fn hub() -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let requests = Requests::default();
    let book = requests.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let header = |name: &str| {
                let line = head.lines().find(|l| l.to_lowercase().starts_with(name));
                line.map_or(String::new(), |l| l[name.len()..].trim().to_string())
            };
            let path = head.split(' ').nth(1).unwrap_or("").to_string();
            book.lock()
                .unwrap()
                .push((path.clone(), header("authorization:")));
            let (status, body, extra) = answer(&path, &header("range:"));
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{extra}\r\n"
            );
            let _ = stream.write_all(&body);
        }
    });
    (endpoint, requests)
}

/// Status, body and further headers.
fn answer(path: &str, range: &str) -> (&'static str, Vec<u8>, String) {
    if path == "/api/models/tiny/model/revision/main" {
        let files = [
            "README.md",
            "model_index.json",
            "scheduler/scheduler_config.json",
            "tokenizer/tokenizer_config.json",
            "tokenizer/special_tokens_map.json",
            "transformer/config.json",
            "transformer/diffusion_pytorch_model.safetensors",
            "transformer/flax_model.msgpack",
            "vqvae/config.json",
            "vqvae/diffusion_pytorch_model.bin",
            "text_encoder/config.json",
            "text_encoder/pytorch_model.bin",
            "learned_classifier_free_sampling_embeddings/config.json",
            "learned_classifier_free_sampling_embeddings/diffusion_pytorch_model.bin",
        ];
        let siblings: Vec<_> = files.iter().map(|f| json!({ "rfilename": f })).collect();
        let info = json!({ "sha": "beef", "siblings": siblings });
        return ("200 OK", info.to_string().into(), String::new());
    }
    let file = path.strip_prefix("/tiny/model/resolve/main/");
    let Some(Ok(content)) = file.map(|file| std::fs::read(pipeline().join(file))) else {
        return ("404 Not Found", Vec::new(), String::new());
    };
    let part = match range {
        "bytes=0-0" => content[..1].to_vec(),
        _ => content.clone(),
    };
    let tag = path.replace('/', "-");
    let extra = format!(
        "ETag: \"{tag}\"\r\nX-Repo-Commit: beef\r\nContent-Range: bytes 0-{}/{}\r\n",
        part.len() - 1,
        content.len()
    );
    ("206 Partial Content", part, extra)
}

#[test]
fn hub_names_are_downloaded_once() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    let (endpoint, requests) = hub();
    let variables = [
        ("HF_ENDPOINT", endpoint.as_str()),
        ("HF_TOKEN", "hf_secret"),
    ];
    succeed_with(f, &["convert", "tiny/model", "a.safetensors"], &variables);
    succeed(f, &["convert", s(&pipeline()), "b.safetensors"]);
    let read = |name: &str| std::fs::read(f.join(name)).unwrap();
    assert_eq!(read("a.safetensors"), read("b.safetensors"));
    let seen = std::mem::take(&mut *requests.lock().unwrap());
    assert!(
        seen.iter().all(|(_, token)| token == "Bearer hf_secret"),
        "{seen:?}"
    );
    for unwanted in ["README.md", "flax_model"] {
        assert!(
            seen.iter().all(|(path, _)| !path.contains(unwanted)),
            "{unwanted}"
        );
    }
    // From now on the cache is enough.
    succeed_with(f, &["inspect", "tiny/model"], &variables);
    assert!(requests.lock().unwrap().is_empty());
    refuse_with(
        f,
        &["inspect", "tiny/absent"],
        &variables,
        &["tiny/absent", "404", "HF_TOKEN"],
    );
}
