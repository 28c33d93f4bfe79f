//! Model files as other programs and people leave them, and files that are no models.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{json, Value};
use tempfile::TempDir;
use vqdiffusion::checkpoint::clip::tower::read_text_tower;
use vqdiffusion::checkpoint::pytorch::{Saved, SavedTensor, TorchFile, TorchWriter};
use vqdiffusion::checkpoint::state_dict::read_safetensors;
use vqdiffusion::checkpoint::{Checkpoint, CodecFile, OpenOptions, StateDict};
use vqdiffusion::clip::merges::FULL_VOCABULARY;
use vqdiffusion::clip::Merges;

use crate::running::{changed, fixture, refuse, run, s, succeed, text};

const CLIP_RULES: &str = "src/clip/vocabulary/bpe_simple_vocab_16e6.txt.gz";

fn at(rest: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(rest)
}

/// Number format, shape and bytes of every tensor.
fn contents(state: &StateDict) -> BTreeMap<String, (String, Vec<i64>, Vec<u8>)> {
    let entries = state.iter().map(|(name, e)| {
        let value = (e.dtype.name().into(), e.shape.clone(), e.bytes().unwrap());
        (name.to_string(), value)
    });
    entries.collect()
}

/// Writes the tensors below `parts` of the PyTorch file `from`, the root itself for an empty
/// part, with the keys that `rename` gives them.
fn resave(from: &Path, to: &Path, parts: &[&str], rename: impl Fn(&str) -> Vec<String>) {
    let file = TorchFile::open(from).unwrap();
    let mut storages = Vec::new();
    let mut saved = |part: &str| {
        let node = file.get(file.root(), part).expect("the part");
        let mut dict = Vec::new();
        for (key, value) in file.entries(node) {
            let Some(tensor) = file.tensor(value).unwrap() else {
                continue;
            };
            for name in rename(key) {
                let shape = tensor.shape.iter().map(|&n| n as i64).collect();
                let saved = SavedTensor {
                    storage: storages.len(),
                    dtype: tensor.dtype,
                    shape,
                };
                dict.push((name, Saved::Tensor(saved)));
                storages.push(file.read_tensor(&tensor).unwrap());
            }
        }
        (part.to_string(), Saved::Dict(dict))
    };
    let root = Saved::Dict(parts.iter().map(|part| saved(part)).collect());
    let mut writer = TorchWriter::new(std::fs::File::create(to).unwrap(), &root).unwrap();
    for (index, bytes) in storages.iter().enumerate() {
        writer.storage(index, bytes).unwrap();
    }
    writer.finish().unwrap();
}

fn open_tiny(path: &Path) -> Checkpoint {
    let options = OpenOptions {
        config: Some(fixture("text_tiny").join("config.yaml")),
        ..OpenOptions::default()
    };
    Checkpoint::open(path, &options).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A way in which a wrapper changes keys.
type Wrapping = fn(&str) -> String;

const WRAPPINGS: [Wrapping; 5] = [
    |key| format!("_orig_mod.{key}"),
    |key| format!("module._orig_mod.{key}"),
    |key| format!("_orig_mod.module.{key}"),
    |key| {
        format!(
            "_fsdp_wrapped_module.{}",
            key.replace(".blocks.", ".blocks._orig_mod.")
        )
    },
    |key| {
        key.replacen(
            '.',
            ".module._fsdp_wrapped_module._checkpoint_wrapped_module.",
            1,
        )
    },
];

#[test]
fn names_of_wrappers_do_not_count() {
    let folder = TempDir::new().unwrap();
    let wrapped = folder.path().join("wrapped.pth");
    let plain = fixture("text_tiny").join("last.pth");
    let expected = contents(&open_tiny(&plain).state);
    for wrap in WRAPPINGS {
        resave(&plain, &wrapped, &["model", "ema"], |key| vec![wrap(key)]);
        assert!(
            contents(&open_tiny(&wrapped).state) == expected,
            "{}",
            wrap("a.blocks.b")
        );
    }
    // Two keys that are one without them.
    resave(&plain, &wrapped, &["model"], |key| {
        vec![key.to_string(), format!("module.{key}")]
    });
    let error = Checkpoint::open(&wrapped, &OpenOptions::default())
        .err()
        .unwrap();
    assert!(error.to_string().contains("module."), "{error}");
}

#[test]
fn wrapped_codecs_and_averaged_copies_are_read() {
    let folder = TempDir::new().unwrap();
    let changed = folder.path().join("codec.ckpt");
    let plain = at("tests/checkpoints/codec_lightning.ckpt");
    let open = |path: &Path| {
        contents(
            &CodecFile::open(path, &OpenOptions::default())
                .unwrap()
                .state,
        )
    };
    let expected = open(&plain);
    assert!(expected.len() > 10);
    for wrap in WRAPPINGS {
        resave(&plain, &changed, &["state_dict"], |key| vec![wrap(key)]);
        assert!(open(&changed) == expected, "{}", wrap("a.blocks.b"));
    }
    // Lightning's `LitEma` leaves the dots out of its names.
    resave(&plain, &changed, &["state_dict"], |key| {
        vec![
            key.to_string(),
            format!("model_ema.{}", key.replace('.', "")),
        ]
    });
    assert!(open(&changed) == expected);
    let said = run(folder.path(), &["inspect", "codec.ckpt"]);
    assert!(text(&said.stderr).contains("averaged copy"), "{said:?}");
}

/// A copy of the archive `from` whose pickle goes on with `more` at its end.
fn with_pickle(from: &Path, to: &Path, change: impl Fn(Vec<u8>) -> Vec<u8>) {
    let bytes = std::fs::read(from).unwrap();
    let mut source = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
    let mut target = zip::ZipWriter::new(std::fs::File::create(to).unwrap());
    for index in 0..source.len() {
        let entry = source.by_index(index).unwrap();
        let name = entry.name().unwrap().into_owned();
        if !name.ends_with("data.pkl") {
            target.raw_copy_file(entry).unwrap();
            continue;
        }
        let mut entry = entry;
        let mut pickle = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut pickle).unwrap();
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored);
        target.start_file(name, options).unwrap();
        target.write_all(&change(pickle)).unwrap();
    }
    target.finish().unwrap();
}

#[test]
fn an_average_that_is_none_leaves_the_plain_weights() {
    let folder = TempDir::new().unwrap();
    let plain = fixture("text_tiny").join("last.pth");
    let model = folder.path().join("model.pth");
    resave(&plain, &model, &["model"], |key| vec![key.to_string()]);
    let expected = contents(&open_tiny(&model).state);
    assert!(
        expected != contents(&open_tiny(&plain).state),
        "the average differs"
    );
    let none = folder.path().join("none.pth");
    // {'decay': 0.99, 'shadow_params': []} as pytorch-ema saves it, with another list.
    let listed =
        b"}X\x05\x00\x00\x00decayG?\xef\xae\x14z\xe1G\xaesX\x0d\x00\x00\x00shadow_params]K\x01as";
    let text_value = b"X\x02\x00\x00\x00no";
    for (value, warning) in [
        (&b"N"[..], false),
        (b"}", false),
        (b"]", false),
        (listed, true),
        (text_value, true),
        (b"}X\x01\x00\x00\x00aK\x01s", true),
    ] {
        with_pickle(&plain, &none, |mut pickle| {
            assert_eq!(pickle.pop(), Some(b'.'));
            pickle.extend(b"X\x03\x00\x00\x00ema");
            pickle.extend(value);
            pickle.extend(b"s.");
            pickle
        });
        assert!(contents(&open_tiny(&none).state) == expected, "{value:?}");
        let config = fixture("text_tiny").join("config.yaml");
        let said = run(
            folder.path(),
            &["inspect", "none.pth", "--config", s(&config)],
        );
        assert!(text(&said.stdout).contains("without EMA"), "{said:?}");
        let said = text(&said.stderr);
        assert_eq!(
            said.contains("'ema' holds no averaged weights"),
            warning,
            "{said}"
        );
    }
}

#[test]
fn a_foreign_tensor_is_named() {
    let folder = TempDir::new().unwrap();
    let foreign = folder.path().join("foreign.pth");
    with_pickle(&at("tests/checkpoints/plain.pth"), &foreign, |_| {
        let mut pickle =
            b"\x80\x02}X\x05\x00\x00\x00model}X\x15\x00\x00\x00transformer.freqs_cis".to_vec();
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nComplexFloatStorage\n");
        pickle.extend(b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x0ctQK\x00K\x03K\x04\x86K\x04K\x01\x86\x89}tRss.");
        pickle
    });
    refuse(
        folder.path(),
        &["inspect", "foreign.pth"],
        &["foreign.pth: transformer.freqs_cis: a tensor of complex64 is not supported"],
    );
}

#[test]
fn an_unpacked_checkpoint_is_named() {
    let folder = TempDir::new().unwrap();
    let mut archive =
        zip::ZipArchive::new(std::fs::File::open(fixture("text_tiny").join("last.pth")).unwrap())
            .unwrap();
    archive.extract(folder.path().join("u")).unwrap();
    let inner = std::fs::read_dir(folder.path().join("u")).unwrap().next();
    let inner = inner.unwrap().unwrap().path();
    for path in [&folder.path().join("u"), &inner] {
        refuse(
            folder.path(),
            &["inspect", s(path)],
            &["unpacked checkpoint", "data.pkl"],
        );
    }
}

#[test]
fn what_is_no_model_is_said() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    let png = fixture("text_tiny").join("decoded_0.png");
    std::fs::copy(&png, f.join("a.pth")).unwrap();
    std::fs::copy(&png, f.join("a.safetensors")).unwrap();
    std::fs::write(f.join("note.pt"), "to do: train\n").unwrap();
    std::fs::write(f.join("page.safetensors"), "<!doctype html><html>").unwrap();
    std::fs::write(f.join("empty.ckpt"), "").unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    std::fs::write(f.join("lfs.safetensors"), pointer).unwrap();
    for (name, word) in [
        ("a.pth", "picture (PNG)"),
        ("a.safetensors", "picture (PNG)"),
        ("note.pt", "a text that begins with \"to do: train\""),
        ("page.safetensors", "web page"),
        ("empty.ckpt", "empty"),
        ("lfs.safetensors", "git lfs pull"),
        ("absent.pth", "no such file"),
        ("absent.safetensors", "no such file"),
        ("/dev/zero", "expected a file"),
        (".", "is a folder"),
    ] {
        refuse(f, &["inspect", name], &[name, word]);
        refuse(
            f,
            &["sample", "--checkpoint", name, "--out", "never", "x"],
            &[name, word],
        );
    }
    assert!(!f.join("never").exists());
    // Cut short, by any number of bytes.
    let whole = std::fs::read(fixture(
        "diffusers_tiny/pipeline/transformer/diffusion_pytorch_model.safetensors",
    ))
    .unwrap();
    for length in [20, whole.len() / 2, whole.len() - 1] {
        std::fs::write(f.join("cut.safetensors"), &whole[..length]).unwrap();
        refuse(
            f,
            &["inspect", "cut.safetensors"],
            &["cut.safetensors", "cut off"],
        );
    }
    let longer = [&whole[..], b"more"].concat();
    std::fs::write(f.join("cut.safetensors"), longer).unwrap();
    refuse(f, &["inspect", "cut.safetensors"], &["4 bytes more"]);
}

/// A pipe that nobody writes to, and a device without an end, in the place of every file.
#[test]
fn pipes_and_devices_are_refused_at_once() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    assert!(Command::new("mkfifo")
        .arg(f.join("pipe"))
        .status()
        .unwrap()
        .success());
    let model = fixture("text_tiny").join("last.pth");
    let config = fixture("text_tiny").join("config.yaml");
    let plain = ["inspect", s(&model), "--config", s(&config)];
    for file in ["pipe", "/dev/zero"] {
        refuse(f, &["inspect", file], &["expected a file"]);
        refuse(
            f,
            &["inspect", s(&model), "--config", file],
            &["expected a file"],
        );
        refuse(f, &["train", file], &["expected a file"]);
        let (uncond, c) = ("uncond_tiny", fixture("uncond_tiny").join("config.yaml"));
        let uncond = fixture(uncond).join("last.pth");
        for option in ["--vocabulary", "--mapping"] {
            let args = [&plain[..], &[option, file]].concat();
            let output = run(f, &args);
            let said = text(&output.stderr);
            assert!(
                said.contains("expected a file") || said.contains("uses all codes"),
                "{said}"
            );
        }
        let output = run(
            f,
            &["inspect", s(&uncond), "--config", s(&c), "--codec", file],
        );
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
    let error = read_text_tower(&f.join("pipe")).err().unwrap();
    assert!(error.to_string().contains("expected a file"), "{error}");
}

#[test]
fn brackets_without_end_are_refused() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    for (name, unit) in [("a", "["), ("b", "{a: "), ("c", "[{")] {
        std::fs::write(f.join(name), unit.repeat(200_000 / unit.len())).unwrap();
        for args in [
            vec!["train", name],
            vec!["inspect", "x.pth", "--config", name],
        ] {
            refuse(f, &args, &[name, "brackets are open"]);
        }
    }
    let model = fixture("text_tiny");
    let deep = format!("train.lr={}", "[".repeat(100_000));
    let output = run(f, &["train", s(&model.join("config.yaml")), &deep]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("brackets are open"),
        "{output:?}"
    );
}

fn gzipped(path: &Path, text: &str) {
    let file = std::fs::File::create(path).unwrap();
    let mut writer = flate2::write::GzEncoder::new(file, flate2::Compression::best());
    writer.write_all(text.as_bytes()).unwrap();
    writer.finish().unwrap();
}

#[test]
fn merge_rules_are_read_as_they_come() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("merges.txt");
    let clip = Merges::clip(FULL_VOCABULARY).unwrap();
    // OpenAI's file goes on behind the rules that are used.
    assert!(Merges::read(&at(CLIP_RULES)).unwrap() == clip);
    let short = Merges::clip(700).unwrap();
    let lines = short.to_text();
    for changed in [
        lines.clone(),
        changed(&lines, "\n", "\r\n"),
        changed(&lines, "\n", "\n\n"),
        format!("\n{}", lines.trim_end()),
        changed(
            &lines,
            "#version: 0.2",
            "\u{feff}#version: 0.2 of something",
        ),
    ] {
        std::fs::write(&path, &changed).unwrap();
        assert!(
            Merges::read(&path).unwrap() == short,
            "{:?}",
            &changed[..60]
        );
    }
    for (changed, line, problem) in [
        ("#\na b\na b\n", 3, "makes 'ab' already"),
        ("#\n\na b c\n", 3, "not two symbols"),
        ("#\na bc\n", 2, "'bc' is neither"),
    ] {
        std::fs::write(&path, changed).unwrap();
        let error = Merges::read(&path).err().unwrap().to_string();
        assert!(error.contains(&format!("merges.txt:{line}: ")), "{error}");
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn merge_rules_are_bounded() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("bomb.txt.gz");
    // A line, lines that hold nothing, rules that double.
    gzipped(&path, &format!("#\n{}", "a".repeat(1 << 26)));
    let error = Merges::read(&path).err().unwrap().to_string();
    assert!(
        error.contains("bomb.txt.gz:2: more than 4096 bytes"),
        "{error}"
    );
    gzipped(&path, &"\n".repeat((32 << 20) + 1));
    let error = Merges::read(&path).err().unwrap().to_string();
    assert!(error.contains("33554432 in all"), "{error}");
    let mut doubling = String::from("#\n");
    let mut entry = String::from("a");
    while entry.len() <= 2048 {
        doubling += &format!("{entry} {entry}\n");
        entry = entry.repeat(2);
    }
    gzipped(&path, &doubling);
    let error = Merges::read(&path).err().unwrap().to_string();
    assert!(error.contains("13: more than 4096 bytes"), "{error}");
    let longest = doubling.trim_end().rsplit_once('\n').unwrap().0;
    gzipped(&path, longest);
    assert_eq!(Merges::read(&path).unwrap().vocabulary_size(), 514 + 11);
    // As ids the rules are short whatever they make.
    let ids: Vec<[i64; 2]> = (0..60)
        .map(|n| if n == 0 { [64, 64] } else { [511 + n; 2] })
        .collect();
    assert_eq!(
        Merges::from_ids(&ids[..12]).unwrap().vocabulary_size(),
        514 + 12
    );
    let error = Merges::from_ids(&ids).err().unwrap().to_string();
    assert!(
        error.contains("merge rule 13: 8192 bytes in one entry"),
        "{error}"
    );
}

/// A pipeline with a vocabulary of its own, as converting writes it.
fn own_vocabulary(folder: &Path) -> PathBuf {
    let model = at("checkpoints/emoji.safetensors");
    succeed(
        folder,
        &["convert", s(&model), "pipeline", "--to", "diffusers"],
    );
    folder.join("pipeline")
}

#[test]
fn a_tokenizer_in_one_file_has_the_rules() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    let tokenizer = own_vocabulary(f).join("tokenizer");
    let open = || Checkpoint::open(&f.join("pipeline"), &OpenOptions::default());
    let rules = |checkpoint: &Checkpoint| checkpoint.tokenizer().unwrap().unwrap().merges().clone();
    let expected = rules(&open().unwrap());
    let merges = std::fs::read_to_string(tokenizer.join("merges.txt")).unwrap();
    let ids: Value =
        serde_json::from_slice(&std::fs::read(tokenizer.join("vocab.json")).unwrap()).unwrap();

    // Ids in another order than the rules give them.
    let mut other = ids.clone();
    other["a"] = json!(1);
    std::fs::write(tokenizer.join("vocab.json"), other.to_string()).unwrap();
    let error = open().err().unwrap().to_string();
    assert!(error.contains("vocab.json: the id of"), "{error}");

    for name in ["merges.txt", "vocab.json", "special_tokens_map.json"] {
        std::fs::remove_file(tokenizer.join(name)).unwrap();
    }
    let error = open().err().unwrap().to_string();
    assert!(error.contains("no merge rules"), "{error}");
    let markers = ["<|startoftext|>", "<|endoftext|>"];
    let added: Vec<Value> = markers
        .iter()
        .map(|m| json!({ "id": ids[m], "content": m, "special": true }))
        .collect();
    let pairs: Vec<Vec<&str>> = merges
        .lines()
        .skip(1)
        .map(|l| l.split(' ').collect())
        .collect();
    let lines: Vec<&str> = merges.lines().skip(1).collect();
    let whole = tokenizer.join("tokenizer.json");
    let mut without = ids.clone();
    for marker in markers {
        without.as_object_mut().unwrap().remove(marker);
    }
    for (rules_form, vocabulary) in [(json!(pairs), &ids), (json!(lines), &without)] {
        let model = json!({ "type": "BPE", "vocab": vocabulary, "merges": rules_form });
        let file = json!({ "version": "1.0", "added_tokens": added, "model": model });
        std::fs::write(&whole, file.to_string()).unwrap();
        assert!(rules(&open().unwrap()) == expected);
    }
    let model = json!({ "type": "BPE", "vocab": ids, "merges": pairs[1..] });
    std::fs::write(&whole, json!({ "model": model }).to_string()).unwrap();
    let error = open().err().unwrap().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
    for (content, word) in [("[[[[", "tokenizer.json"), ("<html>", "web page")] {
        std::fs::write(&whole, content).unwrap();
        let error = open().err().unwrap().to_string();
        assert!(error.contains(word), "{error}");
    }
    std::fs::write(&whole, "[".repeat(1 << 20)).unwrap();
    assert!(open().is_err());
}

#[test]
fn text_encoders_come_with_and_without_a_prefix() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    let encoder = own_vocabulary(f).join("text_encoder");
    let file = encoder.join("model.safetensors");
    let expected = contents(&read_text_tower(&file).unwrap());
    assert!(expected.len() > 10);
    let whole = contents(
        &Checkpoint::open(&f.join("pipeline"), &OpenOptions::default())
            .unwrap()
            .state,
    );
    let (state, _) = read_safetensors(&file).unwrap();
    let write = |path: &Path, names: &dyn Fn(usize, &str) -> Option<String>| {
        let all = contents(&state);
        let views = all
            .iter()
            .enumerate()
            .filter_map(|(i, (name, (dtype, shape, bytes)))| {
                let shape = shape.iter().map(|&n| n as usize).collect();
                let dtype = match dtype.as_str() {
                    "float32" => safetensors::Dtype::F32,
                    "float16" => safetensors::Dtype::F16,
                    "bfloat16" => safetensors::Dtype::BF16,
                    other => panic!("{other}"),
                };
                let view = safetensors::tensor::TensorView::new(dtype, shape, bytes);
                Some((names(i, name)?, view.unwrap()))
            });
        safetensors::serialize_to_file(views, None, path).unwrap();
    };
    let short = |name: &str| name.strip_prefix("text_model.").unwrap_or(name).to_string();
    write(&file, &|_, name| Some(short(name)));
    assert!(contents(&read_text_tower(&file).unwrap()) == expected);
    assert!(contents(&read_text_tower(&encoder).unwrap()) == expected);
    assert!(contents(&read_text_tower(&f.join("pipeline")).unwrap()) == expected);
    let open = || {
        contents(
            &Checkpoint::open(&f.join("pipeline"), &OpenOptions::default())
                .unwrap()
                .state,
        )
    };
    assert!(open() == whole);

    std::fs::remove_file(&file).unwrap();
    let shard = |n: usize| format!("model-0000{}-of-00002.safetensors", n % 2 + 1);
    for part in 0..2 {
        write(&encoder.join(shard(part)), &|i, name| {
            (i % 2 == part).then(|| short(name))
        });
    }
    let names = contents(&state);
    let map: BTreeMap<String, String> = names
        .keys()
        .enumerate()
        .map(|(i, name)| (short(name), shard(i)))
        .collect();
    let index = encoder.join("model.safetensors.index.json");
    std::fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
    assert!(contents(&read_text_tower(&index).unwrap()) == expected);
    assert!(contents(&read_text_tower(&encoder).unwrap()) == expected);
    assert!(open() == whole);
}

#[test]
fn a_long_prompt_is_not_repeated_to_its_end() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    std::fs::write(f.join("prompts"), "word ".repeat(20_000)).unwrap();
    let model = at("checkpoints/emoji.safetensors");
    let args = [
        "sample",
        "--checkpoint",
        s(&model),
        "--steps",
        "1",
        "--prompts",
        "prompts",
    ];
    let said = text(&run(f, &[&args[..], &["--out", "o"]].concat()).stderr);
    let warning = said
        .lines()
        .find(|line| line.contains("does not fit"))
        .expect("a warning");
    assert!(
        warning.contains("word word") && warning.len() < 300,
        "{warning}"
    );
    assert!(said.len() < 2000, "{said}");
}

/// The library calls what may be given beside a file by the names of its options, the
/// program by its flags; errors keep what they come from.
#[test]
fn errors_name_parts_and_keep_their_source() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    let model = f.join("model.pth");
    let whole = fixture("text_tiny").join("last.pth");
    resave(&whole, &model, &["model"], |key| {
        let is_codec = key.starts_with("content_codec.");
        (!is_codec).then(|| key.to_string()).into_iter().collect()
    });
    let options = OpenOptions {
        vocabulary: Some("rules.txt".into()),
        ..OpenOptions::default()
    };
    let pipeline = fixture("diffusers_tiny/pipeline");
    let error = |path: &Path| Checkpoint::open(path, &options).err().unwrap();
    for (path, part) in [(&model, "codec"), (&pipeline, "vocabulary")] {
        let said = error(path).to_string();
        assert!(said.contains(&format!("OpenOptions::{part}")), "{said}");
        assert!(!said.contains("--"), "{said}");
    }
    refuse(f, &["sample", "--checkpoint", s(&model)], &["--codec"]);
    let inspected = succeed(f, &["inspect", s(&model)]);
    assert!(inspected.contains("--codec"), "{inspected}");
    let args = ["inspect", s(&pipeline), "--vocabulary", "rules.txt"];
    refuse(
        f,
        &args,
        &["--vocabulary rules.txt", "everything that it needs"],
    );

    std::fs::create_dir(f.join("broken")).unwrap();
    std::fs::write(f.join("broken/model_index.json"), "{").unwrap();
    let error = Checkpoint::open(&f.join("broken"), &OpenOptions::default())
        .err()
        .unwrap();
    let source = std::error::Error::source(&error).expect("the parser's error");
    assert!(error.to_string().ends_with(&source.to_string()), "{error}");
}
