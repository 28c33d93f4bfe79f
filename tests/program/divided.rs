//! Commands whose work several processes divide: what they write does not depend on how many.

use std::collections::BTreeMap;
use std::path::Path;

use tempfile::TempDir;
use vqdiffusion::picture::{write_png, Picture};

use crate::codec_training::prepared;
use crate::running::{refuse, succeed};

/// The files of a folder by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let files = entries.map(|entry| entry.expect("an entry").path());
    let named = files.filter_map(|path| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        (!name.starts_with('.')).then(|| (name, std::fs::read(&path).expect("a file")))
    });
    named.collect()
}

#[test]
fn pictures_do_not_depend_on_the_number_of_processes() {
    let folder = TempDir::new().expect("a temporary folder");
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/checkpoints/emoji.safetensors");
    let sample = |out: &str, more: &[&str]| {
        let words = [
            "sample",
            "--checkpoint",
            model,
            "--threads=1",
            "--device=cpu",
            "--steps=3",
            "--count=2",
            "--seed=5",
            "--grid",
            "--animate",
            "--out",
            out,
            "red heart",
            "blue car",
        ];
        succeed(folder.path(), &[&words[..], more].concat())
    };
    let said = sample("1", &[]);
    let one = files(&folder.path().join("1"));
    assert_eq!(one.len(), 9, "four pictures, their animations and the grid");
    for count in ["2", "3"] {
        let flag = format!("--nproc-per-node={count}");
        let told = sample(count, &[&flag]);
        assert!(
            files(&folder.path().join(count)) == one,
            "{count} processes"
        );
        assert_eq!(told.replace(&format!("{count}/"), "1/"), said);
    }
    refuse(
        folder.path(),
        &[
            "sample",
            "--checkpoint",
            model,
            "--device=cpu",
            "--trace=traces",
            "--nproc-per-node=2",
            "red heart",
        ],
        &["--trace is for one process, but there are 2"],
    );
    assert!(!folder.path().join("outputs").exists());
}

/// 520 pictures are three shards; two pictures are none.
fn data_set(folder: &Path) {
    std::fs::create_dir(folder.join("set")).expect("a folder");
    for n in 0..520u32 {
        let path = folder.join(format!("set/{n:03}.png"));
        if [300, 519].contains(&n) {
            std::fs::write(&path, "no picture").expect("a file");
            continue;
        }
        let colour = |i: u32| ((n * 37 + i * (n % 7 + 1)) % 256) as u8;
        let picture = Picture {
            width: 16,
            height: 16,
            rgb: (0..16 * 16 * 3).map(colour).collect(),
        };
        write_png(&path, &picture, &[]).expect("a picture");
    }
}

#[test]
fn token_caches_do_not_depend_on_the_number_of_processes() {
    let folder = prepared();
    let place = folder.path();
    let few = ["train.steps=1", "train.codebook.start=0", "--device=cpu"];
    succeed(place, &[&["train-codec", "codec.yaml"][..], &few].concat());
    data_set(place);
    let tokenize = |out: &str, more: &[&str]| {
        let codec = "--checkpoint=run/codec.safetensors";
        let words = [
            "tokenize",
            "set",
            codec,
            "--threads=1",
            "--device=cpu",
            "--out",
            out,
        ];
        succeed(place, &[&words[..], more].concat())
    };
    let said = tokenize("1", &[]);
    assert!(said.contains("518 pictures of 520"), "{said}");
    let one = files(&place.join("1"));
    assert_eq!(one.len(), 4);
    for count in ["2", "3"] {
        let flag = format!("--nproc-per-node={count}");
        let told = tokenize(count, &[&flag]);
        assert!(files(&place.join(count)) == one, "{count} processes");
        assert_eq!(told.replacen(count, "1", 1), said);
    }

    // A run that was killed before the first shard was whole goes on.
    for name in ["cache.json", "tokens-00000.safetensors"] {
        std::fs::remove_file(place.join("2").join(name)).expect("a file");
    }
    let told = tokenize("2", &["--nproc-per-node=2"]);
    assert!(told.contains("(262 from a former run)"), "{told}");
    assert!(files(&place.join("2")) == one);
}

#[test]
fn tokens_of_pictures_come_in_their_order() {
    let folder = prepared();
    let few = ["train.steps=1", "train.codebook.start=0", "--device=cpu"];
    succeed(
        folder.path(),
        &[&["train-codec", "codec.yaml"][..], &few].concat(),
    );
    let tokenize = |more: &[&str]| {
        let words = [
            "tokenize",
            "pictures/00.png",
            "pictures/01.png",
            "pictures/02.png",
            "--checkpoint=run/codec.safetensors",
            "--threads=1",
            "--device=cpu",
        ];
        succeed(folder.path(), &[&words[..], more].concat())
    };
    let one = tokenize(&[]);
    assert_eq!(one.lines().count(), 3);
    assert_eq!(tokenize(&["--nproc-per-node=2"]), one);
    assert_eq!(tokenize(&["--nproc-per-node=4"]), one);
}

/// The large model's plan needs no file but the experiment's.
#[test]
fn the_plan_of_the_large_model_fits_its_gpus() {
    let folder = TempDir::new().expect("a temporary folder");
    let ithq = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/ithq.yaml");
    let plan = |processes: &str| {
        let flag = format!("--nproc-per-node={processes}");
        let words = ["train", ithq, "--print-plan", "--device=cuda:0", &flag];
        succeed(folder.path(), &words)
    };
    let memory = |plan: &str| -> f64 {
        let (_, rest) = plan.split_once("memory       about ").expect("memory");
        let (number, _) = rest.split_once(" GiB").expect("a number");
        number.parse().expect("a number")
    };
    let (one, eight) = (plan("1"), plan("8"));
    for (plan, words) in [
        (&one, "of 64 samples (8 x 8 accumulated)"),
        (&one, "1359314048 trained"),
        (
            &eight,
            "processes    8, each with 8 samples of a step (8 x 1 accumulated)",
        ),
        (
            &eight,
            "reduction    5.44 GB of gradients a step, of which each process sends 9.52 GB",
        ),
    ] {
        assert!(plan.contains(words), "{words:?} not in: {plan}");
        // 48 GB.
        assert!(memory(plan) < 44.7, "{plan}");
    }
    assert!(!one.contains("reduction"), "{one}");
    refuse(
        folder.path(),
        &["train", ithq, "--print-plan", "--nproc-per-node=7"],
        &["63 or 70 samples", "4 or 8 processes"],
    );
    assert!(!folder.path().join("runs").exists());
}
