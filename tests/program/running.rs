//! Running the real binary in temporary folders.

// Each test file uses a part of it.
#![allow(dead_code)]

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// `vqdiffusion` with `args`, to run in `folder`.
pub fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vqdiffusion"));
    command
        .args(args)
        .current_dir(folder)
        .env("OMP_NUM_THREADS", "1");
    command
}

/// Has SIGHUP answered so when `command` starts, whatever these tests were started with.
pub fn hangup(command: &mut Command, answer: libc::sighandler_t) -> &mut Command {
    // SAFETY: between fork and exec; sets how a signal is answered.
    unsafe {
        command.pre_exec(move || {
            libc::signal(libc::SIGHUP, answer);
            Ok(())
        })
    }
}

/// Runs `vqdiffusion` with `args` in `folder`.
pub fn run(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().expect("the binary starts")
}

/// `text` with every `from` in it made `to`; there must be one.
pub fn changed(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} not in: {text}");
    text.replace(from, to)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs and expects success; returns standard output.
pub fn succeed(folder: &Path, args: &[&str]) -> String {
    succeeded(&mut command(folder, args))
}

/// As [`succeed`], of a command that is made already.
pub fn succeeded(command: &mut Command) -> String {
    let output = command.output().expect("the binary starts");
    let message = text(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {message}");
    text(&output.stdout)
}

/// Samples `model` with these further arguments; returns standard output.
pub fn sample(folder: &Path, model: &Path, args: &[&str]) -> String {
    let fixed = ["sample", "--checkpoint", s(model)];
    succeed(folder, &[&fixed[..], args].concat())
}

/// Runs and expects an error (exit code 2, no panic) whose message holds every one
/// of `words`.
pub fn refuse(folder: &Path, args: &[&str], words: &[&str]) {
    refused(&mut command(folder, args), words);
}

/// As [`refuse`], of a command that is made already; returns the message.
pub fn refused(command: &mut Command, words: &[&str]) -> String {
    let output = command.output().expect("the binary starts");
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{command:?}: {message}");
    // What a panic is reported as, inside libtorch and elsewhere.
    for panic in ["operation failed", "panicked"] {
        assert!(!message.contains(panic), "{command:?}: {message}");
    }
    for word in words {
        assert!(
            message.contains(word),
            "{command:?}: {word:?} not in: {message}"
        );
    }
    message
}

/// As [`refuse`], within two minutes and 8 GiB of addresses: what waits for ever or takes
/// all memory ends with another code. Returns the message.
pub fn refuse_within_bounds(folder: &Path, args: &[&str], words: &[&str]) -> String {
    let program = command(folder, args);
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -v 8388608 && exec timeout 120 \"$@\"", "sh"])
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(folder)
        .env("OMP_NUM_THREADS", "1");
    refused(&mut command, words)
}

/// Path arguments as strings.
pub fn s(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// The text_tiny model in the own format, in a fresh folder.
pub fn native_model() -> (TempDir, PathBuf) {
    let folder = TempDir::new().expect("a temporary folder");
    let model = folder.path().join("model.safetensors");
    let case = fixture("text_tiny");
    succeed(
        folder.path(),
        &[
            "convert",
            s(&case.join("last.pth")),
            s(&model),
            "--config",
            s(&case.join("config.yaml")),
        ],
    );
    (folder, model)
}

pub fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| text(entry.expect("an entry").file_name().as_encoded_bytes()))
        .collect();
    names.sort();
    names
}

/// To `command` the disk below `folder` is full after so many bytes.
pub fn full_after(command: &mut Command, folder: &Path, bytes: u64) {
    use std::sync::OnceLock;
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, library) = LIBRARY.get_or_init(|| {
        let folder = TempDir::new().expect("a temporary folder");
        let library = folder.path().join("full_disk.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/program/full_disk.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .status()
            .expect("a C compiler");
        assert!(compiled.success());
        (folder, library)
    });
    command
        .env("LD_PRELOAD", library)
        .env("FULL_FOLDER", folder)
        .env("FULL_AFTER", bytes.to_string());
}
