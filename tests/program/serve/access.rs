//! Who may ask: names of the server, sites, tokens.

use serde_json::json;
use tempfile::TempDir;

use super::client::Server;
use crate::running::{command, native_model, refuse, s};

/// Host, Origin, Sec-Fetch-Site; the status of a GET and of a POST.
type Row<'a> = (&'a str, Option<&'a str>, Option<&'a str>, u16, u16);

#[test]
fn only_own_names_and_sites_are_served() {
    let (folder, model) = native_model();
    let more = [
        "--allow-origin",
        "https://friend.example",
        "--allow-host",
        "pictures.example",
    ];
    let server = Server::of(folder.path(), &model, &more);
    let here = server.address().to_string();
    let own = format!("http://{here}");
    let options = json!({}).to_string();
    let table: &[Row] = &[
        (&here, None, None, 200, 200),
        ("localhost", None, None, 200, 200),
        ("pictures.example:80", None, None, 200, 200),
        ("host.docker.internal:7860", None, None, 200, 200),
        ("evil.example", None, None, 403, 403),
        ("127.0.0.1.evil.example", None, None, 403, 403),
        (&here, Some(&own), Some("same-origin"), 200, 200),
        (&here, Some(&own), None, 200, 200),
        (&here, Some("http://evil.example"), None, 200, 403),
        (
            &here,
            Some("http://evil.example"),
            Some("cross-site"),
            200,
            403,
        ),
        (&here, None, Some("cross-site"), 200, 403),
        (&here, None, Some("same-site"), 200, 403),
        (&here, None, Some("none"), 200, 200),
        (&here, Some("null"), None, 200, 403),
        (&here, Some("http://127.0.0.1:1"), None, 200, 403),
        (
            &here,
            Some("https://friend.example"),
            Some("cross-site"),
            200,
            200,
        ),
        // A name that was made to point here calls itself so in both.
        (
            "evil.example",
            Some("http://evil.example"),
            Some("same-origin"),
            403,
            403,
        ),
    ];
    for (host, origin, site, get, post) in table {
        let mut headers = vec![("Host", *host), ("Content-Type", "application/json")];
        headers.extend(origin.map(|origin| ("Origin", origin)));
        headers.extend(site.map(|site| ("Sec-Fetch-Site", site)));
        let case = format!("{host} {origin:?} {site:?}");
        let path = "/sdapi/v1/options";
        assert_eq!(
            server.ask("GET", path, &headers, b"").status,
            *get,
            "GET {case}"
        );
        let answer = server.ask("POST", path, &headers, options.as_bytes());
        assert_eq!(answer.status, *post, "POST {case}");
        if *post == 403 {
            answer.refused(403, None);
        }
        // No site but an allowed one is told that it may read.
        let told = answer.header("access-control-allow-origin");
        let friend = origin.filter(|origin| *origin == "https://friend.example");
        assert_eq!(told, friend, "{case}");
    }
    let answer = server.get("/");
    let policy = answer.header("content-security-policy").expect("a policy");
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"));
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    ] {
        assert_eq!(answer.header(name), Some(value));
    }
    assert!(answer.header("x-request-id").is_some());
    let tag = answer.header("etag").expect("a tag").to_string();
    let known = server.ask("GET", "/", &[("If-None-Match", &tag)], b"");
    assert_eq!((known.status, known.body.len()), (304, 0));
}

#[test]
fn a_token_guards_all_but_the_page_and_probes() {
    let (folder, model) = native_model();
    let server = Server::of(folder.path(), &model, &["--token", "s3cret"]);
    for open in ["/", "/main.js", "/app.css", "/health"] {
        assert_eq!(server.get(open).status, 200, "{open}");
    }
    assert!([200, 503].contains(&server.get("/ready").status));
    // "user:s3cret", ":wrong"
    let good = ["Bearer s3cret", "bearer s3cret", "Basic dXNlcjpzM2NyZXQ="];
    let bad = [
        "",
        "Bearer",
        "Bearer wrong",
        "Bearer s3cre",
        "Basic Ondyb25n",
        "Basic %%%",
        "s3cret",
    ];
    for path in [
        "/api/model",
        "/v1/models",
        "/sdapi/v1/options",
        "/metrics",
        "/openapi.json",
        "/no",
    ] {
        server.get(path).refused(401, None);
        for header in bad {
            server
                .ask("GET", path, &[("Authorization", header)], b"")
                .refused(401, None);
        }
        for header in good {
            let answer = server.ask("GET", path, &[("Authorization", header)], b"");
            assert_eq!(
                answer.status,
                if path == "/no" { 404 } else { 200 },
                "{path}"
            );
        }
    }
    // The right token does not make another site's request one of ours.
    let headers = [
        ("Authorization", "Bearer s3cret"),
        ("Content-Type", "application/json"),
        ("Origin", "http://evil.example"),
    ];
    server
        .ask("POST", "/sdapi/v1/options", &headers, b"{}")
        .refused(403, None);
}

#[test]
fn other_addresses_need_a_token_or_a_word() {
    let folder = TempDir::new().expect("a folder");
    let folder = folder.path();
    let runs = ["serve", "--runs", s(folder), "--port", "0"];
    refuse(
        folder,
        &[&runs[..], &["--host", "0.0.0.0"]].concat(),
        &["--token", "--no-token"],
    );
    refuse(folder, &["serve"], &["--checkpoint", "--runs"]);
    refuse(folder, &["serve", "--runs", "nowhere"], &["--runs nowhere"]);
    refuse(
        folder,
        &[&runs[..], &["--allow-origin", "friend"]].concat(),
        &["friend", "https://"],
    );
    let server = Server::start(
        folder,
        &["--runs", s(folder), "--host", "0.0.0.0", "--no-token"],
    );
    server.signal(libc::SIGTERM);
    let (status, said) = server.end();
    assert_eq!(status.code(), Some(0));
    assert!(
        said.contains("WARNING") && said.contains("everybody"),
        "{said}"
    );
}

#[test]
fn nothing_of_a_request_is_logged() {
    let (folder, model) = native_model();
    let folder = folder.path();
    let log = std::fs::File::create(folder.join("log")).expect("a file");
    let args = [
        "serve",
        "--port",
        "0",
        "--checkpoint",
        s(&model),
        "--out",
        "kept",
    ];
    let mut command = command(folder, &args);
    let server = Server::spawn(command.env("RUST_LOG", "trace").stderr(log));
    server.ready();
    // Longer than the model reads, which it warns of elsewhere; a field and a file that are
    // wrong; a picture that cannot be kept.
    let secret = "xyzzy ".repeat(300);
    let wish = json!({"prompt": secret, "steps": 1, "auth": "plugh:xyzzy"});
    server.post("/sdapi/v1/txt2img", &wish).ok();
    server.post("/v1/images/generations", &wish).ok();
    server
        .post("/v1/images/generations", &json!({"prompt": ["xyzzy"]}))
        .refused(400, Some("prompt"));
    std::fs::remove_dir_all(folder.join("kept")).expect("a folder");
    std::fs::write(folder.join("kept"), "").expect("a file");
    server.post("/v1/images/generations", &wish).ok();
    server.get("/xyzzy?xyzzy=plugh").refused(404, None);
    server.signal(libc::SIGTERM);
    assert_eq!(server.end().0.code(), Some(0));
    let said = std::fs::read_to_string(folder.join("log")).expect("a log");
    assert!(said.contains("was not kept"), "{said}");
    assert!(!said.contains("xyzzy") && !said.contains("plugh"), "{said}");
}
