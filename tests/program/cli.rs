//! The command line: conversion and inspection, wrong options, help, closed pipes.

use std::process::Command;

use tempfile::TempDir;

use crate::running::{fixture, native_model, refuse, s, sample, succeed, text};

#[test]
fn conversion_keeps_every_number() {
    let (folder, model) = native_model();
    let case = fixture("text_tiny");
    let (official, config) = (case.join("last.pth"), case.join("config.yaml"));
    succeed(
        folder.path(),
        &[
            "sample",
            "--checkpoint",
            s(&official),
            "--config",
            s(&config),
            "--steps",
            "5",
            "--out",
            "a",
            "x",
        ],
    );
    sample(folder.path(), &model, &["--steps", "5", "--out", "b", "x"]);
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    // Text chunks hold the hash of the weights: equal bytes mean equal weights.
    assert_eq!(read("a/0-x.png"), read("b/0-x.png"));

    let again = folder.path().join("again.safetensors");
    succeed(folder.path(), &["convert", s(&model), s(&again)]);
    assert_eq!(read("model.safetensors"), read("again.safetensors"));
    refuse(
        folder.path(),
        &["convert", s(&model), s(&again)],
        &["again.safetensors", "exists already"],
    );
    refuse(
        folder.path(),
        &["convert", s(&model), "x.bin"],
        &["x.bin", ".safetensors"],
    );
}

#[test]
fn inspection_tells_what_a_file_is() {
    let (folder, model) = native_model();
    let case = fixture("text_tiny");
    let official = case.join("last.pth");
    let out = succeed(
        folder.path(),
        &[
            "inspect",
            s(&official),
            "--config",
            s(&case.join("config.yaml")),
            "--sha256",
        ],
    );
    for word in [
        "official training checkpoint, EMA weights taken",
        "3 blocks, width 48, 4 heads",
        "8×8 of 33 codes, 100 diffusion steps",
        "164,673 parameters",
        "64×64 pictures",
    ] {
        assert!(out.contains(word), "{word:?} not in {out}");
    }
    let sha = Command::new("sha256sum").arg(&official).output().unwrap();
    let sha = text(&sha.stdout);
    assert!(
        out.contains(sha.split_whitespace().next().unwrap()),
        "{out}"
    );

    let out = succeed(folder.path(), &["inspect", s(&model)]);
    assert!(
        out.contains("vqdiffusion (safetensors with configuration)"),
        "{out}"
    );

    // Without the mapping file the inspection succeeds and says what is missing.
    let copy = folder.path().join("copy.pth");
    std::fs::copy(&official, &copy).unwrap();
    let out = succeed(folder.path(), &["inspect", s(&copy)]);
    assert!(
        out.contains("missing") && out.contains("--mapping"),
        "{out}"
    );
}

#[test]
fn split_checkpoints_are_read_in_place() {
    let folder = TempDir::new().unwrap();
    let case = fixture("text_tiny");
    let bytes = std::fs::read(case.join("last.pth")).unwrap();
    for (suffix, part) in ["aa", "ab", "ac"]
        .iter()
        .zip(bytes.chunks(bytes.len().div_ceil(3)))
    {
        std::fs::write(folder.path().join(format!("last.pth_{suffix}")), part).unwrap();
    }
    let whole = succeed(
        folder.path(),
        &[
            "inspect",
            s(&case.join("last.pth")),
            "--sha256",
            "--config",
            s(&case.join("config.yaml")),
        ],
    );
    for name in ["last.pth_aa", "last.pth"] {
        let parts = succeed(
            folder.path(),
            &[
                "inspect",
                name,
                "--sha256",
                "--config",
                s(&case.join("config.yaml")),
            ],
        );
        assert_eq!(
            parts.lines().skip(1).collect::<Vec<_>>(),
            whole.lines().skip(1).collect::<Vec<_>>()
        );
    }
    std::fs::remove_file(folder.path().join("last.pth_ab")).unwrap();
    refuse(folder.path(), &["inspect", "last.pth_aa"], &["last.pth_ab"]);
}

#[test]
fn wrong_options_are_answered_with_the_right_ones() {
    let (folder, model) = native_model();
    let cases: [(&[&str], &[&str]); 12] = [
        (&["--steps", "0"], &["steps", "0", "1 to 100"]),
        (&["--steps", "101"], &["101", "1 to 100"]),
        (
            &["--compat", "official", "--steps", "33"],
            &["33", "100, 51, 34, 26"],
        ),
        (
            &["--compat", "offical"],
            &["offical", "official", "diffusers"],
        ),
        (&["--truncation", "0"], &["truncation", "(0, 1]"]),
        (&["--truncation", "1.2"], &["truncation", "1.2", "(0, 1]"]),
        (&["--top-k", "0"], &["top-k", "0"]),
        (
            &["--top-k", "3", "--truncation", "0.5"],
            &["--top-k", "cannot be used"],
        ),
        (&["--purity=-1"], &["purity", "-1"]),
        (&["--guidance", "inf"], &["guidance", "inf"]),
        (&["--device", "gpu"], &["gpu", "cpu, cuda or cuda:N"]),
        (&["--dtype", "f64"], &["f64", "f32", "bf16", "f16"]),
    ];
    for (options, words) in cases {
        let mut args = vec!["sample", "--checkpoint", s(&model), "--out", "never", "x"];
        args.extend(options);
        refuse(folder.path(), &args, words);
    }
    refuse(
        folder.path(),
        &["sample", "--checkpoint", s(&model)],
        &["PROMPT", "--from-image"],
    );
    refuse(folder.path(), &["sample", "x"], &["--checkpoint"]);
    assert!(!folder.path().join("never").exists(), "nothing was made");
    let max = u64::MAX.to_string();
    refuse(
        folder.path(),
        &["sample", "--checkpoint", s(&model), "--seed", &max, "x"],
        &["seed", &max],
    );
}

#[test]
fn help_completions_and_doctor() {
    let folder = TempDir::new().unwrap();
    let help = succeed(folder.path(), &["sample", "--help"]);
    for word in ["Examples:", "--guidance", "--from-image", "official"] {
        assert!(help.contains(word), "{word}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = succeed(folder.path(), &["completions", shell]);
        assert!(script.contains("vqdiffusion"), "{shell}");
    }
    let doctor = succeed(folder.path(), &["doctor"]);
    for word in ["libtorch", "2.11.0", "cuda", "c10d", "gloo", "cuda graphs"] {
        assert!(doctor.contains(word), "{word}: {doctor}");
    }
    refuse(folder.path(), &["paint"], &["paint", "unrecognized"]);
}

/// Threads that wait sleep soon, unless the environment says something else.
#[test]
fn threads_spin_briefly() {
    let turns = |variables: &[(&str, &str)]| {
        let output = Command::new(env!("CARGO_BIN_EXE_vqdiffusion"))
            .arg("--version")
            .env_remove("GOMP_SPINCOUNT")
            .env_remove("OMP_WAIT_POLICY")
            .env("OMP_DISPLAY_ENV", "verbose")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert!(output.status.success());
        let shown = text(&output.stderr);
        let line = shown.lines().find(|line| line.contains("GOMP_SPINCOUNT"));
        let line = line.unwrap_or_else(|| panic!("no spin count in {shown}"));
        line.split('\'').nth(1).unwrap().to_string()
    };
    assert_eq!(turns(&[]), "3000");
    assert_eq!(turns(&[("GOMP_SPINCOUNT", "17")]), "17");
    assert_eq!(turns(&[("OMP_WAIT_POLICY", "passive")]), "0");
}

#[test]
fn graphs_without_a_gpu_are_refused() {
    let folder = TempDir::new().unwrap();
    let sample = |more: &[&str], words: &[&str]| {
        let args = [
            "sample",
            "--checkpoint",
            "none",
            "--cuda-graph",
            "--out",
            "made",
        ];
        refuse(folder.path(), &[&args, more, &["x"]].concat(), words);
        assert!(!folder.path().join("made").exists());
    };
    let device = ["CUDA graphs need a CUDA device", "the device is cpu"];
    sample(&["--device", "cpu"], &device);
    sample(&["--compat", "official"], &["--cuda-graph", "--compat"]);
    sample(&["--purity", "0.5"], &["--cuda-graph", "--purity"]);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let folder = TempDir::new().unwrap();
    let binary = env!("CARGO_BIN_EXE_vqdiffusion");
    let output = Command::new("bash")
        .args([
            "-c",
            &format!("{binary} completions zsh | true; echo ${{PIPESTATUS[0]}}"),
        ])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout).trim(), "0", "{}", text(&output.stderr));
}
