//! Input that would take memory or time without end, through the real binary: it is refused
//! by its name, shortly; the largest that is allowed is read.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::running::{fixture, native_model, refuse_within_bounds as refuse, s, succeed};

/// Longest message, besides the paths that it names.
const SHORT: usize = 1000;

fn gzipped(path: &Path, text: &[u8]) {
    let file = std::fs::File::create(path).unwrap();
    let mut writer = flate2::write::GzEncoder::new(file, flate2::Compression::best());
    writer.write_all(text).unwrap();
    writer.finish().unwrap();
}

/// `text` with blanks behind it, `length` bytes in all.
fn padded(text: &str, length: usize) -> String {
    format!("{text}{}", " ".repeat(length - text.len()))
}

#[test]
fn a_configuration_has_at_most_4_mib() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    let case = fixture("text_tiny");
    let yaml = std::fs::read_to_string(case.join("config.yaml")).unwrap();
    let model = case.join("last.pth");
    let args = ["inspect", s(&model), "--config", "padded.yaml"];
    // A comment's length costs the parser least.
    let yaml = format!("{yaml}\n#");
    std::fs::write(f.join("padded.yaml"), padded(&yaml, 4 << 20)).unwrap();
    succeed(f, &args);
    std::fs::write(f.join("padded.yaml"), padded(&yaml, (4 << 20) + 1)).unwrap();
    for args in [&args[..], &["train", "padded.yaml"]] {
        refuse(f, args, &["padded.yaml: holds more than 4194304 bytes"]);
    }
}

#[test]
fn json_of_a_pipeline_has_at_most_16_mib() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    let copied = Command::new("cp")
        .args(["-rL", s(&fixture("diffusers_tiny/pipeline")), "x"])
        .current_dir(f)
        .status();
    assert!(copied.unwrap().success());
    let index = f.join("x/model_index.json");
    let json = std::fs::read_to_string(&index).unwrap();
    std::fs::write(&index, padded(&json, 16 << 20)).unwrap();
    succeed(f, &["inspect", "x"]);
    std::fs::write(&index, padded(&json, (16 << 20) + 1)).unwrap();
    let words = ["model_index.json: holds more than 16777216 bytes"];
    refuse(f, &["inspect", "x"], &words);
}

#[test]
fn a_class_of_100_kb_is_answered_shortly() {
    let folder = TempDir::new().unwrap();
    let case = fixture("class_tiny");
    let (model, config) = (case.join("last.pth"), case.join("config.yaml"));
    for name in [
        "é".repeat(50_000),
        "9".repeat(100_000),
        "ox ".repeat(33_000),
    ] {
        let args = ["sample", "--checkpoint", s(&model), "--config", s(&config)];
        let message = refuse(
            folder.path(),
            &[&args[..], &["--class", &name, "--out", "never"]].concat(),
            &["class"],
        );
        assert!(message.len() < SHORT, "{} bytes", message.len());
    }
    assert!(!folder.path().join("never").exists());
}

/// Given, and found unasked beside an official checkpoint and in a pipeline's folder.
#[test]
fn merge_rules_that_unpack_without_end() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    let case = fixture("text_tiny");
    for name in ["last.pth", "config.yaml"] {
        std::fs::copy(case.join(name), f.join(name)).unwrap();
    }
    symlink(case.join("help_folder"), f.join("help_folder")).unwrap();
    let inspect = ["inspect", "last.pth", "--config", "config.yaml"];
    let out = succeed(f, &inspect);
    assert!(out.contains("vocabulary 49408"), "{out}");
    // 128 MiB of one line, and of blank ones.
    let bombs = [(b'a', "more than 4096 bytes"), (b'\n', "33554432 in all")];
    for (byte, problem) in bombs {
        gzipped(&f.join("bomb.gz"), &vec![byte; 128 << 20]);
        let given = [&inspect[..], &["--vocabulary", "bomb.gz"]].concat();
        let message = refuse(f, &given, &["bomb.gz", problem]);
        assert!(message.len() < SHORT, "{message}");
        let beside = "bpe_vocab_49408.txt.gz";
        std::fs::rename(f.join("bomb.gz"), f.join(beside)).unwrap();
        let message = refuse(f, &inspect, &[beside, problem]);
        assert!(message.len() < SHORT, "{message}");
        std::fs::remove_file(f.join(beside)).unwrap();
    }
    let copied = Command::new("cp")
        .args(["-rL", s(&fixture("diffusers_tiny/pipeline")), "x"])
        .current_dir(f)
        .status();
    assert!(copied.unwrap().success());
    let rules = f.join("x/tokenizer/merges.txt");
    gzipped(&rules, &vec![b'a'; 128 << 20]);
    let sample = ["sample", "--checkpoint", "x", "a bird"];
    refuse(f, &sample, &["merges.txt", "more than 4096 bytes"]);
}

/// A PNG with a chunk before its pixels.
fn with_chunk(png: &[u8], kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(kind);
    crc.update(content);
    let chunk = [
        &(content.len() as u32).to_be_bytes(),
        &kind[..],
        content,
        &crc.sum().to_be_bytes(),
    ]
    .concat();
    // Behind signature and header.
    [&png[..33], &chunk, &png[33..]].concat()
}

#[test]
fn text_chunks_that_unpack_without_end() {
    let (folder, model) = native_model();
    let f = folder.path();
    let run = ["sample", "--checkpoint", s(&model), "--steps", "2"];
    succeed(f, &[&run[..], &["a dog", "--out", "made"]].concat());
    let png = std::fs::read(f.join("made/0-a-dog.png")).unwrap();
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(&vec![b'a'; 128 << 20]).unwrap();
    let packed = packed.finish().unwrap();
    let chunk = [b"prompt\0\x01\0\0\0", &packed[..]].concat();
    std::fs::write(f.join("bomb.png"), with_chunk(&png, b"iTXt", &chunk)).unwrap();
    let again = [&run[..3], &["--from-image", "bomb.png", "--out", "never"]].concat();
    let message = refuse(f, &again, &["bomb.png"]);
    assert!(message.len() < SHORT, "{message}");
    assert!(!f.join("never").exists());

    // Pixels are had without the texts, which nobody unpacks.
    let edit = [
        &run[..],
        &["a dog", "--strength", "0.5"],
        &["--init-image", "bomb.png", "--out", "edit"],
    ]
    .concat();
    succeed(f, &edit);
    let chunk = [b"prompt\0\0", &packed[..]].concat();
    std::fs::write(f.join("bomb.png"), with_chunk(&png, b"zTXt", &chunk)).unwrap();
    let edit = [
        &run[..],
        &["a dog", "--strength", "0.5"],
        &["--init-image", "bomb.png", "--out", "edit2"],
    ]
    .concat();
    succeed(f, &edit);
}

/// A pipe that nobody writes to, and a device without an end.
#[test]
fn pipes_and_devices_in_the_place_of_files() {
    let (folder, model) = native_model();
    let f = folder.path();
    assert!(Command::new("mkfifo")
        .arg(f.join("pipe"))
        .status()
        .unwrap()
        .success());
    symlink("/dev/zero", f.join("zero")).unwrap();
    let run = ["sample", "--checkpoint", s(&model), "--out", "never"];
    for file in ["pipe", "zero"] {
        let words = [file, "expected a file"];
        for options in [
            &["--from-image", file][..],
            &["a dog", "--strength", "0.5", "--init-image", file],
            &["--prompts", file],
        ] {
            refuse(f, &[&run[..], options].concat(), &words);
        }
        for command in ["tokenize", "reconstruct"] {
            let args = [command, file, "--checkpoint", s(&model), "--out", "never"];
            refuse(f, &args, &words);
        }
        refuse(f, &["sample", "a dog", "--checkpoint", file], &words);
        refuse(f, &["inspect", file], &words);
        refuse(f, &["train", file], &words);
        refuse(f, &["train-codec", file], &words);
        refuse(f, &["convert", file, "x.safetensors"], &words);
    }
    assert!(!f.join("never").exists());
}

/// Where a data set's list is one, the data set is refused by the list's name.
#[test]
fn pipes_and_devices_in_the_place_of_lists() {
    let (folder, model) = native_model();
    let f = folder.path();
    for (place, device) in ["pipe", "zero"].into_iter().enumerate() {
        let data = f.join(format!("data{place}"));
        std::fs::create_dir(&data).unwrap();
        let picture = fixture("text_tiny").join("decoded_0.png");
        std::fs::copy(picture, data.join("a.png")).unwrap();
        let list = data.join("captions.jsonl");
        match device {
            "zero" => symlink("/dev/zero", list).unwrap(),
            _ => assert!(Command::new("mkfifo").arg(list).status().unwrap().success()),
        }
        let args = [
            "tokenize",
            s(&data),
            "--checkpoint",
            s(&model),
            "--out",
            "never",
        ];
        refuse(f, &args, &["captions.jsonl", "expected a file"]);
    }
}
