//! Token caches through the real binary and the library: contents against the codec,
//! interruption, damage, other codecs, and batches as functions of the sample.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use tch::{Device, Tensor};
use tempfile::TempDir;
use vqdiffusion::checkpoint::{CodecFile, OpenOptions};
use vqdiffusion::clip::ClipTokenizer;
use vqdiffusion::codec::usage::{perplexity, reduction};
use vqdiffusion::data::cache::codec_identity;
use vqdiffusion::data::{
    CachedSamples, Conditions, Dataset, LiveSamples, Split, TokenCache, TokenLoader,
};
use vqdiffusion::picture::{read_picture, write_png, Picture};
use vqdiffusion::pipeline::LoadedCodec;

use crate::running::{full_after, hangup, refused, succeeded};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text_tiny")
}

/// Arguments that name the tiny model, whose pictures are 64 × 64 and 64 tokens.
fn model_arguments() -> Vec<String> {
    let path = |name: &str| fixture().join(name).display().to_string();
    vec![
        "--checkpoint".into(),
        path("last.pth"),
        "--config".into(),
        path("config.yaml"),
    ]
}

fn codec() -> LoadedCodec {
    let options = OpenOptions {
        config: Some(fixture().join("config.yaml")),
        ..OpenOptions::default()
    };
    let file = CodecFile::open(&fixture().join("last.pth"), &options).unwrap();
    LoadedCodec::load(&file, Device::Cpu).unwrap()
}

/// `vqdiffusion tokenize` of the tiny model.
fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = crate::running::command(folder, &["tokenize"]);
    command.args(args).args(model_arguments());
    command
}

fn tokenize(folder: &Path, args: &[&str]) -> String {
    succeeded(&mut command(folder, args))
}

fn refuse(folder: &Path, args: &[&str], words: &[&str]) {
    refused(&mut command(folder, args), words);
}

fn draw_picture(path: &Path, n: u32) {
    let (width, height) = (20 + n % 3 * 10, 20);
    let value = |i: u32| ((i / 3 * (n + 3) + i % 3 * 50) % 256) as u8;
    let rgb = (0..3 * width * height).map(value).collect();
    write_png(path, &Picture { width, height, rgb }, &[]).unwrap();
}

/// `count` pictures with captions and labels.
fn data_set(count: u32) -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let mut list = String::new();
    for n in 0..count {
        let name = format!("{n:03}.png");
        draw_picture(&folder.path().join("data").join(&name), n);
        let captions = [
            format!("number {n}"),
            format!("picture {n}"),
            "third".into(),
        ];
        let line = serde_json::json!({"file": name, "captions": captions, "label": n % 7});
        list += &format!("{line}\n");
    }
    std::fs::write(folder.path().join("data/captions.jsonl"), list).unwrap();
    folder
}

/// All files of a folder.
fn contents(folder: &Path) -> HashMap<String, Vec<u8>> {
    let files = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let read = |file: std::fs::DirEntry| {
        let name = file.file_name().to_string_lossy().into_owned();
        (name, std::fs::read(file.path()).unwrap())
    };
    files.map(read).collect()
}

#[test]
fn pictures_without_their_words_are_told() {
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    std::fs::create_dir(at.join("data")).unwrap();
    draw_picture(&at.join("data/a.png"), 1);
    std::fs::write(at.join("data/captions.txt"), "image,caption\na.png,a cat\n").unwrap();
    let said = |out: &str| {
        let output = command(at, &["data", "--out", out]).output().unwrap();
        let message = crate::running::text(&output.stderr);
        assert!(output.status.success(), "{message}");
        message
    };
    let message = said("c");
    let expected = "the pictures are taken without captions; not read: captions.txt";
    assert!(message.contains(expected), "{message}");
    let list = "{\"file\": \"a.png\", \"prompt\": \"a cat\"}";
    std::fs::write(at.join("data/metadata.jsonl"), list).unwrap();
    let message = said("d");
    assert!(message.contains("not read: prompt"), "{message}");
    std::fs::write(at.join("data/metadata.jsonl"), "{\"file\": \"a.png\"}").unwrap();
    let message = said("e");
    assert!(message.contains("taken without captions"), "{message}");
}

#[test]
fn a_picture_whose_decoder_panics_is_left_out_by_name() {
    let folder = data_set(2);
    let at = folder.path();
    let damaged = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures/damaged");
    std::fs::copy(damaged.join("short_palette.png"), at.join("data/001.png")).unwrap();
    let output = command(at, &["data", "--out", "c"]).output().unwrap();
    let (out, message) = (
        crate::running::text(&output.stdout),
        crate::running::text(&output.stderr),
    );
    assert!(output.status.success(), "{message}");
    for word in ["panicked", "operation failed", "out of range"] {
        assert!(!message.contains(word), "{message}");
    }
    // A later decoder may read it as Pillow does.
    if !out.contains("2 pictures of 2") {
        assert!(out.contains("skipped 1:\n  001.png: "), "{out}");
    }
    refuse(at, &["data", "--out", "d", "--strict"], &["001.png"]);
}

#[test]
fn tokens_are_the_codecs() {
    let folder = data_set(5);
    let at = folder.path();
    std::fs::write(at.join("data/002.png"), b"").unwrap();
    let out = tokenize(at, &["data", "--out", "c", "--crop", "center"]);
    assert!(out.contains("c: 4 pictures of 5, 1 views each"), "{out}");
    assert!(
        out.contains("skipped 1:\n  002.png: the file is empty"),
        "{out}"
    );

    let codec = codec();
    let cache = TokenCache::open(&at.join("c")).unwrap();
    assert_eq!(cache.items().len(), 4);
    assert_eq!(cache.items()[2].captions[0], "number 3");
    assert_eq!(cache.items()[2].label, Some(3));
    let mut usage = vec![0u64; codec.codes as usize];
    for (place, item) in cache.items().iter().enumerate() {
        let picture = read_picture(&at.join("data").join(item.picture.to_string())).unwrap();
        let image = picture.cover(64, 64).to_tensor().unsqueeze(0);
        let expected = Vec::<i64>::try_from(codec.codec.encode(&image).view([-1])).unwrap();
        assert_eq!(
            cache.tokens(place, 0).unwrap(),
            expected,
            "{}",
            item.picture
        );
        expected
            .iter()
            .for_each(|&token| usage[token as usize] += 1);
    }
    let used = usage.iter().filter(|&&count| count > 0).count();
    let line = format!(
        "codes used: {used} of {}, perplexity {:.1}",
        codec.codes,
        perplexity(&usage)
    );
    assert!(out.contains(&line), "{out}");

    // The codec is known by its weights and its code mapping.
    let identity = codec_identity(&codec.fingerprint, &codec.codec).unwrap();
    assert_ne!(identity, codec.fingerprint, "the tiny codec has a mapping");
    cache.check_codec(&identity).unwrap();
    let other = cache.check_codec("0123").unwrap_err().to_string();
    assert!(other.contains("but the model's is 0123"), "{other}");

    refuse(
        at,
        &["data", "--out", "d", "--strict"],
        &["002.png: the file is empty", "strict"],
    );
    assert!(!at.join("d/cache.json").exists());
}

#[test]
fn views_and_drawn_codes_are_functions_of_the_seed() {
    let folder = data_set(3);
    let at = folder.path();
    let make = |out: &str, more: &[&str]| {
        let args = [&["data", "--out", out, "--views", "3", "--sampled"], more].concat();
        tokenize(at, &args);
        contents(&at.join(out))
    };
    let first = make("a", &[]);
    assert_eq!(
        first,
        make("b", &["--batch-size", "2"]),
        "whatever the batch"
    );
    let other = make("c", &["--seed", "1"]);
    assert_ne!(
        first["tokens-00000.safetensors"],
        other["tokens-00000.safetensors"]
    );
    let cache = TokenCache::open(&at.join("a")).unwrap();
    assert_ne!(cache.tokens(0, 0).unwrap(), cache.tokens(0, 1).unwrap());
}

/// Tokens of another resolution than the codec's own; one that its factor does not divide
/// is refused.
#[test]
fn tokens_of_another_resolution() {
    let folder = data_set(3);
    let at = folder.path();
    let args = ["data", "--out", "c", "--crop", "center", "--resolution"];
    tokenize(at, &[&args[..], &["32"]].concat());
    let codec = codec();
    let cache = TokenCache::open(&at.join("c")).unwrap();
    for place in 0..3 {
        let path = at.join(format!("data/00{place}.png"));
        let image = read_picture(&path).unwrap().cover(32, 32).to_tensor();
        let tokens = codec.codec.encode(&image.unsqueeze(0)).view([-1]);
        let expected = Vec::<i64>::try_from(tokens).unwrap();
        assert_eq!(cache.tokens(place, 0).unwrap(), expected);
    }
    refuse(
        at,
        &["data", "--out", "d", "--resolution", "33"],
        &["--resolution 33", "cannot be halved"],
    );
}

/// A full disk: what was whole before stays, and the message names the file.
#[test]
fn a_full_disk_loses_no_whole_shard() {
    let folder = data_set(520);
    let at = folder.path();
    let mut full = command(at, &["data", "--out", "c"]);
    // Room for the first shard and some of the second.
    full_after(&mut full, &at.join("c"), 80_000);
    refused(
        &mut full,
        &["c/tokens-00001.safetensors: could not be written: No space left on device"],
    );
    let kept = contents(&at.join("c"));
    assert_eq!(kept.len(), 1, "the whole shard, and nothing else");
    let out = tokenize(at, &["data", "--out", "c"]);
    assert!(out.contains("256 from a former run"), "{out}");
    let first = "tokens-00000.safetensors";
    assert_eq!(contents(&at.join("c"))[first], kept[first]);
}

/// Starts a long run into the folder `c` and waits until it writes there.
fn started(at: &Path) -> Child {
    let mut tokenizing = command(at, &["data", "--out", "c", "--views", "200"]);
    let run = hangup(&mut tokenizing, libc::SIG_DFL)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !at.join("c/.vqdiffusion.lock").exists() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    run
}

#[test]
fn one_process_at_a_time_writes_a_cache() {
    let folder = data_set(300);
    let at = folder.path();
    let mut run = started(at);
    let process = format!("process {} on", run.id());
    refuse(
        at,
        &["data", "--out", "c"],
        &["c: another process", &process],
    );
    // Other folders are free, and a killed process locks nothing.
    tokenize(at, &["data/000.png", "--out", "t"]);
    run.kill().unwrap();
    run.wait().unwrap();
    tokenize(at, &["data", "--out", "c"]);
    let hidden = |name: &&String| name.starts_with('.');
    assert_eq!(contents(&at.join("c")).keys().filter(hidden).count(), 0);
}

#[test]
fn signals_stop_the_work_and_whole_shards_stay() {
    let folder = data_set(3);
    let at = folder.path();
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let mut run = started(at);
        std::thread::sleep(std::time::Duration::from_millis(200));
        // SAFETY: a signal to a child that was not waited for.
        assert_eq!(unsafe { libc::kill(run.id() as i32, signal) }, 0);
        let ended = run.wait().unwrap();
        let mut said = String::new();
        run.stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert_eq!(ended.code(), Some(3), "{said}");
        assert!(
            said.contains("stopped by a signal: 0 of 3 pictures are in c"),
            "{said}"
        );
        assert!(contents(&at.join("c")).is_empty());
    }
}

#[test]
fn an_interrupted_run_goes_on() {
    let folder = data_set(520);
    let at = folder.path();
    tokenize(at, &["data", "--out", "whole"]);
    let whole = contents(&at.join("whole"));
    assert_eq!(whole.len(), 4, "three shards and the header");

    let mut run = command(at, &["data", "--out", "killed"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !at.join("killed/tokens-00000.safetensors").exists() {
        assert!(
            run.try_wait().unwrap().is_none(),
            "it ended without a shard"
        );
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    let error = TokenCache::open(&at.join("killed"))
        .map(|_| ())
        .unwrap_err();
    assert!(
        error.to_string().contains("not a finished token cache"),
        "{error}"
    );
    // A shard torn by a full disk is made again.
    std::fs::write(at.join("killed/tokens-00002.safetensors"), b"torn").unwrap();
    let out = tokenize(at, &["data", "--out", "killed"]);
    assert!(out.contains("520 pictures of 520"), "{out}");
    assert!(out.contains("from a former run"), "{out}");
    assert_eq!(
        contents(&at.join("killed")),
        whole,
        "and nothing that was left half-written"
    );

    for (args, word) in [
        (["--views", "2"], "another recipe"),
        (["--seed", "5"], "another recipe"),
        (["--crop", "center"], "another recipe"),
    ] {
        refuse(
            at,
            &["data", "--out", "whole", args[0], args[1]],
            &["whole", word],
        );
    }
    std::fs::remove_file(at.join("data/captions.jsonl")).unwrap();
    refuse(at, &["data", "--out", "whole"], &["another data set"]);
    assert_eq!(contents(&at.join("whole")), whole);
}

#[test]
fn damage_is_detected() {
    let folder = data_set(4);
    let at = folder.path();
    tokenize(at, &["data", "--out", "c"]);
    let shard = at.join("c/tokens-00000.safetensors");
    let good = std::fs::read(&shard).unwrap();
    let open = || {
        TokenCache::open(&at.join("c"))
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    let mut flipped = good.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    for bytes in [&flipped[..], &good[..good.len() - 2], b""] {
        std::fs::write(&shard, bytes).unwrap();
        assert!(
            open().contains("its SHA-256 is not the one recorded"),
            "{}",
            open()
        );
        // It is made again.
        tokenize(at, &["data", "--out", "c"]);
        assert_eq!(std::fs::read(&shard).unwrap(), good);
    }
    std::fs::remove_file(&shard).unwrap();
    assert!(open().contains("tokens-00000.safetensors"));
    let header = std::fs::read_to_string(at.join("c/cache.json")).unwrap();
    let mut bad: serde_json::Value = serde_json::from_str(&header).unwrap();
    bad["codes"] = (-3).into();
    std::fs::write(at.join("c/cache.json"), bad.to_string()).unwrap();
    assert!(open().contains("codes is -3, expected 1 to"), "{}", open());
    std::fs::write(at.join("c/cache.json"), "{}").unwrap();
    assert!(open().contains("cache.json: missing field"), "{}", open());
}

#[test]
fn what_a_former_run_left_out_is_looked_at_again() {
    let folder = data_set(6);
    let at = folder.path();
    for name in ["001.png", "004.png"] {
        std::fs::write(at.join("data").join(name), b"").unwrap();
    }
    tokenize(at, &["data", "--out", "c"]);
    let before = contents(&at.join("c"));
    refuse(
        at,
        &["data", "--out", "c", "--strict"],
        &["001.png: the file is empty; 004.png: the file is empty"],
    );
    assert_eq!(contents(&at.join("c")), before);
    // One of them is mended.
    draw_picture(&at.join("data/001.png"), 1);
    let out = tokenize(at, &["data", "--out", "c"]);
    assert!(out.contains("5 pictures of 6"), "{out}");
    assert!(out.contains("skipped 1:\n  004.png"), "{out}");
    // What is complete is kept.
    draw_picture(&at.join("data/004.png"), 4);
    let strict = ["data", "--out", "c", "--strict"];
    let out = tokenize(at, &strict);
    assert!(out.contains("6 pictures of 6, 1 views each\n"), "{out}");
    let out = tokenize(at, &strict);
    assert!(out.contains("(6 from a former run)"), "{out}");
    tokenize(at, &["data", "--out", "fresh"]);
    assert_eq!(contents(&at.join("c")), contents(&at.join("fresh")));
}

/// A cache of many files is read with few descriptors.
#[test]
fn shards_hold_no_descriptors() {
    let folder = data_set(3);
    let at = folder.path();
    tokenize(at, &["data", "--out", "c"]);
    let mut header: serde_json::Value =
        serde_json::from_slice(&std::fs::read(at.join("c/cache.json")).unwrap()).unwrap();
    let entry = header["shards"][0].clone();
    let first = at.join("c/tokens-00000.safetensors");
    for n in 1..200 {
        let name = format!("tokens-{n:05}.safetensors");
        std::fs::hard_link(&first, at.join("c").join(&name)).unwrap();
        let mut entry = entry.clone();
        entry["file"] = name.into();
        header["shards"].as_array_mut().unwrap().push(entry);
    }
    std::fs::write(at.join("c/cache.json"), header.to_string()).unwrap();
    let limited = |args: &str| {
        let script = format!("ulimit -n 40; exec \"$0\" {args}");
        let mut command = Command::new("sh");
        command
            .args(["-c", &script, env!("CARGO_BIN_EXE_vqdiffusion")])
            .current_dir(at)
            .env("OMP_NUM_THREADS", "1");
        succeeded(&mut command)
    };
    let out = limited("code-usage c");
    let tokens = 200 * 3 * 64;
    assert!(out.contains(&format!("tokens {tokens}\n")), "{out}");

    let model = model_arguments();
    let experiment = format!(
        "weights: {{init_from: '{}', config: '{}'}}\ndata: {{train: c}}\n\
         train: {{folder: run, steps: 2, batch_size: 8, validation: {{every: 0}}}}\n",
        model[1], model[3]
    );
    std::fs::write(at.join("train.yaml"), experiment).unwrap();
    limited("train train.yaml --threads 1 --device cpu");
    assert!(at.join("run/last/model.safetensors").exists());
}

#[test]
fn bad_options() {
    let folder = data_set(1);
    let at = folder.path();
    refuse(at, &["data"], &["--out", "needs a folder"]);
    refuse(
        at,
        &["data/000.png", "--views", "2"],
        &["--views is for data sets"],
    );
    refuse(
        at,
        &["data/000.png", "--strict"],
        &["--strict is for data sets"],
    );
    refuse(at, &["data", "--out", "c", "--views", "0"], &["--views"]);
    refuse(
        at,
        &["data", "--out", "data"],
        &["data: holds ", "is no token cache"],
    );
    refuse(at, &["nowhere.jsonl", "--out", "c"], &["nowhere.jsonl"]);
    refuse(
        at,
        &["data", "--out", "c", "--split", "val"],
        &["--split val", "data is a data set without parts"],
    );
}

fn loader(at: &Path, conditions: Conditions, drop_rate: f64) -> TokenLoader {
    let cache = TokenCache::open(at).unwrap();
    TokenLoader::from_cache(
        CachedSamples::new(cache, conditions).unwrap(),
        17,
        drop_rate,
    )
}

fn text_conditions() -> Conditions {
    Conditions::Text(Box::new(ClipTokenizer::new(1000).unwrap()))
}

#[test]
fn batches_are_functions_of_the_sample() {
    let folder = data_set(7);
    tokenize(folder.path(), &["data", "--out", "c", "--views", "2"]);
    let at = folder.path().join("c");
    let whole = loader(&at, text_conditions(), 0.3).batch(0, 28).unwrap();
    let other = loader(&at, text_conditions(), 0.3);
    assert_eq!((other.len(), other.tokens_per_image()), (7, 64));
    for first in [19, 3, 12, 0] {
        let part = other.batch(first, 8).unwrap();
        let rows = |t: &Tensor| t.narrow(0, first as i64, 8);
        assert!(part.tokens.equal(&rows(&whole.tokens)));
        let ids = (part.text_ids.unwrap(), whole.text_ids.as_ref().unwrap());
        assert!(ids.0.equal(&rows(ids.1)));
        assert!(part.dropped.equal(&rows(&whole.dropped)));
        assert_eq!(part.samples, whole.samples[first as usize..][..8]);
    }
    // Every picture once an epoch, whichever view; labels and tokens belong together.
    let cache = TokenCache::open(&at).unwrap();
    let labelled = loader(&at, Conditions::Class, 0.0).batch(0, 28).unwrap();
    let labels = Vec::<i64>::try_from(labelled.labels.unwrap()).unwrap();
    for epoch in labels.chunks(7) {
        let mut sorted = epoch.to_vec();
        sorted.sort();
        assert_eq!(sorted, (0..7).collect::<Vec<i64>>());
    }
    let mut views = [0; 2];
    for (row, &label) in labels.iter().enumerate() {
        let tokens = Vec::<i64>::try_from(labelled.tokens.get(row as i64)).unwrap();
        let view = (0..2).find(|&v| cache.tokens(label as usize, v).unwrap() == tokens);
        views[view.expect("one of the two views")] += 1;
    }
    assert!(views[0] > 3 && views[1] > 3, "{views:?}");
}

#[test]
fn captions_are_drawn_uniformly_and_some_dropped() {
    let folder = data_set(2);
    tokenize(folder.path(), &["data", "--out", "c"]);
    let at = folder.path().join("c");
    let loader = loader(&at, text_conditions(), 0.25);
    let tokenizer = ClipTokenizer::new(1000).unwrap();
    let ids = |caption: &str| tokenizer.encode(caption).unwrap().ids;
    let known: Vec<Vec<i64>> = ["number 0", "picture 0", "number 1", "picture 1", "third"]
        .map(ids)
        .to_vec();
    let batch = loader.batch(0, 6000).unwrap();
    let dropped = Vec::<bool>::try_from(&batch.dropped).unwrap();
    let rows = Vec::<i64>::try_from(batch.text_ids.unwrap().view([-1])).unwrap();
    let mut counts = [0u32; 5];
    for (row, dropped) in rows.chunks(77).zip(&dropped) {
        // The caption of a dropped row is there too: the model puts the empty one in its place.
        let caption = known.iter().position(|k| k == row).expect("a caption");
        counts[caption] += u32::from(!dropped);
    }
    // Kept: Binomial(6000, ¾), σ = 34; captions: a sixth each, "third" twice.
    let kept: u32 = counts.iter().sum();
    assert!((4330..=4670).contains(&kept), "{kept}");
    let shares = [1.0, 1.0, 1.0, 1.0, 2.0].map(|n| n / 6.0 * f64::from(kept));
    let chi: f64 = counts
        .iter()
        .zip(shares)
        .map(|(&n, e)| (f64::from(n) - e).powi(2) / e)
        .sum();
    assert!(
        chi < 23.5,
        "4 degrees of freedom, 99.99 % quantile: {counts:?}"
    );

    let fixed = loader.fixed(2).unwrap();
    let rows = Vec::<i64>::try_from(fixed.text_ids.unwrap().view([-1])).unwrap();
    assert_eq!(rows, [ids("number 0"), ids("number 1")].concat());
}

#[test]
fn an_epoch_of_captions_has_each_once() {
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    let pictures = at.join("coco/train2014/train2014");
    std::fs::create_dir_all(&pictures).unwrap();
    std::fs::create_dir(at.join("coco/annotations")).unwrap();
    let mut annotations = Vec::new();
    for n in 0..3 {
        draw_picture(&pictures.join(format!("COCO_train2014_{n:012}.jpg")), n);
        for caption in 0..=n {
            annotations.push(serde_json::json!({
                "image_id": n, "id": annotations.len(), "caption": format!("{n} {caption}")
            }));
        }
    }
    let json = serde_json::json!({ "annotations": annotations }).to_string();
    std::fs::write(at.join("coco/annotations/captions_train2014.json"), json).unwrap();
    tokenize(at, &["coco", "--out", "c", "--crop", "center"]);
    let cached = loader(&at.join("c"), text_conditions(), 0.0);
    let live = live(&at.join("coco"));
    let tokenizer = ClipTokenizer::new(1000).unwrap();
    let captions = ["0 0", "1 0", "1 1", "2 0", "2 1", "2 2"];
    let mut expected: Vec<Vec<i64>> = captions.map(|c| tokenizer.encode(c).unwrap().ids).to_vec();
    expected.sort();
    let [from_cache, from_pictures] = [&cached, &live].map(|loader| {
        assert_eq!(loader.len(), 6);
        let batch = loader.batch(6, 6).unwrap();
        Vec::<i64>::try_from(batch.text_ids.unwrap().view([-1])).unwrap()
    });
    assert_eq!(from_cache, from_pictures);
    let mut seen: Vec<&[i64]> = from_cache.chunks(77).collect();
    seen.sort();
    assert_eq!(seen, expected);

    // The samples of validation are the same too: the middles of the first pictures.
    for size in [1, 4, 6] {
        let [a, b] = [&cached, &live].map(|loader| loader.fixed(size).unwrap());
        assert_eq!(a.samples.len(), size);
        assert_eq!(a.samples, b.samples);
        assert!(a.tokens.equal(&b.tokens));
        assert!(a.text_ids.unwrap().equal(&b.text_ids.unwrap()));
    }
}

/// Batches straight from the pictures of a data set, with the tiny model's codec.
fn live(data: &Path) -> TokenLoader {
    let samples = LiveSamples::new(
        Dataset::open(data, Split::Train, false).unwrap(),
        Rc::new(codec().codec),
        Device::Cpu,
        text_conditions(),
        (64, 64),
        17,
    );
    TokenLoader::from_pictures(samples.unwrap(), 17, 0.0)
}

#[test]
fn missing_captions_are_refused() {
    let folder = data_set(2);
    std::fs::remove_file(folder.path().join("data/captions.jsonl")).unwrap();
    tokenize(folder.path(), &["data", "--out", "c"]);
    let open = |conditions| {
        let cache = TokenCache::open(&folder.path().join("c")).unwrap();
        CachedSamples::new(cache, conditions).map(|_| ())
    };
    let error = open(text_conditions()).unwrap_err().to_string();
    assert!(error.contains("2 of 2 pictures have no caption"), "{error}");
    let error = open(Conditions::Class).unwrap_err().to_string();
    assert!(error.contains("2 of 2 pictures have no label"), "{error}");
    open(Conditions::Nothing).unwrap();
}

#[test]
fn reduction_keeps_the_used_codes_in_order() {
    let usage = [5, 0, 3, 1, 0, 0, 9, 2];
    // Class 0 is code 0 and everything unused, as in taming_vqvae_2887.pt.
    assert_eq!(reduction(&usage, 1), (vec![0, 0, 1, 2, 0, 0, 3, 4], 5));
    assert_eq!(reduction(&usage, 3), (vec![0, 0, 1, 0, 0, 0, 2, 0], 3));
    assert_eq!(reduction(&[0, 0], 0), (vec![0, 0], 1));
    // Brute force on a larger one.
    let usage: Vec<u64> = (0..500u64).map(|n| (n * n * 7919) % 13 % 4).collect();
    let (mapping, codes) = reduction(&usage, 1);
    for (code, &reduced) in mapping.iter().enumerate() {
        let before = usage[1..=code.max(1)].iter().filter(|&&n| n > 0).count() as i64;
        let expected = if code > 0 && usage[code] > 0 {
            before
        } else {
            0
        };
        assert_eq!(reduced, expected, "code {code}");
    }
    assert_eq!(
        codes,
        usage[1..].iter().filter(|&&n| n > 0).count() as i64 + 1
    );
    assert!((perplexity(&[4, 4, 0, 4, 4]) - 4.0).abs() < 1e-12);
}
