//! What a run can start from.

use std::path::Path;
use std::process::{Command, Output};

use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use vqdiffusion::checkpoint::official::DENOISER;
use vqdiffusion::checkpoint::state_dict::read_safetensors;
use vqdiffusion::checkpoint::vocabulary::MERGES;
use vqdiffusion::checkpoint::{native, Entry};
use vqdiffusion::diffusion::Transition;
use vqdiffusion::model::ModelConfig;
use vqdiffusion::train::diffusion::{InitialModel, WeightsConfig};
use vqdiffusion::train::{TextTraining, TrainConfig};

use crate::running::changed;
use crate::train::place::{model, text_model, write_model, Workplace, EXPERIMENT};

/// An official configuration is an experiment, with the recipe it describes.
#[test]
fn an_official_configuration_trains() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text_tiny");
    let folder = TempDir::new().expect("a temporary folder");
    let place = Workplace { folder };
    let official = case.join("config.yaml");
    let run = |overrides: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_vqdiffusion"))
            .args(["train", official.to_str().expect("UTF-8"), "--threads", "1"])
            .args([
                "--init-from",
                case.join("last.pth").to_str().expect("UTF-8"),
            ])
            .args(overrides)
            .current_dir(place.folder.path())
            .output()
            .expect("the binary starts")
    };
    let message = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        message(&output).contains("data.train=FOLDER"),
        "{}",
        message(&output)
    );

    let tokens = Tensor::zeros([4, 64], (Kind::Int64, Device::Cpu));
    let ids = Tensor::zeros([4, 77], (Kind::Int64, Device::Cpu));
    let file = place.path("tokens.safetensors");
    Tensor::write_safetensors(&[("tokens", tokens), ("text_ids", ids)], file).expect("a file");
    let data = [
        "data.train=tokens.safetensors",
        "train.steps=2",
        "train.folder=run",
    ];
    let output = run(&[data.as_slice(), &["--print-config"]].concat());
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in [
        "recipe: official",
        "patience: 60000",
        "peak: 0.001",
        "end: 5000",
    ] {
        assert!(printed.contains(line), "{line:?} not in: {printed}");
    }
    let grid = ["train.preview={every: 1, prompts: [a bird], columns: 2, steps: 2}"];
    let output = run(&[data.as_slice(), &grid].concat());
    assert!(output.status.success(), "{}", message(&output));
    assert!(place.path("run/last/model.safetensors").exists());
    let picture = image::open(place.path("run/samples-00000002.png")).expect("a grid");
    // Cells of twice the size, and a label below.
    assert_eq!(picture.width(), 2 * 128 + 2);
    assert!(picture.height() > 128);
}

/// From random weights a run needs the codec, the text tower (or trains it), and nothing
/// else; the same seed draws the same weights.
#[test]
fn training_starts_from_a_codec_and_a_text_tower() {
    let place = Workplace::new(&text_model(), 10);
    let experiment = format!(
        "model: {}\nweights: {{codec: start.safetensors}}\n{}",
        serde_json::to_string(&text_model()).expect("JSON"),
        changed(EXPERIMENT, "weights:\n  init_from: start.safetensors\n", ""),
    );
    std::fs::write(place.path("experiment.yaml"), experiment).expect("a file");
    place.refuse(&[], &["weights.text is missing", "train.text: trained"]);
    let text = "weights.text=start.safetensors";
    for folder in ["train.folder=a", "train.folder=b"] {
        place.succeed(&[text, folder, "train.steps=5"]);
    }
    place.assert_same("a/last", "b/last");
    let message = place.succeed(&["train.text=trained", "train.folder=c", "train.steps=5"]);
    assert!(message.contains("0 frozen"), "{message}");
    // What reads a drawn tower's unit-norm features of width 16 starts √16 times as large as
    // N(0, 0.02²), which five small steps hardly change; beside given features it does not.
    let key = "transformer.transformer.blocks.0.attn2.key.weight";
    for (folder, expected) in [("a", 0.02), ("c", 0.08)] {
        let path = place.path(&format!("{folder}/last/model.safetensors"));
        let (state, _) = read_safetensors(&path).expect("a model");
        let values = state.get(key).expect(key).read().expect("values");
        let std = values.to_kind(Kind::Double).std(true).double_value(&[]);
        assert!((std / expected - 1.0).abs() < 0.15, "{folder}: {std}");
    }
    place.refuse(
        &[text, "weights.codec=tokens.safetensors", "train.folder=d"],
        &["tokens.safetensors", "header"],
    );
}

/// A decoder that was trained further takes the place of the model's; one of another codec
/// does not.
#[test]
fn a_model_takes_a_decoder_of_its_codec() {
    let place = Workplace::new(&text_model(), 10);
    let changed = |name: &str, tensor: &str| {
        let path = place.path("start.safetensors");
        let (state, metadata) = read_safetensors(&path).expect("a model");
        let (config, _) = native::read(&path, &metadata).expect("a model");
        let mut changed = state.clone();
        let values = state.get(tensor).expect(tensor).read().expect("values") + 1.0;
        changed.insert(tensor, Entry::in_memory(tensor, &values).expect("an entry"));
        native::write(&place.path(name), &config, &changed, None).expect("a file");
        values
    };
    let bias = "content_codec.decoder.conv_out.bias";
    let values = changed("tuned.safetensors", bias);
    let _ = changed("other.safetensors", "content_codec.quant_conv.bias");
    let here = place.path("");
    let convert = [
        "convert",
        "start.safetensors",
        "out.safetensors",
        "--decoder",
    ];
    crate::running::refuse(
        &here,
        &[&convert[..], &["other.safetensors"]].concat(),
        &["other.safetensors", "content_codec.quant_conv.bias"],
    );
    assert!(!place.path("out.safetensors").exists());
    crate::running::succeed(&here, &[&convert[..], &["tuned.safetensors"]].concat());
    let (before, _) = read_safetensors(&place.path("start.safetensors")).expect("a model");
    let (after, _) = read_safetensors(&place.path("out.safetensors")).expect("a model");
    for (name, entry) in before.iter() {
        let found = after.get(name).expect(name).read().expect("values");
        let same = entry.read().expect("values") == found;
        assert_eq!(same, name != bias, "{name}");
    }
    assert_eq!(after.get(bias).expect(bias).read().expect("values"), values);
}

fn only_picture(folder: &Path) -> image::DynamicImage {
    let names = crate::running::files(folder);
    let picture = names.iter().find(|name| name.ends_with(".png"));
    image::open(folder.join(picture.expect("a picture"))).expect("a picture")
}

/// Merge rules of the model's own: trained with, held by the model file, and carried
/// through both foreign layouts without a change.
#[test]
fn own_merge_rules_stay_with_the_model() {
    let shape = model(
        "{kind: text, positions: 8, width: 64}",
        "text: {tower: {vocabulary: 518, merges: own, context: 8, width: 64, layers: 1,
            heads: 1, hidden: 128}, null_text: learned},",
    );
    let mut shape = serde_json::to_value(shape).expect("JSON");
    shape["transition"] = serde_json::to_value(Transition::released()).expect("JSON");
    shape["denoiser"]["expansion"] = 4.into();
    shape["codec"]["quantizer"] = "ema".into();
    let shape: ModelConfig = serde_json::from_value(shape).expect("a model");
    let place = Workplace::new(&text_model(), 10);
    write_model(&place.path("codec.safetensors"), &shape);
    let pictures = place.path("pictures");
    std::fs::create_dir(&pictures).expect("a folder");
    for i in 0..4u8 {
        let picture = image::RgbImage::from_pixel(16, 16, image::Rgb([60 * i, 0, 0]));
        picture
            .save(pictures.join(format!("{i}.png")))
            .expect("a picture");
        std::fs::write(pictures.join(format!("{i}.txt")), "newest widest").expect("a caption");
    }
    let here = place.path("");
    let vocabulary = ["train-vocabulary", "pictures", "--size", "518"];
    crate::running::succeed(&here, &[&vocabulary[..], &["--out", "merges.txt"]].concat());
    let mut experiment = format!(
        "model: {}\nweights: {{codec: codec.safetensors, vocabulary: merges.txt}}\n{}",
        serde_json::to_string(&shape).expect("JSON"),
        changed(EXPERIMENT, "weights:\n  init_from: start.safetensors\n", ""),
    );
    experiment = changed(&experiment, "tokens.safetensors", "pictures");
    std::fs::write(place.path("experiment.yaml"), &experiment).expect("a file");
    let trained = ["train.text=trained", "train.steps=2"];
    place.refuse(
        &["weights.vocabulary=null", trained[0]],
        &["no merge rules", "condition_codec.merges"],
    );
    place.refuse(
        &["model.text.tower.vocabulary=519", trained[0]],
        &["merges.txt", "518", "519"],
    );
    place.refuse(
        &["model.text.tower.merges=clip", trained[0]],
        &["merges.txt", "merges: own"],
    );
    place.succeed(&trained);
    // A run goes on with the rules of its checkpoint.
    std::fs::remove_file(place.path("merges.txt")).expect("a file");
    place.succeed(&["train.text=trained", "train.steps=4", "--resume", "auto"]);

    let run = |arguments: &[&str]| crate::running::succeed(&here, arguments);
    let usual =
        serde_json::json!({ "steps": 3, "guidance": 1.5, "truncation": 0.9, "order": "halton" });
    run(&["convert", "run/last/model.safetensors", "a.safetensors"]);
    let mut config = serde_json::json!({ "model": shape });
    config["model"]["sampling"] = usual.clone();
    std::fs::write(place.path("shape.yaml"), config.to_string()).expect("a file");
    run(&["convert", "a.safetensors", "b.pth"]);
    let options = ["--config", "shape.yaml"];
    run(&[&["convert", "b.pth", "c.safetensors"][..], &options].concat());
    run(&["convert", "a.safetensors", "d", "--to", "diffusers"]);
    run(&["convert", "d", "e.safetensors"]);
    let sample = |model: &str, out: &str, options: &str| {
        let plan = ["sample", "--checkpoint", model, "--out", out, "newest low"];
        let options: Vec<&str> = options.split_whitespace().collect();
        run(&[&plan[..], &options].concat());
        only_picture(&place.path(out))
    };
    let merges = |model: &str| {
        let (state, _) = read_safetensors(&place.path(model)).expect("a model");
        state
            .get(MERGES)
            .expect("merge rules")
            .read()
            .expect("them")
    };
    let rules = merges("a.safetensors");
    assert_eq!(rules.size(), [4, 2]);
    // How it is sampled is taken from the configuration, with every weight as it was.
    let with_usual = ["--config", "shape.yaml", "--overwrite"];
    let arguments = ["convert", "run/last/model.safetensors", "f.safetensors"];
    run(&[&arguments[..], &with_usual].concat());
    let (_, metadata) = read_safetensors(&place.path("f.safetensors")).expect("a model");
    let header = metadata.get("vqdiffusion").expect("a header");
    let header: serde_json::Value = serde_json::from_str(header).expect("JSON");
    assert_eq!(header["config"]["sampling"], usual);
    let stated = "--steps 3 --guidance 1.5 --truncation 0.9 --order halton";
    let picture = sample("a.safetensors", "a", stated);
    assert!(sample("f.safetensors", "f", "") == picture);
    // Which has no order to give where the tokens have another.
    for (i, options) in ["--purity 1", "--compat official"].iter().enumerate() {
        sample("f.safetensors", &format!("other{i}"), options);
    }
    for (model, out) in [("c.safetensors", "c"), ("e.safetensors", "e")] {
        assert_eq!(merges(model), rules, "{model}");
        assert!(sample(model, out, stated) == picture, "{model}");
    }
    assert!(place.path("bpe_vocab_518.txt.gz").exists());
    // Apart from its model the file has to be named.
    std::fs::rename(place.path("bpe_vocab_518.txt.gz"), place.path("v.gz")).expect("a file");
    let apart = ["inspect", "b.pth", "--config", "shape.yaml"];
    crate::running::refuse(&here, &apart, &["merges"]);
    run(&[&apart[..], &["--vocabulary", "v.gz"]].concat());
}

/// Pictures with captions are trained on without a cache; unreadable ones are replaced.
#[test]
fn pictures_train_without_a_cache() {
    let place = Workplace::new(&text_model(), 10);
    let folder = place.path("pictures");
    std::fs::create_dir(&folder).expect("a folder");
    for i in 0..5u8 {
        let picture = image::RgbImage::from_fn(20, 18, |x, y| {
            image::Rgb([40 * i, (x * 12) as u8, (y * 13) as u8])
        });
        picture
            .save(folder.join(format!("{i}.png")))
            .expect("a picture");
        std::fs::write(folder.join(format!("{i}.txt")), "a b").expect("a caption");
    }
    std::fs::write(folder.join("broken.png"), "").expect("a file");
    std::fs::write(folder.join("broken.txt"), "c").expect("a caption");
    let whole = [
        "data.train=pictures",
        "train.folder=whole",
        "train.steps=10",
    ];
    let message = place.succeed(&whole);
    assert!(message.contains("broken.png"), "{message}");
    place.succeed(&["data.train=pictures", "train.folder=parts", "train.steps=5"]);
    place.succeed(&[
        "data.train=pictures",
        "train.folder=parts",
        "train.steps=10",
        "--resume",
        "auto",
    ]);
    place.assert_same("whole/last", "parts/last");
    std::fs::remove_file(folder.join("3.txt")).expect("a file");
    place.succeed(&["data.train=pictures", "train.folder=fewer", "train.steps=2"]);

    // Validation goes without what cannot be read; with nothing left it is an error.
    let settings = |validation: &'static str, folder: &'static str| {
        [
            "data.train=pictures",
            validation,
            folder,
            "train.steps=2",
            "train.validation={every: 1, samples: 9}",
        ]
    };
    std::fs::write(folder.join("broken.png"), "no picture").expect("a file");
    let message = place.succeed(&settings(
        "data.validation=pictures",
        "train.folder=validated",
    ));
    let counted = "pictures: 1 pictures cannot be read; the validation goes on without them";
    // Once, at the start, though there were two validations.
    assert_eq!(message.matches(counted).count(), 1, "{message}");
    let bad = place.path("bad");
    std::fs::create_dir(&bad).expect("a folder");
    std::fs::write(bad.join("broken.png"), "no picture").expect("a file");
    std::fs::write(bad.join("broken.txt"), "c").expect("a caption");
    let none = "bad: none of its 1 pictures can be read; the first: broken.png";
    place.refuse(
        &settings("data.validation=bad", "train.folder=unvalidated"),
        &[none],
    );
    place.refuse(&["data.train=bad", "train.folder=untrained"], &[none]);
    assert!(!place.path("unvalidated").exists() && !place.path("untrained").exists());
}

/// A data set with parts is trained on in its train part and validated on its val part.
#[test]
fn validation_is_on_the_val_part() {
    let place = Workplace::new(&text_model(), 10);
    std::fs::create_dir_all(place.path("coco/annotations")).expect("a folder");
    for (split, shade) in [("train", 30), ("val", 200)] {
        // The same pictures and captions in a folder of their own.
        let alone = place.path(split);
        std::fs::create_dir(&alone).expect("a folder");
        let pictures = place.path(&format!("coco/{split}2014/{split}2014"));
        std::fs::create_dir_all(&pictures).expect("a folder");
        let mut annotations = Vec::new();
        for id in 0..3u8 {
            let picture = image::RgbImage::from_fn(16, 16, |x, y| {
                image::Rgb([shade + 9 * id, (x * 12) as u8, (y * 13) as u8])
            });
            let mut bytes = std::io::Cursor::new(Vec::new());
            let format = image::ImageFormat::Jpeg;
            picture.write_to(&mut bytes, format).expect("a picture");
            let name = format!("COCO_{split}2014_{id:012}.jpg");
            for path in [pictures.join(&name), alone.join(format!("{id}.jpg"))] {
                std::fs::write(path, bytes.get_ref()).expect("a file");
            }
            let caption = format!("{split} {id}");
            std::fs::write(alone.join(format!("{id}.txt")), &caption).expect("a caption");
            annotations.push(serde_json::json!({"image_id": id, "id": id, "caption": caption}));
        }
        std::fs::write(
            place.path(&format!("coco/annotations/captions_{split}2014.json")),
            serde_json::json!({ "annotations": annotations }).to_string(),
        )
        .expect("a file");
    }
    let bound = |train: &str, validation: &str| {
        let folder = format!("{train}-{validation}");
        place.succeed(&[
            &format!("data.train={train}"),
            &format!("data.validation={validation}"),
            &format!("train.folder={folder}"),
            "train.steps=1",
            "train.validation.every=1",
        ]);
        place.logged(&folder, "validation_nats_per_token")
    };
    let by_parts = bound("coco", "coco");
    assert_eq!(by_parts.len(), 1);
    assert_eq!(by_parts, bound("train", "val"));
    assert_ne!(by_parts, bound("train", "train"));
    assert_ne!(by_parts, bound("val", "val"));
}

/// The configuration for a user's ten pictures, on a model that has a notice.
#[test]
fn ten_pictures_tune_a_model() {
    let place = Workplace::new(&text_model(), 4);
    let folder = place.path("my_pictures");
    std::fs::create_dir(&folder).expect("a folder");
    for i in 0..10u32 {
        let picture = image::RgbImage::from_fn(40, 40, |x, y| {
            image::Rgb([(25 * i) as u8, (x * 6) as u8, (y * 3 * (i % 2)) as u8])
        });
        let name = |ending: &str| folder.join(format!("{i}.{ending}"));
        picture.save(name("png")).expect("a picture");
        std::fs::write(name("txt"), format!("zyxwv number {i}")).expect("a caption");
    }
    std::fs::write(place.path("NOTICE"), "By its authors.").expect("a file");
    let vqdiffusion = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vqdiffusion"));
        let output = command.args(args).current_dir(place.folder.path()).output();
        let output = output.expect("the binary starts");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {message}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let start = ["convert", "start.safetensors", "noted.safetensors"];
    vqdiffusion(&[&start[..], &["--notice", "NOTICE"]].concat());

    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/emoji_finetune.yaml");
    let config = config.to_str().expect("a path");
    let settings = ["train.steps=100", "train.preview.steps=4", "--threads=1"];
    let init = ["--init-from", "noted.safetensors", "--device=cpu"];
    vqdiffusion(&[&["train", config], &settings[..], &init].concat());
    let run = "runs/emoji_finetune";
    let losses = place.logged(run, "loss");
    assert_eq!(losses.len(), 5);
    assert!(losses[4] < 0.95 * losses[0], "{losses:?}");
    let sheet = image::open(place.path(run).join("samples-00000100.png")).expect("a sheet");
    // Two prompts of four pictures, each 16 pixels wide and enlarged to 128.
    assert_eq!(sheet.width(), 4 * 130 - 2);
    let model = format!("{run}/last/model.safetensors");
    let told = vqdiffusion(&["inspect", &model]);
    assert!(told.contains("By its authors."), "{told}");
    let sample = ["sample", "--checkpoint", &model, "--steps=4"];
    vqdiffusion(&[&sample[..], &["zyxwv number 3"]].concat());
}

/// A class model tuned for guidance gets a row for "no class", which starts as what
/// stood for it before: the mean of the classes.
#[test]
fn a_null_class_is_added_for_tuning() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("start.safetensors");
    write_model(
        &path,
        &model("{kind: class, classes: 4, null_class: mean}", ""),
    );
    let weights = WeightsConfig {
        init_from: Some(path),
        learned_null: true,
        ..WeightsConfig::default()
    };
    let wanted = model("{kind: class, classes: 4, null_class: learned}", "");
    let start = InitialModel::open(&weights, Some(&wanted), TextTraining::Frozen).expect("a start");
    assert_eq!(start.model(), &wanted);
    let (state, _) = start
        .load(&TrainConfig::default(), Device::Cpu)
        .expect("a start");
    let table = &state.parameters.tensors[&format!("{DENOISER}.blocks.0.ln2.emb.weight")];
    assert_eq!(table.size(), [5, 32]);
    let mean = table.narrow(0, 0, 4).mean_dim(0, false, Kind::Float);
    let off = (table.get(4) - mean).abs().max().double_value(&[]);
    assert!(off < 1e-6, "{off}");
}

/// A model of another grid starts with its position tables interpolated: twice as many
/// places halve the cells, whose middles lie at quarters between those of the old ones.
#[test]
fn a_model_goes_on_on_another_grid() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("start.safetensors");
    write_model(&path, &text_model());
    let (given, _) = read_safetensors(&path).expect("a model");
    let mut wanted = text_model();
    wanted.denoiser.grid = [8, 8];
    wanted.denoiser.position_table = [8, 8];
    wanted.codec.set_resolution(32);
    let weights = WeightsConfig {
        init_from: Some(path),
        ..WeightsConfig::default()
    };
    let start = InitialModel::open(&weights, Some(&wanted), TextTraining::Frozen).expect("a start");
    assert_eq!(start.model(), &wanted);
    let (state, _) = start
        .load(&TrainConfig::default(), Device::Cpu)
        .expect("a start");
    for axis in ["height_emb", "width_emb"] {
        let name = format!("{DENOISER}.content_emb.{axis}.weight");
        let old = given.get(&name).expect("a table").read().expect("values");
        let new = &state.parameters.tensors[&name];
        assert_eq!(new.size(), [8, 32]);
        for place in 0..8 {
            let middle = ((place as f64 + 0.5) / 2.0 - 0.5).clamp(0.0, 3.0);
            let (below, part) = (middle.floor() as i64, middle.fract());
            let above = old.get((below + 1).min(3));
            let expected = old.get(below) * (1.0 - part) + above * part;
            let off = (new.get(place) - expected).abs().max().double_value(&[]);
            assert!(off < 1e-6, "{name}, place {place}: off by {off}");
        }
    }
    // Anything else that differs is refused still.
    wanted.denoiser.layers = 3;
    let Err(error) = InitialModel::open(&weights, Some(&wanted), TextTraining::Frozen) else {
        panic!("three layers of two");
    };
    assert!(error.to_string().contains("layers"), "{error}");
}
