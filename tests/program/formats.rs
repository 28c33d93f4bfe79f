//! Layouts through the real binary: diffusers folders, official checkpoints, parts in
//! several files; conversion both ways, and every kind of bad input.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use safetensors::SafeTensors;
use serde_json::{json, Value};
use tempfile::TempDir;
use vqdiffusion::checkpoint::pytorch::TorchFile;

use crate::running::{refused, s, succeeded};

pub fn at(rest: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(rest)
}

/// The pipeline saved by diffusers.
pub fn pipeline() -> PathBuf {
    at("fixtures/diffusers_tiny/pipeline")
}

/// `vqdiffusion` in `folder`, with a cache of hub models that is there.
pub fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = crate::running::command(folder, args);
    command
        .env("HF_HOME", folder.join("hf"))
        .env_remove("HF_HUB_CACHE")
        .env_remove("HUGGINGFACE_HUB_CACHE")
        .env_remove("XDG_CACHE_HOME")
        .env_remove("HF_HUB_OFFLINE")
        .env_remove("TRANSFORMERS_OFFLINE")
        .env_remove("HF_TOKEN")
        // A port that nothing listens on.
        .env("HF_ENDPOINT", "http://127.0.0.1:9");
    command
}

pub fn succeed_with(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> String {
    succeeded(command(folder, args).envs(variables.iter().copied()))
}

pub fn succeed(folder: &Path, args: &[&str]) -> String {
    succeed_with(folder, args, &[])
}

pub fn refuse_with(folder: &Path, args: &[&str], variables: &[(&str, &str)], words: &[&str]) {
    refused(command(folder, args).envs(variables.iter().copied()), words);
}

pub fn refuse(folder: &Path, args: &[&str], words: &[&str]) {
    refuse_with(folder, args, &[], words);
}

pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy_folder(&path, &target),
            false => {
                std::fs::copy(&path, &target).unwrap();
            }
        }
    }
}

/// A changed copy of the saved pipeline.
fn changed(folder: &Path, change: impl FnOnce(&Path)) -> PathBuf {
    let copy = folder.join("copy");
    let _ = std::fs::remove_dir_all(&copy);
    copy_folder(&pipeline(), &copy);
    change(&copy);
    copy
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    edit(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

/// Number format, shape and bytes by name.
type Tensors = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

fn tensors(path: &Path) -> Tensors {
    if path.extension().is_some_and(|e| e == "safetensors") {
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        return file
            .iter()
            .map(|(name, view)| {
                let value = (
                    format!("{:?}", view.dtype()),
                    view.shape().to_vec(),
                    view.data().to_vec(),
                );
                (name.to_string(), value)
            })
            .collect();
    }
    let file = TorchFile::open(path).unwrap();
    let root = file.get(file.root(), "model").unwrap_or(file.root());
    file.entries(root)
        .map(|(name, node)| {
            let tensor = file.tensor(node).unwrap().expect("a tensor");
            let dtype = match tensor.dtype.name() {
                "float16" => "F16",
                "float32" => "F32",
                "float64" => "F64",
                other => other,
            };
            let bytes = file.read_tensor(&tensor).unwrap();
            (name.to_string(), (dtype.into(), tensor.shape, bytes))
        })
        .collect()
}

fn pixels(png: &Path) -> Vec<u8> {
    image::open(png).unwrap().to_rgb8().into_raw()
}

fn temporary_files(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with('.'))
        .collect()
}

#[test]
fn diffusers_folder_to_native_and_back() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    let out = succeed(f, &["inspect", s(&pipeline())]);
    for word in [
        "diffusers folder",
        "2 blocks, width 48, 4 heads",
        "8×8 of 29 codes, 100 diffusion steps",
        "null text: learned",
        "16×16 pictures",
    ] {
        assert!(out.contains(word), "{word:?} not in {out}");
    }
    succeed(f, &["convert", s(&pipeline()), "a.safetensors"]);
    let to = ["convert", "a.safetensors", "again", "--to", "diffusers"];
    let out = succeed(f, &to);
    assert!(!out.contains("left out"), "{out}");
    succeed(f, &["convert", "again", "b.safetensors"]);
    let read = |name: &str| std::fs::read(f.join(name)).unwrap();
    assert_eq!(read("a.safetensors"), read("b.safetensors"));

    // Every tensor that diffusers saved is there as it was.
    for (component, theirs, ours) in [
        (
            "transformer",
            "diffusion_pytorch_model.safetensors",
            "diffusion_pytorch_model",
        ),
        (
            "vqvae",
            "diffusion_pytorch_model.bin",
            "diffusion_pytorch_model",
        ),
        ("text_encoder", "pytorch_model.bin", "model"),
        (
            "learned_classifier_free_sampling_embeddings",
            "diffusion_pytorch_model.bin",
            "diffusion_pytorch_model",
        ),
    ] {
        let theirs = tensors(&pipeline().join(component).join(theirs));
        let ours = f.join(format!("again/{component}/{ours}.safetensors"));
        assert!(theirs == tensors(&ours), "{component}");
    }
    // Readable by whom other files are.
    let mode = |name: &str| std::os::unix::fs::MetadataExt::mode(&f.join(name).metadata().unwrap());
    assert_eq!(
        mode("again/transformer/diffusion_pytorch_model.safetensors"),
        mode("again/model_index.json")
    );
    refuse(f, &to, &["again", "exists already"]);
    succeed(f, &[&to[..], &["--overwrite"]].concat());
    assert_eq!(temporary_files(f), [""; 0]);

    for (checkpoint, out) in [
        (s(&pipeline()), "o1"),
        ("a.safetensors", "o2"),
        ("again", "o3"),
    ] {
        let args = [
            "sample",
            "--checkpoint",
            checkpoint,
            "--steps",
            "4",
            "--out",
            out,
            "a cat!",
        ];
        succeed(f, &args);
    }
    // The text chunks hold the hash of the weights: equal bytes mean equal weights.
    assert_eq!(read("o1/0-a-cat.png"), read("o2/0-a-cat.png"));
    assert_eq!(read("o1/0-a-cat.png"), read("o3/0-a-cat.png"));
}

#[test]
fn written_tokenizer_is_the_whole_vocabulary() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    succeed(f, &["convert", s(&pipeline()), "x", "--to", "diffusers"]);
    let vocabulary = std::fs::read(f.join("x/tokenizer/vocab.json")).unwrap();
    let vocabulary: BTreeMap<String, u32> = serde_json::from_slice(&vocabulary).unwrap();
    // Published ids of CLIP's vocabulary.
    for (token, id) in [
        ("!", 0),
        ("!</w>", 256),
        ("a</w>", 320),
        ("teddy</w>", 11798),
        ("<|startoftext|>", 49406),
        ("<|endoftext|>", 49407),
    ] {
        assert_eq!(vocabulary.get(token), Some(&id), "{token}");
    }
    assert_eq!(vocabulary.len(), 49408);
    let merges = std::fs::read_to_string(f.join("x/tokenizer/merges.txt")).unwrap();
    let lines: Vec<&str> = merges.lines().collect();
    assert_eq!((lines.len(), lines[1]), (48895, "i n"));
}

/// The official checkpoint of a case with its plain weights, in the own format.
fn native_of(folder: &Path, case: &str) -> PathBuf {
    let case = at("fixtures").join(case);
    let native = folder.join("native.safetensors");
    succeed(
        folder,
        &[
            "convert",
            s(&case.join("last.pth")),
            s(&native),
            "--config",
            s(&case.join("config.yaml")),
            "--weights",
            "model",
            "--overwrite",
        ],
    );
    native
}

#[test]
fn official_checkpoint_is_written_as_it_was_read() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    for case in ["text_tiny", "text_conv_abs"] {
        native_of(f, case);
        let out = succeed(
            f,
            &["convert", "native.safetensors", "o.pth", "--overwrite"],
        );
        assert!(out.contains("attention heads, 4"), "{out}");
        // Every tensor of the original's state dict, constants included, bit by bit.
        let recorded = tensors(&at("fixtures").join(case).join("last.pth"));
        let ours = tensors(&f.join("o.pth"));
        let names: Vec<_> = ours.keys().collect();
        assert_eq!(names, recorded.keys().collect::<Vec<_>>());
        for (name, value) in &recorded {
            assert!(&ours[name] == value, "{case}: {name}");
        }
        let config = at("fixtures").join(case).join("config.yaml");
        let back = [
            "convert",
            "o.pth",
            "back.safetensors",
            "--overwrite",
            "--config",
            s(&config),
        ];
        succeed(f, &back);
        let read = |name: &str| std::fs::read(f.join(name)).unwrap();
        assert!(
            read("native.safetensors") == read("back.safetensors"),
            "{case}"
        );
    }
    // The code mapping went beside it and was found there.
    let mapping = f.join("taming_vqvae_33.pt");
    assert!(mapping.is_file());
    succeed(f, &["inspect", s(&mapping)]);
    assert_eq!(temporary_files(f), [""; 0]);
}

#[test]
fn gumbel_codec_and_mapping_are_folded_for_diffusers() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    native_of(f, "text_tiny");
    let out = succeed(
        f,
        &["convert", "native.safetensors", "d", "--to", "diffusers"],
    );
    for word in ["full_to_quantize", "quantize.proj.weight", "Lt_history"] {
        let line = out.lines().find(|line| line.contains(word));
        assert!(
            line.is_some_and(|l| l.starts_with("left out")),
            "{word}: {out}"
        );
    }
    for (checkpoint, out) in [("native.safetensors", "a"), ("d", "b")] {
        let args = [
            "sample",
            "--checkpoint",
            checkpoint,
            "--steps",
            "9",
            "--out",
            out,
        ];
        succeed(f, &[&args[..], &["--guidance", "3", "a dog!"]].concat());
    }
    let name = "0-a-dog.png";
    assert_eq!(
        pixels(&f.join("a").join(name)),
        pixels(&f.join("b").join(name))
    );
    // What both layouts hold is the same after the way through diffusers'.
    succeed(f, &["convert", "d", "e.safetensors"]);
    let (before, after) = (
        tensors(&f.join("native.safetensors")),
        tensors(&f.join("e.safetensors")),
    );
    for (name, value) in &after {
        if name != "content_codec.quantize.embedding" {
            assert!(before.get(name) == Some(value), "{name}");
        }
    }
    assert_eq!(after["content_codec.quantize.embedding"].1, [33, 32]);
}

#[test]
fn what_a_layout_cannot_hold_is_refused() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    native_of(f, "text_conv_abs");
    refuse(
        f,
        &[
            "convert",
            "native.safetensors",
            "never",
            "--to",
            "diffusers",
        ],
        &["diffusers layout", "feed_forward"],
    );
    refuse(
        f,
        &["convert", s(&pipeline()), "never.pth"],
        &["official layout", "end marker", "tokens"],
    );
    for (output, to, words) in [
        ("never.safetensors", "official", "never.safetensors"),
        ("never.pth", "diffusers", "never.pth"),
        ("never.pth", "native", ".safetensors"),
    ] {
        refuse(
            f,
            &["convert", "native.safetensors", output, "--to", to],
            &[words],
        );
    }
    for output in ["absent/x.pth", "absent/x.safetensors"] {
        refuse(
            f,
            &["convert", "native.safetensors", output],
            &["absent: no such folder"],
        );
    }
    // A folder of something else is never replaced.
    std::fs::create_dir(f.join("mine")).unwrap();
    std::fs::write(f.join("mine/letter.txt"), "x").unwrap();
    refuse(
        f,
        &[
            "convert",
            s(&pipeline()),
            "mine",
            "--to",
            "diffusers",
            "--overwrite",
        ],
        &["mine", "no diffusers pipeline"],
    );
    assert!(f.join("mine/letter.txt").is_file());
    // Nor a pipeline of another class, nor one with other files in it.
    let saved = pipeline();
    let to = ["convert", s(&saved), "ours", "--to", "diffusers"];
    succeed(f, &to);
    let replace = [&to[..], &["--overwrite"]].concat();
    let class = |name: &str| {
        edit_json(&f.join("ours/model_index.json"), |index| {
            index["_class_name"] = json!(name)
        });
    };
    class("StableDiffusionPipeline");
    refuse(f, &replace, &["ours", "no diffusers pipeline"]);
    class("VQDiffusionPipeline");
    std::fs::write(f.join("ours/vqvae/letter.txt"), "x").unwrap();
    refuse(f, &replace, &["ours", "no diffusers pipeline"]);
    std::fs::remove_file(f.join("ours/vqvae/letter.txt")).unwrap();
    succeed(f, &replace);
    // What an official file does not say is refused or reported.
    let copy = changed(f, |copy| {
        edit_json(&copy.join("tokenizer/tokenizer_config.json"), |config| {
            config["pad_token"] = json!("!")
        });
        edit_json(&copy.join("tokenizer/special_tokens_map.json"), |map| {
            map["pad_token"] = json!("!")
        });
    });
    let official = ["convert", s(&copy), "never.pth"];
    refuse(f, &official, &["official layout", "text tower has 2 heads"]);
    edit_json(&copy.join("text_encoder/config.json"), |config| {
        config["num_attention_heads"] = json!(1)
    });
    let out = succeed(f, &["convert", s(&copy), "rule.pth"]);
    assert!(
        out.contains("left out: the tokenizer's rule for '!'"),
        "{out}"
    );
    for name in ["never", "never.pth"] {
        assert!(!f.join(name).exists(), "{name}");
    }
    assert_eq!(temporary_files(f), [""; 0]);
}

#[test]
fn options_without_effect_are_refused() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    native_of(f, "text_tiny");
    let case = at("fixtures/text_tiny");
    let (official, config) = (case.join("last.pth"), case.join("config.yaml"));
    for (input, option, value) in [
        ("native.safetensors", "--mapping", "x"),
        ("native.safetensors", "--weights", "model"),
        (s(&pipeline()), "--text-encoder", "x"),
        (s(&official), "--codec", "x"),
        (s(&official), "--text-encoder", "x"),
    ] {
        let args = ["convert", input, "never.safetensors", option, value];
        let args = match input.ends_with(".pth") {
            true => [&args[..], &["--config", s(&config)]].concat(),
            false => args.to_vec(),
        };
        refuse(f, &args, &[&format!("{option} {value}: {input} holds")]);
    }
    assert!(!f.join("never.safetensors").exists());
}

#[test]
fn number_formats_are_changed_on_request_only() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    let pipeline = pipeline();
    for (kind, name, size) in [("f16", "F16", 2), ("bf16", "BF16", 2), ("f32", "F32", 4)] {
        let args = [
            "convert",
            s(&pipeline),
            "x.safetensors",
            "--dtype",
            kind,
            "--overwrite",
        ];
        succeed(f, &args);
        for (tensor, (dtype, shape, bytes)) in tensors(&f.join("x.safetensors")) {
            assert_eq!(dtype, name, "{tensor}");
            assert_eq!(
                bytes.len(),
                size * shape.iter().product::<usize>(),
                "{tensor}"
            );
        }
        succeed(
            f,
            &[
                "sample",
                "--checkpoint",
                "x.safetensors",
                "--steps",
                "1",
                "--out",
                kind,
                "x",
            ],
        );
    }
    // bfloat16 is the upper half of float32, rounded to nearest even.
    let key = "transformer.transformer.to_logits.1.bias";
    succeed(
        f,
        &[
            "convert",
            "x.safetensors",
            "b.safetensors",
            "--dtype",
            "bf16",
        ],
    );
    let (full, half) = (
        tensors(&f.join("x.safetensors")),
        tensors(&f.join("b.safetensors")),
    );
    let wanted: Vec<u8> = full[key]
        .2
        .chunks(4)
        .flat_map(|b| {
            let bits = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            let rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
            (rounded as u16).to_le_bytes()
        })
        .collect();
    assert_eq!(half[key].2, wanted);

    // A value that float16 cannot hold.
    let bytes = std::fs::read(f.join("x.safetensors")).unwrap();
    let data = &full[key].2;
    let start = bytes.windows(data.len()).position(|w| w == data).unwrap();
    let mut large = bytes.clone();
    large[start..start + 4].copy_from_slice(&70000f32.to_le_bytes());
    std::fs::write(f.join("large.safetensors"), large).unwrap();
    refuse(
        f,
        &[
            "convert",
            "large.safetensors",
            "never.safetensors",
            "--dtype",
            "f16",
        ],
        &["to_logits.1.bias", "float16", "7e4"],
    );
    assert!(!f.join("never.safetensors").exists());
}

#[test]
fn a_notice_stays_with_the_weights() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let text = "Pictures: \u{a9} their authors, CC-BY 4.0.\nNames: MIT.\n";
    std::fs::write(folder.join("NOTICE"), text).unwrap();
    std::fs::write(folder.join("blank"), " \n").unwrap();
    let pipeline = pipeline();
    let convert = |from: &str, to: &str, more: &[&str]| {
        succeed(folder, &[&["convert", from, to], more].concat())
    };
    convert(s(&pipeline), "a.safetensors", &["--notice", "NOTICE"]);
    convert("a.safetensors", "theirs", &["--to", "diffusers"]);
    let written = std::fs::read_to_string(folder.join("theirs/NOTICE")).unwrap();
    assert_eq!(written, text);
    convert("theirs", "b.safetensors", &[]);
    convert("a.safetensors", "c.safetensors", &["--dtype", "bf16"]);
    for model in ["a.safetensors", "theirs", "b.safetensors", "c.safetensors"] {
        let told = succeed(folder, &["inspect", model]);
        let end =
            "\nnotice       Pictures: \u{a9} their authors, CC-BY 4.0.\n             Names: MIT.\n";
        assert!(told.ends_with(end), "{model}: {told}");
    }
    // A folder with a notice is still one that may be replaced.
    std::fs::write(folder.join("other"), "Other.").unwrap();
    let other = ["--to", "diffusers", "--overwrite", "--notice", "other"];
    convert("a.safetensors", "theirs", &other);
    let told = succeed(folder, &["inspect", "theirs"]);
    assert!(told.ends_with("\nnotice       Other.\n"), "{told}");

    let native = native_of(folder, "text_tiny");
    convert(s(&native), "noted.safetensors", &["--notice", "NOTICE"]);
    let told = convert("noted.safetensors", "a.pth", &[]);
    assert!(told.contains("left out: the notice"), "{told}");
    let refuse = |to: &str, notice: &str, words: &[&str]| {
        refuse(
            folder,
            &["convert", "a.safetensors", to, "--notice", notice],
            words,
        );
        assert!(!folder.join(to).exists());
    };
    refuse("d.pth", "NOTICE", &["--notice", "official"]);
    refuse("d.safetensors", "blank", &["blank", "no text"]);
    refuse("d.safetensors", "absent", &["absent", "No such file"]);
}

#[test]
fn parts_in_files_of_several_formats_make_the_same_model() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    let file = |name: &str| at("checkpoints").join(name);
    let (codec, clip) = (file("codec_lightning.ckpt"), file("clip_script.pt"));
    let whole = file("model_legacy.pth");
    let split = file("model_split.pth_aa");
    let parts = ["--codec", s(&codec), "--text-encoder", s(&clip)];
    let sample = [
        "sample",
        "--steps",
        "3",
        "--guidance",
        "2",
        "hello",
        "--checkpoint",
    ];
    succeed(f, &[&sample[..], &[s(&whole), "--out", "a"]].concat());
    succeed(
        f,
        &[&sample[..], &[s(&split), "--out", "b"], &parts].concat(),
    );
    let read = |name: &str| std::fs::read(f.join(name)).unwrap();
    assert_eq!(read("a/0-hello.png"), read("b/0-hello.png"));

    let out = succeed(f, &["inspect", s(&clip)]);
    assert!(out.contains("CLIP") && out.contains("text tower"), "{out}");

    // A plain state dict of the tower, and transformers' text encoder, do as well.
    let plain = f.join("tower.safetensors");
    let prefix = "transformer.condition_emb.";
    let tower = tensors(&whole);
    let views: Vec<_> = tower
        .iter()
        .filter_map(|(name, (dtype, shape, bytes))| {
            let dtype = match dtype.as_str() {
                "F16" => safetensors::Dtype::F16,
                _ => safetensors::Dtype::F32,
            };
            let view = safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes);
            Some((name.strip_prefix(prefix)?, view.unwrap()))
        })
        .collect();
    safetensors::serialize_to_file(views, None, &plain).unwrap();
    let parts = ["--codec", s(&codec), "--text-encoder", s(&plain)];
    succeed(
        f,
        &[&sample[..], &[s(&split), "--out", "c"], &parts].concat(),
    );
    assert_eq!(read("a/0-hello.png"), read("c/0-hello.png"));
    succeed(f, &["convert", s(&whole), "d", "--to", "diffusers"]);
    let encoder = f.join("d/text_encoder/model.safetensors");
    let parts = ["--codec", s(&codec), "--text-encoder", s(&encoder)];
    succeed(
        f,
        &[&sample[..], &[s(&split), "--out", "e"], &parts].concat(),
    );
    assert_eq!(read("a/0-hello.png"), read("e/0-hello.png"));

    refuse(
        f,
        &[&sample[..], &[s(&split)]].concat(),
        &["--codec", "no image codec"],
    );
    let parts = ["--codec", s(&codec), "--text-encoder", s(&codec)];
    refuse(
        f,
        &[&sample[..], &[s(&split)], &parts].concat(),
        &["codec_lightning.ckpt", "no CLIP text tower"],
    );
    let parts = ["--codec", s(&clip)];
    refuse(
        f,
        &[&sample[..], &[s(&split)], &parts].concat(),
        &["clip_script.pt"],
    );
}

#[test]
fn weights_are_found_under_every_name() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    succeed(f, &["convert", s(&pipeline()), "x", "--to", "diffusers"]);
    let wanted =
        std::fs::read(f.join("x/transformer/diffusion_pytorch_model.safetensors")).unwrap();
    let native = |name: &str| {
        succeed(f, &["convert", name, "y.safetensors", "--overwrite"]);
        std::fs::read(f.join("y.safetensors")).unwrap()
    };
    let expected = native("x");
    let component = f.join("x/transformer");
    let plain = component.join("diffusion_pytorch_model.safetensors");
    let half = component.join("diffusion_pytorch_model.fp16.safetensors");
    std::fs::rename(&plain, &half).unwrap();
    assert!(native("x") == expected, "variant name");

    // Two shards and their index.
    std::fs::remove_file(&half).unwrap();
    let all = SafeTensors::deserialize(&wanted).unwrap();
    let mut map = serde_json::Map::new();
    for (number, wants_block) in [(1, true), (2, false)] {
        let shard = format!("diffusion_pytorch_model-0000{number}-of-00002.safetensors");
        let part: Vec<_> = all
            .iter()
            .filter(|(name, _)| name.contains("blocks.0") == wants_block)
            .collect();
        for (name, _) in &part {
            map.insert(name.to_string(), json!(shard));
        }
        safetensors::serialize_to_file(part, None, &component.join(shard)).unwrap();
    }
    let index = component.join("diffusion_pytorch_model.safetensors.index.json");
    std::fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
    assert!(native("x") == expected, "shards");
    edit_json(&index, |index| {
        index["weight_map"]["out.bias"] = json!("../../secret")
    });
    refuse(f, &["inspect", "x"], &["index.json", "../../secret"]);
    edit_json(&index, |index| {
        index["weight_map"]["out.bias"] = json!("absent.safetensors")
    });
    refuse(f, &["inspect", "x"], &["absent.safetensors"]);

    // Names before 2023, and a configuration without norm_type.
    let old = changed(f, |copy| {
        edit_json(&copy.join("transformer/config.json"), |config| {
            config.as_object_mut().unwrap().remove("norm_type");
        });
        let model = f.join("x/vqvae/diffusion_pytorch_model.safetensors");
        let bytes = std::fs::read(model).unwrap();
        let renamed: Vec<_> = SafeTensors::deserialize(&bytes)
            .unwrap()
            .iter()
            .map(|(name, view)| {
                let name = name
                    .replace(".to_q.", ".query.")
                    .replace(".to_k.", ".key.")
                    .replace(".to_v.", ".value.")
                    .replace(".to_out.0.", ".proj_attn.");
                (name, view)
            })
            .collect();
        assert!(renamed.iter().any(|(name, _)| name.contains("proj_attn")));
        std::fs::remove_file(copy.join("vqvae/diffusion_pytorch_model.bin")).unwrap();
        let to = copy.join("vqvae/diffusion_pytorch_model.safetensors");
        safetensors::serialize_to_file(renamed, None, &to).unwrap();
    });
    assert!(native(s(&old)) == expected, "old names");
}

#[test]
fn bad_pipelines_are_named() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    let weights = "transformer/diffusion_pytorch_model.safetensors";
    type Change = Box<dyn Fn(&Path)>;
    fn set(file: &'static str, key: &'static str, value: Value) -> Change {
        Box::new(move |copy| edit_json(&copy.join(file), |config| config[key] = value.clone()))
    }
    let null_text = "learned_classifier_free_sampling_embeddings";
    let cases: Vec<(Change, Vec<&str>)> = vec![
        (
            Box::new(|c| std::fs::write(c.join("vqvae/config.json"), "{\"act_fn\": ").unwrap()),
            vec!["vqvae/config.json", "line 1"],
        ),
        (
            Box::new(|c| {
                edit_json(&c.join("transformer/config.json"), |config| {
                    config.as_object_mut().unwrap().remove("num_layers");
                });
            }),
            vec!["transformer/config.json", "num_layers"],
        ),
        (
            Box::new(move |c| std::fs::remove_dir_all(c.join(null_text)).unwrap()),
            vec!["lacks the component", null_text, "main"],
        ),
        (
            Box::new(|c| {
                std::fs::remove_file(c.join("vqvae/diffusion_pytorch_model.bin")).unwrap()
            }),
            vec!["vqvae", "holds no weights"],
        ),
        (
            Box::new(move |c| {
                let bytes = std::fs::read(c.join(weights)).unwrap();
                std::fs::write(c.join(weights), &bytes[..bytes.len() - 1000]).unwrap();
            }),
            vec![weights],
        ),
        (
            Box::new(move |c| {
                let version = "version https://git-lfs.github.com/spec/v1\noid sha256:00\n";
                std::fs::write(c.join(weights), version).unwrap();
            }),
            vec![weights],
        ),
        (
            Box::new(|c| std::fs::remove_file(c.join("tokenizer/tokenizer_config.json")).unwrap()),
            vec!["tokenizer_config.json"],
        ),
        (
            set(
                "model_index.json",
                "_class_name",
                json!("StableDiffusionPipeline"),
            ),
            vec![
                "model_index.json",
                "StableDiffusionPipeline",
                "VQDiffusionPipeline",
            ],
        ),
        (
            set("transformer/config.json", "activation_fn", json!("geglu")),
            vec!["activation_fn", "geglu", "geglu-approximate"],
        ),
        (
            set(
                "transformer/config.json",
                "norm_type",
                json!("ada_norm_zero"),
            ),
            vec!["norm_type", "ada_norm_zero"],
        ),
        (
            set("transformer/config.json", "num_layers", json!(-1)),
            vec!["num_layers", "-1"],
        ),
        (
            set("transformer/config.json", "num_layers", json!(3)),
            vec!["blocks.2", "missing"],
        ),
        (
            set("transformer/config.json", "sample_size", json!(4)),
            vec!["height_emb", "[8, 48]", "[4, 48]"],
        ),
        (
            set(
                "scheduler/scheduler_config.json",
                "num_vec_classes",
                json!(31),
            ),
            vec!["scheduler_config.json", "num_vec_classes", "31", "30"],
        ),
        (
            set("vqvae/config.json", "block_out_channels", json!([32, 40])),
            vec!["vqvae/config.json", "block_out_channels", "[32, 40]"],
        ),
        (
            set(
                "vqvae/config.json",
                "up_block_types",
                json!(["UpDecoderBlock2D", "UpDecoderBlock2D"]),
            ),
            vec!["up_block_types"],
        ),
        (
            set("text_encoder/config.json", "hidden_act", json!("gelu")),
            vec!["hidden_act", "gelu", "quick_gelu"],
        ),
        (
            set(
                "tokenizer/tokenizer_config.json",
                "pad_token",
                json!("<pad>"),
            ),
            vec!["pad_token", "<pad>"],
        ),
    ];
    for (change, words) in cases {
        let copy = changed(f, change);
        refuse(f, &["convert", s(&copy), "never.safetensors"], &words);
        assert!(!f.join("never.safetensors").exists(), "{words:?}");
    }
    // A tensor that is no part of the model is named too.
    let copy = changed(f, |copy| {
        let bytes = std::fs::read(copy.join(weights)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut all: Vec<_> = file.iter().map(|(n, v)| (n.to_string(), v)).collect();
        all.push(("lora.up".into(), all[0].1.clone()));
        safetensors::serialize_to_file(all, None, &copy.join(weights)).unwrap();
    });
    refuse(
        f,
        &["sample", "--checkpoint", s(&copy), "--out", "never", "x"],
        &["transformer: lora.up", "not part of this model"],
    );
    assert!(!f.join("never/0-x.png").exists());
}
