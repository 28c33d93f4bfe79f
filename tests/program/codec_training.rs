//! Codec training through the real binary: it learns, it goes on exactly where it was,
//! and what it writes is a codec that the other commands read.

use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;

use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use vqdiffusion::checkpoint::state_dict::read_safetensors;
use vqdiffusion::checkpoint::{codec_file, CodecFile};
use vqdiffusion::codec::CodecConfig;
use vqdiffusion::data::dataset::Epoch;
use vqdiffusion::data::{Dataset, PictureLoader, Rows, Split, TokenCache, Transform};
use vqdiffusion::experiment::codec::CodecExperiment;
use vqdiffusion::experiment::Experiment;
use vqdiffusion::picture::{read_picture, write_png, Picture};
use vqdiffusion::pipeline::LoadedCodec;

use crate::running::{changed, command, refuse, succeed};

const CONFIG: &str = "
codec:
  resolution: 16
  channels: 16
  multipliers: [1, 2]
  residual_blocks: 1
  attention_resolutions: []
  latent_channels: 16
  embedding_width: 8
  codebook: 32
  quantizer: ema
  norm_groups: 8
data: {train: pictures, validation: pictures}
train:
  folder: run
  steps: 240
  batch_size: 8
  codebook: {start: 10}
  learning_rate: {start: 0.002, peak: 0.002, warmup: 0, course: {kind: constant}}
  log_every: 10
  save_every: 40
";

/// Pictures of one coloured square on another colour, and the configuration.
pub fn prepared() -> TempDir {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("pictures")).unwrap();
    let colours = [[230, 30, 40], [20, 90, 220], [250, 220, 60], [30, 160, 80]];
    for n in 0..24usize {
        let (inside, outside) = (colours[n % 4], colours[(n / 4 + n + 1) % 4]);
        let (left, top) = (2 + n % 5, 2 + n / 5);
        let pixel = |i: usize| {
            let (x, y) = (i % 16, i / 16);
            let square = (left..left + 7).contains(&x) && (top..top + 7).contains(&y);
            if square {
                inside
            } else {
                outside
            }
        };
        let rgb = (0..256).flat_map(pixel).collect();
        let picture = Picture {
            width: 16,
            height: 16,
            rgb,
        };
        let path = folder.path().join(format!("pictures/{n:02}.png"));
        write_png(&path, &picture, &[]).unwrap();
    }
    std::fs::write(folder.path().join("codec.yaml"), CONFIG).unwrap();
    folder
}

/// The pictures of a run's first step, uint8 `[B, 3, H, W]`.
fn first_batch(folder: &Path, experiment: &CodecExperiment) -> Tensor {
    let pictures = Dataset::open(&folder.join("pictures"), Split::Train, false).unwrap();
    let transform = Transform {
        size: 16,
        crop: experiment.data.crop,
        flip: false,
    };
    let rows = Rows::new(Epoch::Pictures, &pictures.items);
    let seed = experiment.train.seed;
    let loader = PictureLoader::new(pictures, rows, transform, seed, false).unwrap();
    let batch = loader.batch(0, experiment.train.batch_size).unwrap();
    batch.pictures
}

fn open(folder: &Path, name: &str) -> TokenCache {
    TokenCache::open(&folder.join(name)).unwrap()
}

fn lines(folder: &Path) -> Vec<serde_json::Value> {
    let log = std::fs::read_to_string(folder.join("log.jsonl")).unwrap();
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The values of `tag` in the TensorBoard file of a run: in a record the tag is followed by
/// the key of a float, and that.
fn scalars(run: &Path, tag: &str) -> Vec<f32> {
    let mut files = std::fs::read_dir(run).unwrap().map(|e| e.unwrap().path());
    let file = files.find(|path| path.to_string_lossy().contains("tfevents"));
    let bytes = std::fs::read(file.unwrap()).unwrap();
    let tag = [tag.as_bytes(), &[0x15]].concat();
    let records = bytes.windows(tag.len() + 4);
    let values = records.filter_map(|part| part.strip_prefix(&tag[..])?.try_into().ok());
    values.map(f32::from_le_bytes).collect()
}

/// A folder with the pictures, the configuration and its finished run, made once. Tests
/// read it; what they write lies elsewhere.
fn trained() -> &'static Path {
    static TRAINED: OnceLock<TempDir> = OnceLock::new();
    let folder = TRAINED.get_or_init(|| {
        let folder = prepared();
        let out = succeed(folder.path(), &["train-codec", "codec.yaml"]);
        assert!(out.contains("wrote run/codec.safetensors"), "{out}");
        folder
    });
    folder.path()
}

/// A fresh folder that refers to the pictures and the run of [`trained`].
fn beside_trained() -> TempDir {
    let folder = TempDir::new().unwrap();
    for name in ["pictures", "run"] {
        std::os::unix::fs::symlink(trained().join(name), folder.path().join(name)).unwrap();
    }
    folder
}

/// The log's lines of steps, without those of validations.
fn steps(run: &Path) -> Vec<serde_json::Value> {
    let mut lines = lines(run);
    lines.retain(|line| line["psnr"].is_null());
    lines
}

/// The log's figures of validations.
fn validations(run: &Path) -> Vec<f64> {
    let lines = lines(run);
    lines
        .iter()
        .filter_map(|line| line["psnr"].as_f64())
        .collect()
}

fn reconstruction(line: &serde_json::Value) -> f64 {
    line["reconstruction"].as_f64().unwrap()
}

const CODEC: [&str; 2] = ["--checkpoint", "run/codec.safetensors"];
const INIT: [&str; 2] = ["--init-from", "run/codec.safetensors"];

/// The configuration of a run named `folder` that begins with a trained codec.
fn further(folder: &str) -> String {
    let mut config = CONFIG.to_string();
    for (from, to) in [
        ("folder: run", format!("folder: {folder}").as_str()),
        ("start: 10", "start: 99"),
        ("start: 0.002, peak: 0.002", "start: 0.00001, peak: 0.00001"),
        ("log_every: 10", "log_every: 1"),
    ] {
        config = changed(&config, from, to);
    }
    config
}

#[test]
fn training_lowers_the_loss() {
    let run = trained().join("run");
    let log = steps(&run);
    assert_eq!(log.len(), 24);
    let (early, late) = (reconstruction(&log[2]), reconstruction(&log[23]));
    assert!(late < 0.5 * early, "{late} is not far below {early}");
    assert_eq!(log[0]["codes_used"], 0.0, "not quantized before the start");
    assert!(log[23]["perplexity"].as_f64().unwrap() > 8.0);
    let psnr = validations(&run);
    assert_eq!(psnr.len(), 6);
    assert!(psnr[5] > psnr[0] + 4.0 && psnr[5] > 20.0, "{psnr:?}");
}

#[test]
fn tensorboard_shows_the_log_s_figures() {
    let run = trained().join("run");
    let shown: Vec<f32> = validations(&run).iter().map(|&x| x as f32).collect();
    assert_eq!(scalars(&run, "validation/psnr"), shown);
}

/// The last validation is the mean over the pictures of what comes out of the codec file.
#[test]
fn the_codec_file_gives_the_log_s_psnr() {
    let folder = beside_trained();
    let at = folder.path();
    let logged = validations(&at.join("run"))[5];
    let names: Vec<String> = (0..24).map(|n| format!("pictures/{n:02}.png")).collect();
    let names = names.iter().map(String::as_str);
    let args: Vec<&str> = ["reconstruct", "--out", "x"]
        .into_iter()
        .chain(CODEC)
        .chain(names)
        .collect();
    let printed = succeed(at, &args);
    let figure = |line: &str| line.rsplit(' ').nth(1).unwrap().parse::<f64>().unwrap();
    let printed: Vec<f64> = printed.lines().map(figure).collect();
    assert_eq!(printed.len(), 24);
    // Each is rounded to hundredths.
    let mean = printed.iter().sum::<f64>() / 24.0;
    assert!(
        (mean - logged).abs() < 0.005 + 1e-9,
        "{mean}, logged {logged}"
    );

    // Without the text's rounding: what was written, compared here.
    let psnr = |n: usize| {
        let read = |folder: &str| read_picture(&at.join(format!("{folder}/{n:02}.png"))).unwrap();
        let (original, made) = (read("pictures"), read("x"));
        let squares = original.rgb.iter().zip(&made.rgb);
        let squares = squares.map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2));
        10.0 * (255.0 * 255.0 / (squares.sum::<f64>() / (3.0 * 256.0))).log10()
    };
    let mean = (0..24).map(psnr).sum::<f64>() / 24.0;
    assert!(
        (mean - logged).abs() < 1e-9 * logged,
        "{mean}, logged {logged}"
    );

    let data = ["evaluate", "codec", "--data", "pictures"];
    let scores = succeed(at, &[&data[..], &CODEC].concat());
    assert!(
        scores.contains(&format!("{logged:.2}")),
        "{scores}, logged {logged}"
    );
}

#[test]
fn the_codec_file_serves_other_commands() {
    let folder = beside_trained();
    let at = folder.path();
    let data = ["tokenize", "pictures", "--out", "cache", "--crop", "center"];
    let out = succeed(at, &[&data[..], &CODEC].concat());
    assert!(out.contains("cache: 24 pictures of 24"), "{out}");
    let out = succeed(at, &["inspect", "run/codec.safetensors"]);
    for word in [
        "vqdiffusion image codec",
        "EMA quantizer, 32 codes, factor 2",
    ] {
        assert!(out.contains(word), "{word:?} not in: {out}");
    }
    refuse(
        at,
        &[&["sample", "x"], &CODEC[..]].concat(),
        &["run/codec.safetensors: holds an image codec alone, expected a whole model"],
    );
}

/// Codes that the data set does not use are left out by a mapping, and nothing changes.
#[test]
fn a_mapping_leaves_unused_codes_out() {
    let folder = beside_trained();
    let at = folder.path();
    let tokenize = |out: &str, more: &[&str]| {
        let data = ["tokenize", "pictures", "--out", out, "--crop", "center"];
        succeed(at, &[&data[..], &CODEC, more].concat());
    };
    tokenize("cache", &[]);
    let out = succeed(at, &["code-usage", "cache", "--mapping-out", "used.pt"]);
    assert!(out.contains("which keep 100.0000 % of the tokens"), "{out}");
    let mapping = ["--mapping", "used.pt"];
    tokenize("reduced", &mapping);
    let (all, reduced) = (open(at, "cache"), open(at, "reduced"));
    let usage = all.usage().unwrap();
    let used: Vec<i64> = (0..32)
        .filter(|&n| n > 0 && usage[n] > 0)
        .map(|n| n as i64)
        .collect();
    assert_eq!(reduced.header().codes, used.len() as i64 + 1);
    assert_ne!(reduced.header().codec, all.header().codec);
    for item in 0..24 {
        let expected = all.tokens(item, 0).unwrap().into_iter();
        let place = |code| {
            used.iter()
                .position(|&n| n == code)
                .map_or(0, |n| n as i64 + 1)
        };
        let expected: Vec<i64> = expected.map(place).collect();
        assert_eq!(reduced.tokens(item, 0).unwrap(), expected);
    }
    let reconstruct = |out: &str, more: &[&str]| {
        let args = ["reconstruct", "pictures/00.png", "--out", out];
        let said = succeed(at, &[&args[..], &CODEC, more].concat());
        let picture = std::fs::read(at.join(out).join("00.png")).unwrap();
        (changed(&said, &format!("{out}/"), ""), picture)
    };
    assert!(reconstruct("x", &[]) == reconstruct("y", &mapping));
    refuse(
        at,
        &["code-usage", "cache", "--mapping-out", "used.pt"],
        &["used.pt: exists already"],
    );
    refuse(
        at,
        &["code-usage", "pictures"],
        &["pictures: not a finished token cache"],
    );
}

/// A run from the codec's weights keeps its codebook, whatever the phase without one,
/// and starts at its loss.
#[test]
fn a_run_from_a_codec_starts_at_its_loss() {
    let folder = beside_trained();
    let at = folder.path();
    let second = further("second");
    let of = |steps: &str| changed(&second, "steps: 240", steps);
    std::fs::write(at.join("second.yaml"), of("steps: 1")).unwrap();
    succeed(at, &[&["train-codec", "second.yaml"], &INIT[..]].concat());
    let experiment = CodecExperiment::read(&at.join("second.yaml"), &[]).unwrap();
    let x = first_batch(at, &experiment).to_kind(Kind::Float);
    let file = CodecFile::open(&at.join("run/codec.safetensors"), &Default::default()).unwrap();
    let codec = LoadedCodec::load(&file, Device::Cpu).unwrap().codec;
    let decoded = codec.decode_raw(&codec.encode(&x), [8, 8]);
    let expected = (decoded - (x / 127.5 - 1.0)).abs().mean(Kind::Double);
    let expected = expected.double_value(&[]);
    let line = &lines(&at.join("second"))[0];
    let found = reconstruction(line);
    assert!(
        (found - expected).abs() < 1e-5,
        "{found}, expected {expected}"
    );
    assert!(line["codes_used"].as_f64().unwrap() > 0.1, "{line}");
    // Counts n become 0.99 n + 0.01 times those of the batch, which add up to its vectors.
    let total = |run: &str| {
        let path = at.join(run).join("codec.safetensors");
        let (state, _) = read_safetensors(&path).unwrap();
        let counts = state.get("content_codec.quantize.cluster_size").unwrap();
        counts.read().unwrap().sum(Kind::Double).double_value(&[])
    };
    let (before, after) = (total("run"), total("second"));
    let expected = 0.99 * before + 0.01 * 8.0 * 64.0;
    assert!(
        (after - expected).abs() < 1e-3,
        "{after}, expected {expected}"
    );

    // Going on, it still has its codebook.
    std::fs::write(at.join("second.yaml"), of("steps: 3")).unwrap();
    succeed(at, &["train-codec", "second.yaml", "--resume"]);
    let log = steps(&at.join("second"));
    assert_eq!(log.len(), 3);
    let reached = reconstruction(&steps(&at.join("run"))[23]);
    for line in &log[1..] {
        assert!(line["codes_used"].as_f64().unwrap() > 0.1, "{line}");
        assert!(reconstruction(line) < 1.5 * reached, "{line}");
    }
}

#[test]
fn a_codec_of_another_shape_is_no_start() {
    let folder = beside_trained();
    let at = folder.path();
    let other = |name: &str, from: &str, to: &str| {
        let config = changed(&further(name), "steps: 240", "steps: 1");
        let path = at.join(format!("{name}.yaml"));
        std::fs::write(path, changed(&config, from, to)).unwrap();
    };
    // A file that says 4 MiB an entry of weights that have 32 bytes.
    let path = at.join("run/codec.safetensors");
    let mut huge = CodecFile::open(&path, &Default::default()).unwrap().config;
    huge.embedding_width = 1 << 20;
    let (state, _) = read_safetensors(&path).unwrap();
    codec_file::write(&at.join("huge.safetensors"), &huge, &state).unwrap();
    other("huge", "embedding_width: 8", "embedding_width: 1048576");
    refuse(
        at,
        &[
            "train-codec",
            "huge.yaml",
            "--init-from",
            "huge.safetensors",
        ],
        &[
            "content_codec.quantize.embedding",
            "shape [32, 8], expected [32, 1048576]",
        ],
    );
    other("third", "latent_channels: 16", "latent_channels: 24");
    refuse(
        at,
        &[&["train-codec", "third.yaml"], &INIT[..]].concat(),
        &[
            "run/codec.safetensors",
            "codec.latent_channels is 16",
            "24 in the experiment",
        ],
    );
}

/// The decoder alone: encoder and codebook stay to the bit, and the error goes down.
#[test]
fn the_decoder_is_trained_alone() {
    let folder = beside_trained();
    let at = folder.path();
    let mut decoder = further("decoder\n  trained: decoder");
    for (from, to) in [
        ("steps: 240", "steps: 30"),
        ("start: 0.00001, peak: 0.00001", "start: 0.001, peak: 0.001"),
    ] {
        decoder = changed(&decoder, from, to);
    }
    std::fs::write(at.join("decoder.yaml"), decoder).unwrap();
    refuse(
        at,
        &["train-codec", "decoder.yaml"],
        &["train.trained", "--init-from"],
    );
    succeed(at, &[&["train-codec", "decoder.yaml"], &INIT[..]].concat());
    let stored = |run: &str| {
        read_safetensors(&at.join(run).join("codec.safetensors"))
            .unwrap()
            .0
    };
    let (before, after) = (stored("run"), stored("decoder"));
    let mut changed = 0;
    for (name, entry) in before.iter() {
        let same = after.get(name).unwrap().bytes().unwrap() == entry.bytes().unwrap();
        let behind = name.contains(".decoder.") || name.contains(".post_quant_conv.");
        assert!(same || behind, "{name} changed");
        changed += usize::from(!same);
    }
    assert!(changed > 10, "{changed} tensors of the decoder changed");
    let log = lines(&at.join("decoder"));
    let mean = |from: usize| log[from..from + 8].iter().map(reconstruction).sum::<f64>() / 8.0;
    assert!(mean(22) < mean(0), "{} is not below {}", mean(22), mean(0));
}

/// In bf16 the same steps come out as in f32 to its precision, codebook start included.
#[test]
fn half_precision_follows_single() {
    let folder = prepared();
    let at = folder.path();
    let mut losses = Vec::new();
    for precision in ["f32", "bf16"] {
        let (precision_setting, folder_setting) = (
            format!("train.precision={precision}"),
            format!("train.folder={precision}"),
        );
        let settings = ["train.steps=20", &precision_setting, &folder_setting];
        succeed(
            at,
            &[&["train-codec", "codec.yaml"], &settings[..]].concat(),
        );
        let log = lines(&at.join(precision));
        let loss = |n: usize| log[n]["reconstruction"].as_f64().unwrap();
        losses.push([loss(0), loss(1)]);
    }
    // Before the codebook's start the runs differ by rounding alone, then by its draws too.
    for (n, tolerance) in [(0, 0.01), (1, 0.15)] {
        let difference = (losses[0][n] - losses[1][n]).abs();
        assert!(difference < tolerance * losses[0][n], "{losses:?}");
    }
}

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let folder = prepared();
    let at = folder.path();
    let short = changed(CONFIG, "240", "60");
    let short = changed(&short, "save_every: 40", "save_every: 7");
    std::fs::write(at.join("whole.yaml"), &short).unwrap();
    let killed = changed(&short, "folder: run", "folder: killed");
    std::fs::write(at.join("killed.yaml"), killed).unwrap();
    succeed(at, &["train-codec", "whole.yaml"]);

    let mut run = command(at, &["train-codec", "killed.yaml"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !at.join("killed/codec.safetensors").exists() {
        assert!(run.try_wait().unwrap().is_none(), "it ended too early");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    refuse(
        at,
        &["train-codec", "killed.yaml"],
        &["killed/step-000000", "--resume"],
    );
    succeed(at, &["train-codec", "killed.yaml", "--resume"]);
    for name in [
        "codec.safetensors",
        "last/codec.safetensors",
        "last/state.safetensors",
    ] {
        let read = |run: &str| std::fs::read(at.join(run).join(name)).unwrap();
        assert!(read("run") == read("killed"), "{name} differs");
    }
    let steps = |run: &str| -> Vec<u64> {
        let log = lines(&at.join(run));
        log.iter()
            .map(|line| line["step"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(steps("run"), steps("killed"));
}

/// The codec at the top of a run's folder is that of its newest checkpoint after every start,
/// whatever a kill has left there.
#[test]
fn the_codec_at_the_top_is_the_newest() {
    let folder = prepared();
    let at = folder.path();
    let settings = [
        "train-codec",
        "codec.yaml",
        "train.steps=16",
        "train.save_every=4",
        "train.keep=9",
    ];
    succeed(at, &settings);
    let read = |name: &str| std::fs::read(at.join("run").join(name)).unwrap();
    let codec = read("codec.safetensors");
    assert!(codec == read("step-00000016/codec.safetensors"));
    assert!(codec != read("step-00000012/codec.safetensors"));
    let log = read("log.jsonl");
    let resume = [&settings[..], &["--resume"]].concat();
    let old = at.join("run/step-00000012/codec.safetensors");
    let top = at.join("run/codec.safetensors");
    std::fs::copy(old, &top).unwrap();
    succeed(at, &resume);
    assert!(codec == read("codec.safetensors"));
    std::fs::remove_file(&top).unwrap();
    succeed(at, &resume);
    assert!(codec == read("codec.safetensors"));
    assert!(log == read("log.jsonl"));

    // Back to an older one, as `train` does it.
    let back = ["--resume", "run/step-00000008", "train.steps=12"];
    succeed(at, &[&settings[..2], &back, &settings[3..]].concat());
    assert!(read("codec.safetensors") == read("abandoned-1/step-00000012/codec.safetensors"));
    succeed(at, &[&settings[..], &["--resume=auto"]].concat());
    assert!(codec == read("codec.safetensors"));

    // A run that was killed before its first checkpoint begins anew.
    std::fs::create_dir(at.join("killed")).unwrap();
    std::fs::write(at.join("killed/log.jsonl"), "").unwrap();
    succeed(at, &[&resume[..], &["train.folder=killed"]].concat());
    assert!(codec == std::fs::read(at.join("killed/codec.safetensors")).unwrap());
}

/// Runs of earlier versions had one `state.safetensors` beside the codec.
#[test]
fn a_run_of_an_earlier_version_goes_on() {
    let folder = prepared();
    let at = folder.path();
    let settings = ["train-codec", "codec.yaml", "train.save_every=20"];
    succeed(
        at,
        &[&settings[..], &["train.steps=40", "train.folder=whole"]].concat(),
    );
    succeed(at, &[&settings[..], &["train.steps=20"]].concat());
    let run = at.join("run");
    let read = |name: &str| read_safetensors(&run.join("last").join(name)).unwrap().0;
    let (codec, rest) = (read("codec.safetensors"), read("state.safetensors"));
    let mut old = Vec::new();
    for (name, entry) in rest.iter().filter(|(name, _)| name.contains("average.")) {
        old.push((name.to_string(), entry.read().unwrap()));
    }
    for (name, entry) in codec.iter() {
        let book = name.strip_prefix("content_codec.quantize.");
        let name = match book {
            Some(name) => format!("codebook.{name}"),
            None => format!("parameter.{name}"),
        };
        old.push((name, entry.read().unwrap()));
    }
    let rate = rest.get("learning_rate").unwrap().read().unwrap();
    let numbers = [20.0, 20.0, rate.double_value(&[0]), rate.double_value(&[1])];
    old.push(("numbers".into(), Tensor::from_slice(&numbers)));
    Tensor::write_safetensors(&old, run.join("state.safetensors")).unwrap();
    for name in ["last", "best"] {
        std::fs::remove_file(run.join(name)).unwrap();
    }
    std::fs::remove_dir_all(run.join("step-00000020")).unwrap();
    refuse(at, &settings, &["run exists already", "--resume"]);

    succeed(
        at,
        &[&settings[..], &["train.steps=40", "--resume"]].concat(),
    );
    for name in ["last/codec.safetensors", "last/state.safetensors"] {
        let read = |run: &str| std::fs::read(at.join(run).join(name)).unwrap();
        assert!(read("run") == read("whole"), "{name} differs");
    }
    assert!(!run.join("state.safetensors").exists());
}

/// With a bound on the entropy of the codes the file keeps it, by nearest entries alone: its last
/// latent channel holds prices and nothing of the picture.
#[test]
fn codes_keep_a_bound_on_their_entropy() {
    let folder = prepared();
    let at = folder.path();
    let train = |name: &str, settings: &[&str]| {
        let into = format!("train.folder={name}");
        let settings = [&["train-codec", "codec.yaml", &into], settings].concat();
        succeed(at, &settings);
        let codec = format!("{name}/codec.safetensors");
        let scores = succeed(
            at,
            &[
                "evaluate",
                "codec",
                "--checkpoint",
                &codec,
                "--data",
                "pictures",
            ],
        );
        let perplexity = scores
            .lines()
            .find_map(|line| line.strip_prefix("perplexity"));
        perplexity
            .expect("perplexity")
            .trim()
            .parse::<f64>()
            .unwrap()
    };
    let free = train("free", &[]);
    let bound = train("bound", &["train.codebook.entropy=1.2"]);
    assert!(free > 6.0, "perplexity {free}");
    assert!(
        (bound.ln() - 1.2).abs() < 0.3,
        "perplexity {bound}, e^1.2 is 3.3"
    );

    let (state, _) = read_safetensors(&at.join("bound/codec.safetensors")).unwrap();
    let channel = |name: &str, dimension: i64| {
        let weight = state
            .get(&format!("content_codec.{name}"))
            .unwrap()
            .read()
            .unwrap();
        let last = weight.select(dimension, -1);
        last.abs().max().double_value(&[])
    };
    assert_eq!(channel("quant_conv.weight", 0), 0.0);
    assert_eq!(channel("quant_conv.bias", 0), 0.0);
    assert_eq!(channel("post_quant_conv.weight", 1), 0.0);
    assert!(channel("quantize.embedding", 1) > 0.0);

    // It goes on from such a file, and from no other.
    train(
        "further",
        &[
            "train.codebook.entropy=1.2",
            "train.steps=60",
            "--init-from",
            "bound/codec.safetensors",
        ],
    );
    let begin = [
        "train-codec",
        "codec.yaml",
        "train.folder=other",
        "train.codebook.entropy=1.2",
    ];
    refuse(
        at,
        &[&begin[..], &["--init-from", "free/codec.safetensors"]].concat(),
        &[
            "free/codec.safetensors",
            "quant_conv.weight",
            "train.codebook.entropy",
        ],
    );
    refuse(
        at,
        &[
            "train-codec",
            "codec.yaml",
            "train.folder=free",
            "train.codebook.entropy=1.2",
            "--resume",
        ],
        &["free/step-00000240/codec.safetensors", "quant_conv.weight"],
    );
    refuse(
        at,
        &[
            "train-codec",
            "codec.yaml",
            "train.folder=other",
            "train.codebook.entropy=0",
        ],
        &["train.codebook.entropy is 0", "above 0"],
    );
    refuse(
        at,
        &[
            "train-codec",
            "codec.yaml",
            "train.folder=other",
            "train.codebook.entropy=1",
            "codec.embedding_width=1",
        ],
        &["codec.embedding_width is 1", "train.codebook.entropy"],
    );
    assert!(!at.join("other").exists());
}

/// The experiments of the bundled model can be read, and are about the same codec.
#[test]
fn the_configurations_are_experiments() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let codec = CodecExperiment::read(&folder.join("emoji_codec.yaml"), &[]).unwrap();
    for (stage, resolution, tokens) in [
        ("emoji_small", 32, 8),
        ("emoji_middle", 64, 16),
        ("emoji", 64, 16),
    ] {
        let path = folder.join(format!("{stage}.yaml"));
        let whole = Experiment::read(&path, &[]).unwrap();
        let model = whole.model.expect("a model");
        let same = CodecConfig {
            resolution,
            ..codec.codec.clone()
        };
        assert_eq!(model.codec, same, "{stage}");
        assert_eq!(model.denoiser.grid, [tokens, tokens], "{stage}");
    }
}

#[test]
fn bad_configurations() {
    let folder = prepared();
    let at = folder.path();
    let with = |from: &str, to: &str| {
        std::fs::write(at.join("bad.yaml"), changed(CONFIG, from, to)).unwrap();
    };
    for (from, to, words) in [
        ("steps: 240", "stepz: 120", ["stepz", "line 16"]),
        ("steps: 240", "steps: many", ["steps", "line 16"]),
        ("steps: 240", "steps: 0", ["train.steps is 0", "at least 1"]),
        (
            "start: 0.002",
            "start: -1",
            ["train.learning_rate.start is -1", "above 0"],
        ),
        (
            "batch_size: 8",
            "batch_size: 18446744073709551615",
            ["train.batch_size is 18446744073709551615", "at most"],
        ),
        (
            "save_every: 40",
            "keep: 0",
            ["train.keep is 0", "at least 1"],
        ),
        (
            "codebook: {start: 10}",
            "codebook: {start: 1000000000001}",
            ["train.codebook.start is 1000000000001", "at most"],
        ),
        (
            "log_every: 10",
            "validation_pictures: 1048577",
            ["train.validation_pictures is 1048577", "at most 1048576"],
        ),
        (
            "batch_size: 8",
            "optimizer: {kind: muon}",
            ["train.optimizer.kind is muon", "expected adamw"],
        ),
        (
            "kind: constant",
            "kind: plateau, factor: 0.5, patience: 3, threshold: 0.1, minimum: 0",
            ["plateau", "expected constant or cosine"],
        ),
        (
            "codebook: 32",
            "codebook: 65537",
            ["codec.codebook is 65537", "at most 65536"],
        ),
        (
            "start: 10",
            "start: 240",
            ["train.codebook.start is 240", "below train.steps"],
        ),
        (
            "kind: constant",
            "kind: cosine, total: 240, minimum: 1",
            [
                "train.learning_rate.course.minimum is 1",
                "0 to peak (0.002)",
            ],
        ),
        (
            "attention_resolutions: []",
            "attention_resolutions: [9223372036854775808]",
            ["attention_resolutions", "9223372036854775808"],
        ),
        (
            "residual_blocks: 1",
            "residual_blocks: 9223372036854775808",
            ["residual_blocks", "9223372036854775808"],
        ),
        (
            "\n  channels: 16",
            "\n  channels: 9223372036854775808",
            ["channels", "9223372036854775808"],
        ),
        (
            "residual_blocks: 1",
            "residual_blocks: 9223372036854775807",
            ["residual_blocks", "9223372036854775807"],
        ),
        (
            "norm_groups: 8",
            "norm_groups: 5",
            ["norm_groups 5", "16 channels"],
        ),
        (
            "resolution: 16",
            "resolution: 15",
            ["resolution 15", "halved 1 times"],
        ),
        (
            "quantizer: ema",
            "quantizer: gumbel",
            ["codec.quantizer", "only an ema codebook"],
        ),
        (
            "train: pictures",
            "train: nowhere",
            ["nowhere", "no such file or folder"],
        ),
        (
            "batch_size: 8",
            "precision: f16",
            ["train.precision is f16", "expected f32 or bf16"],
        ),
    ] {
        with(from, to);
        refuse(at, &["train-codec", "bad.yaml"], &words);
        assert!(!at.join("run").exists(), "{to}");
    }
    refuse(
        at,
        &["train-codec", "codec.yaml", "--resume"],
        &["run: holds no run to resume"],
    );
    refuse(
        at,
        &["train-codec", "codec.yaml", "train.stepz=3"],
        &["train.stepz=3", "did you mean `steps`"],
    );
    let out = succeed(
        at,
        &[
            "train-codec",
            "codec.yaml",
            "--print-config",
            "train.steps=77",
        ],
    );
    assert!(out.contains("steps: 77"), "{out}");
    std::fs::write(at.join("again.yaml"), &out).unwrap();
    assert_eq!(
        succeed(at, &["train-codec", "again.yaml", "--print-config"]),
        out
    );
}
