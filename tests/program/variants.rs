//! Class-conditional and unconditional models through the real binary, codec files in
//! every layout, and the published sizes.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use vqdiffusion::checkpoint::config_file::ConfigFile;
use vqdiffusion::checkpoint::infer;
use vqdiffusion::checkpoint::official::{self, CODEC, DENOISER};
use vqdiffusion::checkpoint::pytorch::DType;
use vqdiffusion::checkpoint::state_dict::Source;
use vqdiffusion::checkpoint::{Entry, StateDict, WeightSet};
use vqdiffusion::clip::ClipTokenizer;
use vqdiffusion::codec::ImageCodec;
use vqdiffusion::model::ModelConfig;
use vqdiffusion::picture::read_png_texts;
use vqdiffusion::pipeline::Conditioner;
use vqdiffusion::torch::{Init, Params, WeightSource};
use vqdiffusion::transformer::{Denoiser, NullClass};

use crate::released;
use crate::running::changed;
use crate::torch_file::save;

/// Tensors by name, in the order of a file.
type Named = [(String, Entry)];
type Outcome = Result<(), Box<dyn std::error::Error>>;

fn fixture(case: &str, file: &str) -> String {
    crate::running::fixture(case)
        .join(file)
        .display()
        .to_string()
}

/// Runs and expects success; returns the lines of standard output.
fn succeed(folder: &TempDir, args: &[&str]) -> Vec<String> {
    let out = crate::running::succeed(folder.path(), args);
    out.lines().map(String::from).collect()
}

fn refuse(folder: &TempDir, args: &[&str], words: &[&str]) {
    crate::running::refuse(folder.path(), args, words);
}

/// `vqdiffusion sample` with the model of `case`.
fn sample<'a>(checkpoint: &'a str, config: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["sample", "--checkpoint", checkpoint, "--config", config];
    args.extend(rest);
    args
}

struct Model {
    checkpoint: String,
    config: String,
}

impl Model {
    fn of(case: &str) -> Self {
        Model {
            checkpoint: fixture(case, "last.pth"),
            config: fixture(case, "config.yaml"),
        }
    }

    fn sample<'a>(&'a self, rest: &[&'a str]) -> Vec<&'a str> {
        sample(&self.checkpoint, &self.config, rest)
    }
}

fn read(folder: &TempDir, name: &str) -> Vec<u8> {
    let path = folder.path().join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The value of a PNG's text chunk.
fn chunk(folder: &TempDir, png: &str, keyword: &str) -> Option<String> {
    let texts = read_png_texts(&folder.path().join(png)).unwrap_or_else(|e| panic!("{e}"));
    texts
        .into_iter()
        .find(|(k, _)| k == keyword)
        .map(|(_, value)| value)
}

#[test]
fn classes_by_index_and_by_name() -> Outcome {
    let folder = TempDir::new()?;
    let model = Model::of("class_tiny");
    let common = ["--steps", "6", "--seed", "5"];
    let by_index = [
        &common[..],
        &["--class", "207,8", "--count", "2", "--out", "a"],
    ]
    .concat();
    let written = succeed(&folder, &model.sample(&by_index));
    let names = [
        "5-class-207.png",
        "6-class-207.png",
        "7-class-8.png",
        "8-class-8.png",
    ];
    assert_eq!(written, names.map(|name| format!("a/{name}")));
    let by_name = [
        &common[..],
        &[
            "--class",
            "Golden Retriever",
            "--class",
            "hen",
            "--count",
            "2",
            "--out",
            "b",
        ],
    ]
    .concat();
    succeed(&folder, &model.sample(&by_name));
    for name in names {
        let (a, b) = (format!("a/{name}"), format!("b/{name}"));
        assert_eq!(read(&folder, &a), read(&folder, &b), "{name}");
    }
    assert_ne!(
        pixels(&folder, "a/5-class-207.png"),
        pixels(&folder, "a/7-class-8.png")
    );
    Ok(())
}

fn pixels(folder: &TempDir, png: &str) -> Vec<u8> {
    let path = folder.path().join(png);
    let picture = image::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    picture.to_rgb8().into_raw()
}

#[test]
fn a_class_and_an_unconditional_picture_repeat_themselves() -> Outcome {
    let folder = TempDir::new()?;
    let class = Model::of("class_tiny");
    let anything = Model::of("uncond_tiny");
    let runs: [(&Model, &[&str], &str, Option<&str>); 4] = [
        (
            &class,
            &["--class", "ambulance"],
            "3-class-407.png",
            Some("407"),
        ),
        (
            &class,
            &["--class", "0", "--guidance", "1"],
            "3-class-0.png",
            Some("0"),
        ),
        (
            &class,
            &["--class", "999", "--compat", "official"],
            "3-class-999.png",
            Some("999"),
        ),
        (&anything, &["--count", "2"], "4.png", None),
    ];
    for (i, (model, args, name, index)) in runs.into_iter().enumerate() {
        let (out, again) = (format!("first{i}"), format!("again{i}"));
        let steps = if args.contains(&"--compat") {
            "50"
        } else {
            "5"
        };
        let common = ["--seed", "3", "--steps", steps, "--out", &out];
        succeed(&folder, &model.sample(&[args, &common[..]].concat()));
        let png = format!("{out}/{name}");
        assert_eq!(chunk(&folder, &png, "class").as_deref(), index);
        assert_eq!(chunk(&folder, &png, "prompt"), None);
        succeed(
            &folder,
            &model.sample(&["--from-image", &png, "--out", &again]),
        );
        let repeated = format!("{again}/{name}");
        assert_eq!(read(&folder, &png), read(&folder, &repeated), "{args:?}");
    }
    let files = std::fs::read_dir(folder.path().join("first3"))?;
    assert_eq!(files.count(), 2, "two pictures of an unconditional model");
    Ok(())
}

/// Guidance and truncation that a run chose, from the options in its PNG.
fn chosen(folder: &TempDir, png: &str) -> (f64, serde_json::Value) {
    let options = chunk(folder, png, "vqdiffusion").unwrap_or_default();
    let options: serde_json::Value =
        serde_json::from_str(&options).unwrap_or_else(|e| panic!("{options}: {e}"));
    let sampler = &options["sampler"];
    let guidance = sampler["guidance"].as_f64().unwrap_or_default();
    (guidance, sampler["truncation"].clone())
}

#[test]
fn defaults_follow_the_variant() -> Outcome {
    let folder = TempDir::new()?;
    let rate = |rate: f64| serde_json::json!({ "top_p": rate });
    let learned = Model::of("class_tiny");
    let without_row = Model {
        checkpoint: without_null_row(&folder)?,
        config: without_row_config(&folder)?,
    };
    let anything = Model::of("uncond_tiny");
    let runs: [(&Model, &[&str], f64, serde_json::Value); 5] = [
        (&learned, &["--class", "1"], 1.5, rate(0.94)),
        (
            &learned,
            &["--class", "1", "--guidance", "1"],
            1.0,
            rate(0.86),
        ),
        (&without_row, &["--class", "1"], 1.0, rate(0.86)),
        (
            &without_row,
            &["--class", "1", "--guidance", "3"],
            3.0,
            rate(0.94),
        ),
        (&anything, &[], 1.0, rate(0.86)),
    ];
    for (i, (model, args, guidance, truncation)) in runs.into_iter().enumerate() {
        let out = format!("out{i}");
        let common = ["--steps", "2", "--out", &out];
        let written = succeed(&folder, &model.sample(&[args, &common[..]].concat()));
        let found = chosen(&folder, &written[0]);
        assert_eq!(found, (guidance, truncation), "{args:?}");
    }
    // Guidance away from the mean of the classes changes the picture.
    assert_ne!(
        pixels(&folder, "out2/0-class-1.png"),
        pixels(&folder, "out3/0-class-1.png")
    );
    let out = succeed(
        &folder,
        &[
            "inspect",
            &without_row.checkpoint,
            "--config",
            &without_row.config,
        ],
    );
    assert!(
        out.iter()
            .any(|line| line.contains("1000, null class: the mean")),
        "{out:?}"
    );
    Ok(())
}

/// The class_tiny model without the rows of the null class.
fn without_null_row(folder: &TempDir) -> Result<String, Box<dyn std::error::Error>> {
    let path = folder.path().join("no_null.pth");
    let (state, _) = official::read(
        Path::new(&fixture("class_tiny", "last.pth")),
        WeightSet::Ema,
    )?;
    let mut entries = Vec::new();
    for (name, entry) in state.iter() {
        let cut = name.ends_with("ln2.emb.weight");
        let rows = entry.shape.first().copied().unwrap_or(0);
        let entry = if cut {
            entry.rows(&(0..rows - 1).collect::<Vec<_>>())?
        } else {
            entry.clone()
        };
        entries.push((name.to_string(), entry));
    }
    save(&path, &["model"], &entries);
    Ok(path.display().to_string())
}

fn without_row_config(folder: &TempDir) -> Result<String, Box<dyn std::error::Error>> {
    let yaml = std::fs::read_to_string(fixture("class_tiny", "config.yaml"))?;
    let mapping = fixture("class_tiny", "help_folder/statistics/taming_vqvae_974.pt");
    let yaml = changed(&yaml, "class_number: 1001", "class_number: 1000");
    let yaml = changed(
        &yaml,
        "./help_folder/statistics/taming_vqvae_974.pt",
        &mapping,
    );
    let path = folder.path().join("no_null.yaml");
    std::fs::write(&path, yaml)?;
    Ok(path.display().to_string())
}

#[test]
fn codec_files_of_every_layout() -> Outcome {
    let folder = TempDir::new()?;
    let model = Model::of("uncond_tiny");
    let (state, _) = official::read(Path::new(&model.checkpoint), WeightSet::Ema)?;
    let (codec, rest): (Vec<_>, Vec<_>) = state
        .iter()
        .map(|(name, entry)| (name.to_string(), entry.clone()))
        .partition(|(name, _)| name.starts_with(CODEC));
    let codec: Vec<(String, Entry)> = codec
        .into_iter()
        .map(|(name, entry)| (name.replacen("content_codec.", "", 1), entry))
        .collect();
    let without = folder.path().join("without_codec.pth");
    save(&without, &["model"], &rest);
    let without = without.display().to_string();

    succeed(&folder, &model.sample(&["--steps", "4", "--out", "whole"]));
    let expected = read(&folder, "whole/0.png");
    // As in an autoregressive model's checkpoint: the codec, its loss, and two more parts
    // that are not read.
    let other = codec[0].1.clone();
    let mut within: Vec<(String, Entry)> = codec
        .iter()
        .map(|(name, entry)| (format!("first_stage_model.{name}"), entry.clone()))
        .collect();
    for name in [
        "transformer.tok_emb.weight",
        "cond_stage_model.embedding",
        "first_stage_model.loss.discriminator.main.0.weight",
    ] {
        within.push((name.into(), other.clone()));
    }
    let layouts: [(&str, &[&str], &Named); 4] = [
        ("taming.ckpt", &["state_dict"], &codec),
        ("vqvae.pth", &["model"], &codec),
        ("bare.pth", &[], &codec),
        ("autoregressive.pth", &["state_dict"], &within),
    ];
    for (name, keys, entries) in layouts {
        let path = folder.path().join(name);
        save(&path, keys, entries);
        let args = [
            "--steps",
            "4",
            "--out",
            &format!("from {name}"),
            "--codec",
            name,
        ];
        succeed(&folder, &sample(&without, &model.config, &args));
        assert_eq!(
            read(&folder, &format!("from {name}/0.png")),
            expected,
            "{name}"
        );
        let out = succeed(&folder, &["inspect", name]);
        for words in ["image codec alone", "vector quantizer, 26 codes, factor 16"] {
            let found = out.iter().any(|line| line.contains(words));
            assert!(found, "{name}: no {words:?} in {out:?}");
        }
    }
    let args = ["--codec", &model.checkpoint];
    let args = sample(&without, &model.config, &args);
    refuse(&folder, &args, &["not an image codec alone"]);
    let remedy = ["--codec", "vqgan_ffhq_f16_1024.pth"];
    refuse(&folder, &sample(&without, &model.config, &[]), &remedy);
    refuse(&folder, &["sample", "--checkpoint", &without], &remedy);
    Ok(())
}

#[test]
fn wrong_subjects_are_answered_with_what_the_model_takes() -> Outcome {
    let folder = TempDir::new()?;
    let class = Model::of("class_tiny");
    let anything = Model::of("uncond_tiny");
    let text = Model::of("text_conv_abs");
    std::fs::write(folder.path().join("prompts.txt"), "a dog\n")?;
    let takes_class: &[&str] = &["takes a class (--class, 0 to 999)"];
    let refusals: [(&Model, &[&str], &[&str]); 15] = [
        (&class, &["a dog"], takes_class),
        (&class, &["--prompts", "prompts.txt"], takes_class),
        (&class, &[], &["no class", "--class, 0 to 999"]),
        (
            &class,
            &["--class", "1000"],
            &["class 1000 is not one", "0 to 999"],
        ),
        (&class, &["--class=-1"], &["class -1 is not one"]),
        (
            &class,
            &["--class", "7,crane"],
            &["\"crane\" may be 134 (crane) or 517 (crane)"],
        ),
        (
            &class,
            &["--class", "labradr"],
            &["\"labradr\" is unknown", "Labrador retriever (208)"],
        ),
        (&class, &["--class", "7,"], &["class \"\" is unknown"]),
        (
            &class,
            &["--class", "7", "a dog"],
            &["--class", "cannot be used with"],
        ),
        (
            &class,
            &["--class", "7", "--negative-prompt", "x"],
            &["reads no text"],
        ),
        (
            &anything,
            &["a dog"],
            &["unconditional", "neither prompt nor class", "--count"],
        ),
        (
            &anything,
            &["--class", "7"],
            &["unconditional", "neither prompt nor class"],
        ),
        (
            &anything,
            &["--guidance", "3"],
            &["--guidance is 3", "no condition"],
        ),
        (
            &text,
            &["--class", "7"],
            &["--class", "takes a prompt, not a class"],
        ),
        (&text, &[], &["no PROMPT", "--prompts"]),
    ];
    for (model, args, words) in refusals {
        refuse(&folder, &model.sample(args), words);
    }
    assert!(!folder.path().join("outputs").exists(), "a refusal wrote");
    succeed(
        &folder,
        &class.sample(&["--class", "7", "--steps", "2", "--out", "class"]),
    );
    refuse(
        &folder,
        &anything.sample(&["--from-image", "class/0-class-7.png", "--out", "again"]),
        &["made with a model of SHA-256"],
    );
    Ok(())
}

#[test]
fn configurations_are_checked_against_the_variant() -> Outcome {
    let folder = TempDir::new()?;
    let (class, anything) = (Model::of("class_tiny"), Model::of("uncond_tiny"));
    let changes = [
        (
            &class,
            "class_number: 1001",
            "class_number: 17",
            "class_number is 17",
            "holds 1001",
        ),
        (
            &class,
            "class_type: adalayernorm",
            "class_type: adabatchnorm",
            "class_type is adabatchnorm",
            "adalayernorm_abs or adainsnorm",
        ),
        (
            &class,
            "attn_type: selfcondition",
            "attn_type: self",
            "attn_type is self,",
            "selfcondition",
        ),
        (
            &class,
            "quantize_number: 30",
            "quantize_number: 31",
            "quantize_number is 31",
            "holds 30",
        ),
        (
            &anything,
            "attn_type: self",
            "attn_type: selfcross",
            "attn_type is selfcross",
            "expected self in this network",
        ),
        (
            &anything,
            "TamingFFHQVQVAE",
            "TamingGumbelVQVAE",
            "the Gumbel quantizer",
            "the vector quantizer",
        ),
        (
            &anything,
            "mlp_type: conv_mlp",
            "mlp_type: fc",
            "mlp_type is fc",
            "conv_mlp",
        ),
    ];
    for (model, from, to, declared, found) in changes {
        let yaml = std::fs::read_to_string(&model.config)?;
        std::fs::write(folder.path().join("config.yaml"), changed(&yaml, from, to))?;
        let args = ["inspect", &model.checkpoint, "--config", "config.yaml"];
        refuse(&folder, &args, &[declared, found]);
    }
    // The released file with a null class is used with a configuration without it.
    let yaml = std::fs::read_to_string(&class.config)?;
    let yaml = changed(&yaml, "class_number: 1001", "class_number: 1000");
    let help = fixture("class_tiny", "help_folder");
    let yaml = changed(&yaml, "./help_folder", &help);
    std::fs::write(folder.path().join("config.yaml"), yaml)?;
    let out = succeed(
        &folder,
        &["inspect", &class.checkpoint, "--config", "config.yaml"],
    );
    for line in [
        "variant      class-conditional",
        "tokens       4×4 of 30 codes, 50 diffusion steps",
        "classes      1000, null class: a learned row",
        "codec        vector quantizer, 64 codes, factor 16, 64×64 pictures",
    ] {
        assert!(out.iter().any(|l| l == line), "{line:?} not in {out:?}");
    }
    let out = succeed(
        &folder,
        &[
            "inspect",
            &anything.checkpoint,
            "--config",
            &anything.config,
        ],
    );
    assert!(
        out.iter().any(|l| l == "variant      unconditional"),
        "{out:?}"
    );
    Ok(())
}

#[test]
fn a_converted_model_makes_the_same_pictures() -> Outcome {
    let folder = TempDir::new()?;
    for (case, args) in [("class_tiny", &["--class", "33"][..]), ("uncond_tiny", &[])] {
        let model = Model::of(case);
        let native = format!("{case}.safetensors");
        let (checkpoint, config) = (&model.checkpoint, &model.config);
        succeed(
            &folder,
            &["convert", checkpoint, &native, "--config", config],
        );
        let options = ["--steps", "3", "--out"];
        let (a, b) = (format!("{case}-a"), format!("{case}-b"));
        let from_official = succeed(
            &folder,
            &model.sample(&[args, &options[..], &[&a]].concat()),
        );
        let native_args = ["sample", "--checkpoint", &native];
        let from_native = succeed(&folder, &[&native_args, args, &options[..], &[&b]].concat());
        let (ours, expected) = (
            read(&folder, &from_native[0]),
            read(&folder, &from_official[0]),
        );
        assert_eq!(ours, expected, "{case}");
    }
    Ok(())
}

/// Notes what a model asks for; the tensors are one element, expanded.
#[derive(Default)]
struct Asked(RefCell<Vec<(String, Vec<i64>)>>);

impl WeightSource for Asked {
    fn weight(&self, name: &str, shape: &[i64], _init: Init) -> Tensor {
        self.0.borrow_mut().push((name.into(), shape.into()));
        Tensor::zeros([1], (Kind::Float, Device::Cpu)).expand(shape, false)
    }
}

/// Names and shapes of the weights of what `build` builds.
fn asked(build: impl Fn(&Params)) -> Vec<(String, Vec<i64>)> {
    let source = Asked::default();
    build(&Params::new(&source, Device::Cpu, Kind::Float));
    source.0.into_inner()
}

pub fn parameters(build: impl Fn(&Params)) -> i64 {
    let shapes = asked(build);
    shapes
        .iter()
        .map(|(_, shape)| shape.iter().product::<i64>())
        .sum()
}

/// The counts of the original's classes, instantiated in PyTorch.
#[test]
fn released_sizes() {
    for (name, config, expected) in [
        ("S", released::small(), 35_936_647),
        ("B", released::base(), 388_780_871),
        ("L", released::large(), 1_359_274_624),
        (
            "1000 classes",
            released::imagenet(NullClass::Mean),
            518_025_678,
        ),
        (
            "1001 classes",
            released::imagenet(NullClass::Learned),
            518_037_966,
        ),
        ("unconditional", released::ffhq(), 411_185_664),
    ] {
        let found = parameters(|p| drop(Denoiser::new(p, &config)));
        assert_eq!(found, expected, "{name}");
    }
    // Encoder, decoder, quantizer, and the two convolutions around it.
    for (name, config, expected) in [
        (
            "f8",
            released::openimages_f8(),
            26_345_728 + 38_316_163 + 4_202_496 + 2 * 65_792,
        ),
        (
            "f16",
            released::imagenet_f16(),
            29_298_176 + 42_449_795 + 4_194_304 + 2 * 65_792,
        ),
        (
            "FFHQ",
            released::ffhq_f16(),
            29_298_176 + 42_449_795 + 262_144 + 2 * 65_792,
        ),
        (
            "ITHQ",
            released::ithq_f8(),
            25_724_608 + 37_694_851 + 524_288 + 32_896 + 33_024,
        ),
    ] {
        let found = parameters(|p| drop(ImageCodec::new(p, &config, None)));
        assert_eq!(found, expected, "{name}");
    }
}

/// The model of a file in configs/.
fn configuration(name: &str) -> Result<ModelConfig, Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    match ConfigFile::read(&root.join("configs").join(name))? {
        ConfigFile::Own { model, .. } => Ok(*model),
        ConfigFile::Official(_) => Err("not ours".into()),
    }
}

/// The files in configs/ say what the published ones say.
#[test]
fn configuration_files() -> Outcome {
    for (name, denoiser, codec) in [
        ("text_b.yaml", released::base(), released::openimages_f8()),
        ("text_s.yaml", released::small(), released::openimages_f8()),
        ("text_l.yaml", released::large(), released::ithq_f8()),
        (
            "imagenet.yaml",
            released::imagenet(NullClass::Mean),
            released::imagenet_f16(),
        ),
        (
            "imagenet_tune.yaml",
            released::imagenet(NullClass::Learned),
            released::imagenet_f16(),
        ),
        ("ffhq.yaml", released::ffhq(), released::ffhq_f16()),
    ] {
        let model = configuration(name)?;
        assert_eq!(model.denoiser, denoiser, "{name}");
        assert_eq!(model.codec, codec, "{name}");
        assert_eq!(model.picture_size(), [256, 256], "{name}");
        model.check()?;
    }
    Ok(())
}

/// The models of the configuration files are recognised by names and shapes of their
/// weights alone, the grid that is smaller than the position table included.
#[test]
fn released_models_by_their_weights() -> Outcome {
    for name in [
        "text_b",
        "text_s",
        "text_l",
        "coco_tune",
        "imagenet",
        "imagenet_tune",
        "ffhq",
    ] {
        let expected = configuration(&format!("{name}.yaml"))?;
        let shapes = asked(|p| {
            let tower = expected
                .text
                .as_ref()
                .map(|text| text.tower.vocabulary as usize);
            let tokenizer = tower.map(ClipTokenizer::new);
            let tokenizer = tokenizer.transpose().unwrap_or_else(|e| panic!("{e}"));
            drop(Conditioner::new(p, &expected, tokenizer));
            drop(Denoiser::new(&p.at(DENOISER), &expected.denoiser));
            drop(ImageCodec::new(&p.at(CODEC), &expected.codec, None));
        });
        let mut state = StateDict::default();
        for (key, shape) in shapes {
            let entry = Entry {
                dtype: DType::F32,
                shape,
                file: name.into(),
                key: key.clone(),
                source: Source::Memory(Arc::from([])),
            };
            state.insert(key, entry);
        }
        let found = infer::model(&state, Path::new(name), &infer::Unshown::of(&expected))?;
        assert_eq!(found, expected, "{name}");
    }
    Ok(())
}
