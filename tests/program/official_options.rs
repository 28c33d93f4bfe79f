//! Options of the original's constructors that no released model uses: networks against
//! numbers made apart (tests/options/generate.py), whole models through every layout, and
//! the refusal of what has no counterpart.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_yaml::Value;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use vqdiffusion::checkpoint::official::{self, OfficialConfig, DENOISER};
use vqdiffusion::checkpoint::{Checkpoint, Entry, OpenOptions, WeightSet};
use vqdiffusion::torch::{Init, Params, WeightSource};
use vqdiffusion::transformer::config::{
    Activation, AdaptiveNorm, DenoiserConfig, FeedForwardKind, IndexEmbedding, PositionWeights,
};
use vqdiffusion::transformer::{Conditioning, Denoiser, NullClass};

use crate::running::{changed, fixture, refuse, s, succeed};
use crate::torch_file::save;

/// The weights of a recorded network; notes which are asked for.
struct Recorded {
    tensors: BTreeMap<String, Tensor>,
    asked: RefCell<BTreeSet<String>>,
}

impl WeightSource for Recorded {
    fn weight(&self, name: &str, shape: &[i64], _init: Init) -> Tensor {
        let weight = &self.tensors.get(name);
        let weight = weight.unwrap_or_else(|| panic!("{name} is not recorded"));
        assert_eq!(weight.size(), shape, "{name}");
        self.asked.borrow_mut().insert(name.to_string());
        weight.shallow_clone()
    }
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

/// Every network as its configuration declares it, in every way that it is asked.
#[test]
fn recorded_networks() {
    let _no_grad = tch::no_grad_guard();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/options");
    let tensors = Tensor::read_safetensors(folder.join("options.safetensors")).unwrap();
    let text = std::fs::read_to_string(folder.join("options.json")).unwrap();
    let configurations: BTreeMap<String, Value> = serde_yaml::from_str(&text).unwrap();
    assert_eq!(configurations.len(), 10);
    for (name, root) in configurations {
        let config = OfficialConfig::new(Path::new(&name), root).unwrap();
        let config = config.denoiser().unwrap_or_else(|e| panic!("{e}"));
        let of_case = |key: &str| {
            let key = format!("{name}/{key}");
            let found = tensors.iter().find(|(name, _)| *name == key);
            found
                .unwrap_or_else(|| panic!("no {key}"))
                .1
                .shallow_clone()
        };
        let prefix = format!("{name}/weight/");
        let weights = Recorded {
            tensors: tensors
                .iter()
                .filter_map(|(n, t)| Some((n.strip_prefix(&prefix)?.into(), t.shallow_clone())))
                .collect(),
            asked: RefCell::default(),
        };
        let mut denoiser = Denoiser::new(&Params::new(&weights, Device::Cpu, Kind::Float), &config);
        assert!(
            weights.asked.borrow().iter().eq(weights.tensors.keys()),
            "{name}"
        );
        let [x_t, t, y, expected] = ["x_t", "t", "y", "logits"].map(of_case);
        // Sinusoids are taken of phases up to 4000 in f32, as in the original.
        let absolute = match (config.timestep_embedding, config.condition) {
            (IndexEmbedding::Sinusoid, _) => true,
            (_, Conditioning::Class { embedding, .. }) => embedding == IndexEmbedding::Sinusoid,
            _ => false,
        };
        let scale = if absolute { 4e-5 } else { 3e-6 };
        let atol = scale * expected.abs().max().double_value(&[]);
        for prepared in [false, true] {
            if prepared {
                denoiser.prepare();
            }
            let condition = denoiser.condition(&y);
            let logits = denoiser.forward(&x_t, &t, &condition, None);
            let difference = largest_difference(&logits, &expected);
            assert!(
                difference <= atol,
                "{name}, prepared {prepared}: {difference}"
            );
            // At a few positions, also behind norms over all of them.
            let at = Tensor::from_slice(&[3i64, 0, 15, 3, 7, 7, 9, 1, 2, 4, 8, 11]).view([3, 4]);
            let some = denoiser.forward(&x_t, &t, &condition, Some(&at));
            let index = at.unsqueeze(-1).expand([3, 4, config.codes], false);
            let wanted = expected.gather(1, &index, false);
            let difference = largest_difference(&some, &wanted);
            assert!(difference <= atol, "{name}, positions: {difference}");
            // Twice the condition, as guidance asks.
            let twice = denoiser.condition(&Tensor::cat(&[&y, &y], 0));
            for half in denoiser.forward(&x_t, &t, &twice, None).split(3, 0) {
                let difference = largest_difference(&half, &expected);
                assert!(difference <= atol, "{name}, guidance: {difference}");
            }
        }
    }
}

/// The fixture's checkpoint with `change` applied to each tensor's name and value.
fn rewritten(case: &str, path: &Path, change: impl Fn(&str, &Entry) -> Option<(String, Entry)>) {
    let (state, _) = official::read(&fixture(case).join("last.pth"), WeightSet::Ema).unwrap();
    let entries: Vec<(String, Entry)> = state
        .iter()
        .filter_map(|(name, entry)| change(name, entry))
        .collect();
    save(path, &["model"], &entries);
}

/// The fixture's position tables as parameters.
fn positions_as_parameters(name: &str, entry: &Entry) -> Option<(String, Entry)> {
    let table = ["height_emb", "width_emb"]
        .iter()
        .find(|axis| name == format!("{DENOISER}.content_emb.{axis}.weight"));
    Some(match (table, &entry.shape[..]) {
        (Some(axis), &[rows, width]) => (
            format!("{DENOISER}.content_emb.{axis}"),
            entry.reshaped(&[1, rows, width]).unwrap(),
        ),
        _ => (name.to_string(), entry.clone()),
    })
}

/// The fixture's configuration with options replaced; each must be there once.
fn edited(case: &str, folder: &TempDir, name: &str, changes: &[(&str, &str)]) -> String {
    let mut yaml = std::fs::read_to_string(fixture(case).join("config.yaml")).unwrap();
    for (from, to) in changes {
        assert_eq!(yaml.matches(from).count(), 1, "{from}");
        yaml = changed(&yaml, from, to);
    }
    let help = fixture(case).join("help_folder");
    yaml = changed(&yaml, "./help_folder", s(&help));
    let path = folder.path().join(name);
    std::fs::write(&path, yaml).unwrap();
    path.display().to_string()
}

fn open(path: &Path, config: Option<&str>) -> Checkpoint {
    let options = OpenOptions {
        config: config.map(Into::into),
        ..OpenOptions::default()
    };
    Checkpoint::open(path, &options).unwrap_or_else(|e| panic!("{e}"))
}

fn pictures(folder: &TempDir, args: &[&str]) -> Vec<u8> {
    let out = succeed(folder.path(), args);
    let file = out.lines().next().expect("a file");
    let picture = image::open(folder.path().join(file)).unwrap();
    picture.to_rgb8().into_raw()
}

/// The fixture's configuration with position parameters and the released activation.
fn released(folder: &TempDir) -> String {
    let change = ("pos_emb_type: embedding", "pos_emb_type: parameter");
    edited("text_tiny", folder, "released.yaml", &[change])
}

/// A model with GELU and position parameters through every layout and back.
#[test]
fn options_stay_in_every_layout() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    rewritten("text_tiny", &at("odd.pth"), positions_as_parameters);
    let config = edited(
        "text_tiny",
        &folder,
        "odd.yaml",
        &[
            ("block_activate: GELU2", "block_activate: GELU"),
            ("pos_emb_type: embedding", "pos_emb_type: parameter"),
        ],
    );
    let out = succeed(
        folder.path(),
        &["inspect", "odd.pth", "--config", "odd.yaml"],
    );
    assert!(out.contains(", GELU, positions as parameters"), "{out}");
    assert!(!out.contains("assumed"), "{out}");

    let odd = open(&at("odd.pth"), Some(&config)).config;
    assert_eq!(odd.denoiser.activation, Activation::Gelu);
    assert_eq!(odd.denoiser.position_weights, PositionWeights::Parameter);
    let convert = |args: &[&str]| {
        let mut all = vec!["convert"];
        all.extend(args);
        succeed(folder.path(), &all)
    };
    convert(&["odd.pth", "odd.safetensors", "--config", "odd.yaml"]);
    assert_eq!(open(&at("odd.safetensors"), None).config, odd);
    let said = convert(&["odd.safetensors", "again.pth", "--to", "official"]);
    assert!(
        said.contains("the activation GELU (block_activate)"),
        "{said}"
    );
    assert_eq!(open(&at("again.pth"), Some(&config)).config, odd);
    // What a file says itself, a configuration may not contradict.
    refuse(
        folder.path(),
        &["inspect", "odd.safetensors", "--config", &released(&folder)],
        &["block_activate is GELU2", "holds GELU"],
    );
    // diffusers has GELU, and only tables.
    convert(&["odd.safetensors", "folder", "--to", "diffusers"]);
    let theirs = open(&at("folder"), None).config.denoiser;
    assert_eq!(theirs.activation, Activation::Gelu);
    assert_eq!(theirs.position_weights, PositionWeights::Embedding);

    let sample = |model: &[&str], out: &str| {
        let mut args = vec![
            "sample",
            "a bird",
            "--steps",
            "4",
            "--out",
            out,
            "--checkpoint",
        ];
        args.extend(model);
        pictures(&folder, &args)
    };
    let official = sample(&["odd.pth", "--config", "odd.yaml"], "a");
    assert_eq!(sample(&["odd.safetensors"], "b"), official);
    assert_eq!(
        sample(&["again.pth", "--config", "odd.yaml"], "c"),
        official
    );
    assert_eq!(sample(&["folder"], "d"), official);
    let released = released(&folder);
    assert_ne!(sample(&["odd.pth", "--config", &released], "e"), official);
}

/// Without a configuration what no weight shows is taken as released, and that is said.
#[test]
fn what_is_assumed_is_said() {
    let folder = TempDir::new().unwrap();
    // 16 heads do not divide every width, but this one.
    for case in ["text_conv_abs", "text_tiny"] {
        let model = fixture(case).join("last.pth");
        let output = crate::running::run(folder.path(), &["inspect", s(&model)]);
        let [out, warned] = [&output.stdout, &output.stderr].map(|text| crate::running::text(text));
        assert!(output.status.success(), "{case}: {warned}");
        let words = "16 attention heads, the activation GELU2, adaptive layer norms";
        assert!(
            out.contains("assumed") && out.contains(words),
            "{case}: {out}"
        );
        assert!(out.contains("--config"), "{case}: {out}");
        assert!(warned.contains(words), "{case}: {warned}");
    }
}

/// A configuration may come from a pipe, as a shell's `<(…)` gives it.
#[test]
fn a_configuration_from_a_pipe() {
    let folder = TempDir::new().unwrap();
    let yaml = std::fs::read_to_string(fixture("text_tiny").join("config.yaml")).unwrap();
    let yaml = changed(&yaml, "block_activate: GELU2", "block_activate: GELU");
    let model = fixture("text_tiny").join("last.pth");
    let args = ["inspect", s(&model), "--config", "/dev/stdin"];
    let mut child = crate::running::command(folder.path(), &args)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, yaml.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let out = crate::running::text(&output.stdout);
    assert!(out.contains("4 heads") && out.contains(", GELU"), "{out}");
}

/// Instance norms of time and classes, which no weight shows either.
#[test]
fn instance_norms_of_a_whole_model() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let model = fixture("class_tiny").join("last.pth");
    let config = edited(
        "class_tiny",
        &folder,
        "instance.yaml",
        &[
            ("class_type: adalayernorm", "class_type: adainsnorm"),
            ("timestep_type: adalayernorm", "timestep_type: adainsnorm"),
        ],
    );
    let found = open(&model, Some(&config)).config.denoiser;
    assert_eq!(found.timestep_norm, AdaptiveNorm::Instance);
    assert_eq!(
        found.condition,
        Conditioning::Class {
            classes: 1000,
            null: NullClass::Learned,
            embedding: IndexEmbedding::Table,
            norm: AdaptiveNorm::Instance,
        }
    );
    let args = [
        "convert",
        s(&model),
        "instance.safetensors",
        "--config",
        &config,
    ];
    succeed(folder.path(), &args);
    assert_eq!(
        open(&at("instance.safetensors"), None).config.denoiser,
        found
    );
    let args = [
        "convert",
        "instance.safetensors",
        "again.pth",
        "--to",
        "official",
    ];
    let said = succeed(folder.path(), &args);
    for word in ["adainsnorm (timestep_type)", "adainsnorm (class_type)"] {
        assert!(said.contains(word), "{said}");
    }
    assert_eq!(open(&at("again.pth"), Some(&config)).config.denoiser, found);
    refuse(
        folder.path(),
        &[
            "convert",
            "instance.safetensors",
            "folder",
            "--to",
            "diffusers",
        ],
        &["denoiser.condition"],
    );

    // Without the row of "no class" nothing stands for it: no mean as behind layer norms.
    rewritten("class_tiny", &at("no_null.pth"), |name, entry| {
        let rows = entry.shape.first().copied().unwrap_or(0);
        let kept: Vec<i64> = (0..rows - 1).collect();
        Some(match name.ends_with("ln2.emb.weight") {
            true => (name.to_string(), entry.rows(&kept).unwrap()),
            false => (name.to_string(), entry.clone()),
        })
    });
    let config = edited(
        "class_tiny",
        &folder,
        "no_null.yaml",
        &[
            ("class_type: adalayernorm", "class_type: adainsnorm"),
            ("class_number: 1001", "class_number: 1000"),
        ],
    );
    let sample = [
        "sample",
        "--class",
        "7",
        "--steps",
        "3",
        "--checkpoint",
        "no_null.pth",
    ];
    let with = |rest: &[&'static str]| {
        let mut args = sample.to_vec();
        args.extend(["--config", &config]);
        args.extend(rest);
        args.into_iter().map(String::from).collect::<Vec<_>>()
    };
    let args = with(&["--guidance", "2", "--out", "guided"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    refuse(folder.path(), &args, &["null_class: absent"]);
    assert!(!at("guided/0-class-7.png").exists());
    let args = with(&["--out", "plain"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    succeed(folder.path(), &args);
}

/// Every option that has no counterpart is refused by its own name and value, and so is
/// one that the original does not have.
#[test]
fn options_without_a_counterpart() {
    let folder = TempDir::new().unwrap();
    let text = fixture("text_tiny").join("config.yaml");
    let class = fixture("class_tiny").join("config.yaml");
    let network = "diffusion_config.params.transformer_config";
    for (file, key, value, words) in [
        (
            &text,
            "diffusion_config.params.alpha_init_type",
            "cos",
            "alpha1",
        ),
        (
            &text,
            &*format!("{network}.params.block_activate"),
            "ReLU",
            "GELU2 or GELU",
        ),
        (
            &text,
            &*format!("{network}.params.timestep_type"),
            "adaptive",
            "adainsnorm",
        ),
        (
            &text,
            &*format!("{network}.params.mlp_type"),
            "conv",
            "fc or conv_mlp",
        ),
        (
            &text,
            &*format!("{network}.params.mlp_hidden_times"),
            "2.5",
            "a whole number",
        ),
        (
            &text,
            &*format!("{network}.params.attn_type"),
            "self",
            "selfcross",
        ),
        (
            &text,
            &*format!("{network}.params.window_size"),
            "8",
            "an option of Text2ImageTransformer",
        ),
        (
            &text,
            &*format!("{network}.target"),
            "a.b.MyTransformer",
            "Text2ImageTransformer",
        ),
        (
            &text,
            "diffusion_config.params.content_emb_config.params.pos_emb_type",
            "sine",
            "embedding or parameter",
        ),
        (
            &text,
            "diffusion_config.params.condition_emb_config.params.pick_last_embedding",
            "true",
            "false",
        ),
        (
            &text,
            "diffusion_config.params.condition_emb_config.params.additional_last_embedding",
            "true",
            "false",
        ),
        (
            &text,
            "condition_codec_config.params.clip_embedding",
            "true",
            "false",
        ),
        (
            &text,
            "condition_codec_config.params.add_start_and_end",
            "false",
            "true",
        ),
        (
            &text,
            "condition_codec_config.params.pad_value",
            "5",
            "0 or a negative number",
        ),
        (
            &text,
            "condition_codec_config.params.tokenizer_config.params.end_idx",
            "16384",
            "holds",
        ),
        (&text, "content_info.key", "mask", "image"),
        (
            &class,
            "diffusion_config.params.condition_emb_config.params.identity",
            "false",
            "true",
        ),
        (&class, "condition_info.key", "text", "label"),
    ] {
        let yaml = std::fs::read_to_string(file).unwrap();
        let mut root: Value = serde_yaml::from_str(&yaml).unwrap();
        let mut at = &mut root["model"]["params"];
        for part in key.split('.') {
            at = match at {
                Value::Tagged(tagged) => &mut tagged.value[part],
                other => &mut other[part],
            };
        }
        *at = serde_yaml::from_str(value).unwrap();
        std::fs::write(
            folder.path().join("config.yaml"),
            serde_yaml::to_string(&root).unwrap(),
        )
        .unwrap();
        let model = file.with_file_name("last.pth");
        let option = key.rsplit('.').next().unwrap();
        refuse(
            folder.path(),
            &["inspect", s(&model), "--config", "config.yaml"],
            &[option, value, words],
        );
    }
}

/// A shape with options is recognised by its weights and what its configuration says.
#[test]
fn the_usual_options_are_not_written() {
    let usual = crate::released::base();
    let yaml = serde_yaml::to_string(&usual).unwrap();
    for key in ["activation", "position_weights", "timestep_norm"] {
        assert!(!yaml.contains(key), "{yaml}");
    }
    let odd = DenoiserConfig {
        activation: Activation::Gelu,
        position_weights: PositionWeights::Parameter,
        timestep_norm: AdaptiveNorm::Instance,
        feed_forward: FeedForwardKind::Conv,
        condition: Conditioning::Class {
            classes: 7,
            null: NullClass::Absent,
            embedding: IndexEmbedding::Sinusoid,
            norm: AdaptiveNorm::Instance,
        },
        ..usual
    };
    let yaml = serde_yaml::to_string(&odd).unwrap();
    assert_eq!(serde_yaml::from_str::<DenoiserConfig>(&yaml).unwrap(), odd);
    let json = serde_json::to_string(&odd).unwrap();
    assert_eq!(serde_json::from_str::<DenoiserConfig>(&json).unwrap(), odd);
    odd.check().unwrap();
    let mean = DenoiserConfig {
        condition: Conditioning::Class {
            classes: 7,
            null: NullClass::Mean,
            embedding: IndexEmbedding::Table,
            norm: AdaptiveNorm::Instance,
        },
        ..odd
    };
    let problem = mean.check().unwrap_err().to_string();
    assert!(problem.contains("null_class is mean"), "{problem}");
}
