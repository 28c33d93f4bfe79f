//! A server of the real binary, and a client that sends just what it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use base64::prelude::{Engine, BASE64_STANDARD};
use serde_json::Value;
use vqdiffusion::picture::{decode, Picture};

use crate::running::command;

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Server {
    child: Child,
    address: String,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {} {text}", self.head))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    }

    /// The answer, which must have succeeded.
    pub fn ok(self) -> Self {
        assert!(
            (200..300).contains(&self.status),
            "{} {}",
            self.head,
            self.text()
        );
        self
    }

    /// What is wrong: an error object with a message, of the field `param`.
    pub fn refused(&self, status: u16, param: Option<&str>) -> String {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/json"));
        let error = &self.json()["error"];
        assert_eq!(error["param"].as_str(), param, "{error}");
        for field in ["type", "code"] {
            assert!(error[field].is_string(), "{error}");
        }
        error["message"].as_str().expect("a message").to_string()
    }
}

impl Server {
    /// Starts `vqdiffusion serve` in `folder` on a port of the system's choice.
    pub fn start(folder: &Path, args: &[&str]) -> Self {
        let mut command = command(folder, &["serve", "--port", "0"]);
        Self::spawn(command.args(args).stderr(Stdio::piped()))
    }

    /// Starts what `command` says.
    pub fn spawn(command: &mut Command) -> Self {
        let child = command.stdout(Stdio::piped()).spawn();
        let mut child = child.expect("the binary starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("a pipe");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let Some(address) = line.trim().strip_prefix("http://") else {
            let mut said = String::new();
            if let Some(mut err) = child.stderr.take() {
                let _ = err.read_to_string(&mut said);
            }
            panic!("no address but {line:?}: {said}");
        };
        let address = address.to_string();
        Server { child, address }
    }

    /// As [`start`](Self::start), of a model in f32 on one thread of the CPU.
    pub fn of(folder: &Path, model: &Path, more: &[&str]) -> Self {
        let model = model.to_str().expect("a UTF-8 path");
        let args = [
            "--checkpoint",
            model,
            "--dtype",
            "f32",
            "--device",
            "cpu",
            "--threads",
            "1",
        ];
        Self::start(folder, &[&args[..], more].concat())
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// A connection on which nothing was said yet.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// Sends a request and does not wait.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> TcpStream {
        let mut stream = self.connect();
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            head += &format!("Host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).expect("a head");
        // A server that refuses at once may close before it has all.
        let _ = stream.write_all(body);
        stream
    }

    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        reply(self.send(method, path, headers, body))
    }

    pub fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, value: &Value) -> Reply {
        let json = [("Content-Type", "application/json")];
        self.ask("POST", path, &json, value.to_string().as_bytes())
    }

    /// A form of texts and files.
    pub fn form(&self, path: &str, texts: &[(&str, &str)], files: &[(&str, &[u8])]) -> Reply {
        let mut body = Vec::new();
        for (name, text) in texts {
            let part = format!(
                "--xyz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n"
            );
            body.extend(part.as_bytes());
        }
        for (name, file) in files {
            let part = format!(
                "--xyz\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"a.png\"\r\n\
                 Content-Type: image/png\r\n\r\n"
            );
            body.extend(part.as_bytes());
            body.extend(*file);
            body.extend(b"\r\n");
        }
        body.extend(b"--xyz--\r\n");
        let kind = [("Content-Type", "multipart/form-data; boundary=xyz")];
        self.ask("POST", path, &kind, &body)
    }

    /// The number of a metric without labels.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").ok().text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("vqdiffusion_{name} ")));
        line.unwrap_or_else(|| panic!("no {name}: {text}"))
            .parse()
            .expect("a number")
    }

    /// Waits until `done`.
    pub fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < end, "{what} does not come");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn ready(&self) {
        self.until("readiness", |server| server.get("/ready").status == 200);
    }

    /// Kilobytes of memory that it takes.
    pub fn memory(&self) -> u64 {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.expect("VmRSS").parse().expect("a number")
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: signals a child that was not waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// How it ends, and what it said.
    pub fn end(mut self) -> (ExitStatus, String) {
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(Instant::now() < end, "the server does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut said = String::new();
        if let Some(mut err) = self.child.stderr.take() {
            err.read_to_string(&mut said).expect("text");
        }
        (status, said)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All of an answer.
pub fn reply(mut stream: TcpStream) -> Reply {
    let mut bytes = Vec::new();
    // A reset after the answer loses nothing of it.
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no head: {}", String::from_utf8_lossy(&bytes)));
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let body = bytes[end + 4..].to_vec();
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Reply {
        status: status.expect("a status"),
        body: if chunked { unchunked(&body) } else { body },
        head,
    }
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = String::from_utf8_lossy(&rest[..end]).into_owned();
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        rest = &rest[end + 2..];
        whole.extend(&rest[..size.min(rest.len())]);
        rest = rest.get(size + 2..).unwrap_or(&[]);
    }
    whole
}

/// The events of a stream: name and data.
pub fn events(text: &str) -> Vec<(String, Value)> {
    let field = |block: &str, name: &str| {
        let start = format!("{name}: ");
        block
            .lines()
            .find_map(|line| line.strip_prefix(&start).map(String::from))
    };
    text.split("\n\n")
        .filter_map(|block| {
            let data = field(block, "data")?;
            let name = field(block, "event").unwrap_or_default();
            Some((name, serde_json::from_str(&data).expect("JSON")))
        })
        .collect()
}

pub fn unbase64(value: &Value) -> Vec<u8> {
    let text = value
        .as_str()
        .unwrap_or_else(|| panic!("no text but {value}"));
    BASE64_STANDARD.decode(text).expect("base64")
}

pub fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

pub fn pixels(file: &[u8]) -> Picture {
    decode(file).expect("a picture")
}
