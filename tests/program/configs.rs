//! The configurations that come with the project: what they say, and two steps of each on a
//! small tree in the layout of its data set.

use std::fmt::Write as _;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use image::{ImageFormat, Rgb, RgbImage};
use tch::Device;
use tempfile::TempDir;
use vqdiffusion::checkpoint::official::CODEC;
use vqdiffusion::checkpoint::state_dict::read_safetensors;
use vqdiffusion::checkpoint::{codec_file, StateDict};
use vqdiffusion::experiment::Experiment;
use vqdiffusion::model::{ModelConfig, NullText};
use vqdiffusion::train::diffusion::plan::DiffusionPlan;
use vqdiffusion::train::engine::Share;
use vqdiffusion::transformer::{Conditioning, Denoiser, NullClass};

use crate::running::{succeeded, text};
use crate::train::place::write_model;
use crate::variants::parameters;

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs")
}

/// CLIP's text tower without its projection.
const TOWER: u64 = 63_165_952;
/// The learned null embedding, 77 × 512.
const NULL: u64 = 39_424;
const S: u64 = 35_936_647;
const B: u64 = 388_780_871;
const L: u64 = 1_359_274_624;

/// Name, trained values (as the original's classes have them, instantiated in PyTorch), and
/// samples per step on the eight GPUs of the original.
const EXPERIMENTS: [(&str, u64, u64); 18] = [
    ("cc", B, 32),
    ("coco", B, 32),
    ("coco_from_cc", B, 32),
    ("coco_s", S, 32),
    ("coco_tune", B + NULL, 32),
    ("cub200", B, 32),
    ("cub200_s", S, 32),
    ("cub200_s_mask_only", S, 32),
    ("cub200_s_paper_noise", S, 32),
    ("cub200_s_uniform", S, 32),
    ("cub_from_cc", B, 32),
    ("ffhq", 411_185_664, 256),
    ("imagenet", 518_025_678, 256),
    ("imagenet_tune", 518_037_966, 256),
    ("ithq", L + NULL, 64),
    ("oxford102", B, 32),
    ("oxford102_s", S, 32),
    ("oxford_from_cc", B, 32),
];

/// Configurations of parts, which are no experiments; those of the emoji model have tests of
/// their own.
const OTHERS: [&str; 11] = [
    "emoji",
    "emoji_codec",
    "emoji_finetune",
    "emoji_middle",
    "emoji_small",
    "from_cc",
    "released",
    "text_b",
    "text_l",
    "text_s",
    "text_s_dense",
];

#[test]
fn every_configuration_has_its_test() {
    let entries = std::fs::read_dir(configs()).expect("a folder");
    let mut found: Vec<String> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .map(|path| text(path.file_stem().expect("a name").as_encoded_bytes()))
        .collect();
    found.sort();
    let mut known: Vec<&str> = EXPERIMENTS.iter().map(|(name, ..)| *name).collect();
    known.extend(OTHERS);
    known.sort_unstable();
    assert_eq!(found, known);
}

/// At full size each is a plan, printed alike when it is read again.
#[test]
fn the_plans_of_the_experiments() {
    let folder = TempDir::new().expect("a temporary folder");
    for (name, trained, batch) in EXPERIMENTS {
        let path = configs().join(format!("{name}.yaml"));
        let experiment = Experiment::read(&path, &[]).unwrap_or_else(|e| panic!("{e}"));
        let printed = serde_yaml::to_string(&experiment).expect("YAML");
        let again = folder.path().join("again.yaml");
        std::fs::write(&again, &printed).expect("a file");
        let again = Experiment::read(&again, &[]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(again, experiment, "{name}");
        assert_eq!(experiment.train.folder, Path::new("runs").join(name));

        let model = experiment.model.expect("a model");
        let learned = match &model.text {
            Some(text) if text.null == NullText::Learned => NULL,
            _ => 0,
        };
        let counted = parameters(|p| drop(Denoiser::new(p, &model.denoiser))) as u64 + learned;
        assert_eq!(counted, trained, "{name}");
        assert_eq!(experiment.train.effective_batch(), batch, "{name}");
        let plan = DiffusionPlan {
            config: &experiment.train,
            model: &model,
            device: Device::Cpu,
            trained,
            frozen: model.text.as_ref().map_or(0, |_| TOWER),
            samples: Some(8855),
            data: "birds".into(),
            processes: 1,
            share: Share::of(&experiment.train.settings(), 1).expect("a share"),
        };
        // f32 weights, gradients, two moments and the average.
        let frozen = plan.frozen as f64;
        assert_eq!(
            plan.state_bytes(),
            20.0 * trained as f64 + 4.0 * frozen,
            "{name}"
        );
        let said = plan.to_string();
        for words in [
            format!("of {batch} samples"),
            format!("{trained} trained"),
            "data         birds".into(),
            format!(
                "memory       about {:.2} GiB",
                (plan.state_bytes() + plan.batch_bytes()) / 1_073_741_824.0
            ),
        ] {
            assert!(said.contains(&words), "{name}: {words:?} not in: {said}");
        }
    }
}

/// The recipes differ where the original's configurations do.
#[test]
fn the_recipes_of_the_experiments() {
    // Peak, warm-up, patience, λ, epochs, share of dropped conditions.
    for (name, peak, warmup, patience, lambda, epochs, dropped) in [
        ("cc", 4.5e-4, 5000, 60_000, 5e-4, 100, 0.0),
        ("coco", 4.5e-4, 5000, 60_000, 5e-4, 100, 0.0),
        ("coco_from_cc", 2e-4, 1000, 60_000, 5e-4, 100, 0.0),
        ("coco_tune", 2e-4, 1000, 60_000, 5e-4, 100, 0.1),
        ("cub200_s", 4.5e-4, 1000, 25_000, 5e-4, 800, 0.0),
        ("cub_from_cc", 4.5e-4, 1000, 25_000, 5e-4, 400, 0.0),
        ("imagenet", 4.5e-4, 5000, 100_000, 1e-3, 100, 0.0),
        ("ffhq", 4.5e-4, 2000, 5000, 1e-3, 300, 0.0),
        ("ithq", 4.5e-4, 7000, 50_000, 5e-4, 50, 0.1),
    ] {
        let path = configs().join(format!("{name}.yaml"));
        let settings = ["train.learning_rate.course.mode=relative".to_string()];
        let Experiment { data, train, .. } =
            Experiment::read(&path, &settings).unwrap_or_else(|e| panic!("{e}"));
        let rate = &train.learning_rate;
        assert_eq!(
            (rate.start, rate.peak, rate.warmup),
            (3e-6, peak, warmup),
            "{name}"
        );
        let course = serde_yaml::to_value(&rate.course).expect("YAML");
        assert_eq!(course["patience"].as_u64(), Some(patience), "{name}");
        let threshold = if name == "ithq" { 0.05 } else { 0.1 };
        assert_eq!(course["threshold"].as_f64(), Some(threshold), "{name}");
        assert_eq!(train.objective.auxiliary_weight, lambda, "{name}");
        assert!(train.objective.adaptive_auxiliary, "{name}");
        assert_eq!(train.epochs, Some(epochs), "{name}");
        assert_eq!(data.drop_rate, dropped, "{name}");
        assert_eq!(train.optimizer.betas, [0.9, 0.96], "{name}");
        assert_eq!(train.optimizer.weight_decay, 0.045, "{name}");
        assert_eq!(train.clip.norm, 0.5, "{name}");
        let every = if name == "ffhq" { 10 } else { 25 };
        assert_eq!((train.ema.decay, train.ema.every), (0.99, every), "{name}");
        assert_eq!(train.activation_checkpointing, name == "ithq", "{name}");
    }
}

fn put(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    std::fs::write(path, bytes).expect("a file");
}

fn picture(seed: usize) -> Vec<u8> {
    let value =
        |x: u32, y: u32, c: usize| (x as usize * (5 + c) + y as usize * 3 + seed * 31) as u8;
    let image = RgbImage::from_fn(24, 20, |x, y| Rgb([0, 1, 2].map(|c| value(x, y, c))));
    let mut bytes = Cursor::new(Vec::new());
    let written = image.write_to(&mut bytes, ImageFormat::Jpeg);
    written.expect("a picture");
    bytes.into_inner()
}

/// A small tree of every data set, in its true layout with broken members.
fn trees() -> &'static Path {
    static TREES: OnceLock<TempDir> = OnceLock::new();
    let folder = TREES.get_or_init(|| {
        let folder = TempDir::new().expect("a temporary folder");
        let at = folder.path();
        coco_tree(&at.join("coco"));
        cub200_tree(&at.join("cub200"));
        oxford102_tree(&at.join("oxford102"));
        cc_tree(&at.join("cc"));
        imagenet_tree(&at.join("imagenet"));
        ffhq_tree(&at.join("ffhq"));
        ithq_tree(&at.join("ithq"));
        folder
    });
    folder.path()
}

fn coco_tree(root: &Path) {
    for (split, ids) in [("train", [9, 25, 30, 34]), ("val", [42, 73, 74, 133])] {
        let caption = |id: usize, n: usize| serde_json::json!({"image_id": id, "id": 10 * id + n, "caption": format!("A man on horse {n}.")});
        let captions: Vec<_> = ids
            .iter()
            .flat_map(|&id| [caption(id, 1), caption(id, 2)])
            .chain([serde_json::json!({"image_id": 9, "id": 1, "caption": null})])
            .collect();
        let list = serde_json::json!({"images": [], "annotations": captions});
        put(
            &root.join(format!("annotations/captions_{split}2014.json")),
            list.to_string(),
        );
        for id in ids {
            let name = format!("{split}2014/{split}2014/COCO_{split}2014_{id:012}.jpg");
            put(
                &root.join(name),
                if id == 34 {
                    b"cut".to_vec()
                } else {
                    picture(id)
                },
            );
        }
    }
}

/// As Python 2 writes a list of strings in protocol 0.
fn pickled(names: &[String]) -> String {
    let entries = names.iter().enumerate();
    let entries = entries.fold(String::new(), |mut all, (n, name)| {
        write!(all, "S'{name}'\np{}\na", n + 1).expect("text");
        all
    });
    format!("(lp0\n{entries}.")
}

fn ten_captions(of: &str) -> String {
    (0..10).map(|n| format!("caption {n} of {of}\n")).collect()
}

fn cub200_tree(root: &Path) {
    let names = |numbers: std::ops::Range<usize>| -> Vec<String> {
        numbers
            .map(|n| format!("001.Black_footed_Albatross/Black_{n:04}"))
            .collect()
    };
    put(&root.join("train/filenames.pickle"), pickled(&names(0..5)));
    put(&root.join("test/filenames.pickle"), pickled(&names(5..8)));
    for (n, name) in names(0..8).iter().enumerate() {
        put(&root.join(format!("images/{name}.jpg")), picture(n));
        if n != 4 {
            put(
                &root.join(format!("text/text/{name}.txt")),
                ten_captions("a bird"),
            );
        }
    }
}

fn oxford102_tree(root: &Path) {
    for n in 1..=6 {
        put(&root.join(format!("jpg/image_{n:05}.jpg")), picture(n));
        let class = 1 + n % 3;
        let text = format!("text_c10/class_{class:05}/image_{n:05}.txt");
        put(&root.join(text), ten_captions("a flower"));
    }
    put(
        &root.join("text_c10/class_00002/image_00009.txt"),
        ten_captions("no picture"),
    );
    put(&root.join("trainclasses.txt"), "class_00001\nclass_00002\n");
    put(&root.join("valclasses.txt"), "class_00003\n");
    put(&root.join("testclasses.txt"), "class_00003\n");
}

fn cc_tree(root: &Path) {
    for (table, folder) in [
        ("Train_GCC-training.tsv", "training"),
        ("Validation_GCC-1.1.0-Validation.tsv", "validation"),
    ] {
        let mut rows = String::new();
        for row in 0..6 {
            let address = format!("http://pictures.example/{folder}/{row}.jpg");
            writeln!(rows, "a sunset, number {row}\t{address}").expect("text");
            let mut sum = flate2::Crc::new();
            sum.update(address.as_bytes());
            // One link is dead, one gave a web page.
            let bytes = match row {
                1 => continue,
                2 => b"<html>gone</html>".to_vec(),
                row => picture(row),
            };
            put(&root.join(format!("{folder}/{row}_{}", sum.sum())), bytes);
        }
        put(&root.join(table), rows);
    }
}

fn imagenet_tree(root: &Path) {
    let classes = ["n01440764", "n01443537", "n01484850"];
    for split in ["train", "val"] {
        let mut list = String::new();
        for n in 0..6 {
            let name = format!("{}/{split}_{n}.JPEG", classes[n % 3]);
            put(&root.join(split).join(&name), picture(n));
            writeln!(list, "{name}").expect("text");
        }
        list.push_str("n01440764/missing.JPEG\n");
        put(&root.join(format!("ILSVRC2012_name_{split}.txt")), list);
    }
}

fn ffhq_tree(root: &Path) {
    for n in 0..4 {
        put(
            &root.join(format!("images1024x1024/00000/{n:05}.png")),
            picture(n),
        );
    }
    put(&root.join("images1024x1024/00000/00004.png"), "");
    put(&root.join("thumbnails128x128/00000/00000.png"), picture(9));
}

/// Shards as img2dataset writes them, the second cut in the middle.
fn ithq_tree(root: &Path) {
    for shard in 0..2 {
        let mut tar = tar::Builder::new(Vec::new());
        for n in 0..3 {
            let key = format!("{shard:05}{n:04}");
            let caption = format!("a lighthouse in storm {n}").into_bytes();
            for (ending, bytes) in [("jpg", picture(n)), ("txt", caption)] {
                let mut header = tar::Header::new_ustar();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o644);
                let name = format!("{key}.{ending}");
                tar.append_data(&mut header, name, bytes.as_slice())
                    .expect("a member");
            }
        }
        let mut bytes = tar.into_inner().expect("a tar");
        if shard == 1 {
            bytes.truncate(bytes.len() / 2);
        }
        put(&root.join(format!("{shard:05}.tar")), bytes);
    }
}

/// Settings that make a model of the same kind small.
fn reduced(model: &ModelConfig) -> Vec<String> {
    let quantizer = serde_yaml::to_string(&model.codec.quantizer).expect("YAML");
    let mut settings = vec![
        "model.denoiser.layers=1".to_string(),
        "model.denoiser.width=32".into(),
        "model.denoiser.heads=2".into(),
        "model.denoiser.codes=12".into(),
        "model.denoiser.grid=[4, 4]".into(),
        "model.denoiser.position_table=[4, 4]".into(),
        "model.denoiser.timesteps=5".into(),
        format!(
            "model.codec={{resolution: 16, channels: 32, multipliers: [1, 1, 1], \
             residual_blocks: 1, attention_resolutions: [4], latent_channels: 8, \
             embedding_width: 8, codebook: 12, quantizer: {}}}",
            quantizer.trim()
        ),
        "train.steps=2".into(),
        "train.batch_size=1".into(),
        "train.accumulation=2".into(),
        "train.folder=run".into(),
        "train.validation={every: 2, samples: 2, times: 2}".into(),
        "train.preview.every=0".into(),
        "train.log_every=1".into(),
        "weights.mapping=null".into(),
    ];
    settings.extend(match model.denoiser.condition {
        Conditioning::Text { .. } => vec![
            "model.denoiser.condition.width=16".to_string(),
            "model.text.tower={vocabulary: 1792, context: 77, width: 16, layers: 1, heads: 1, \
             hidden: 32}"
                .into(),
        ],
        Conditioning::Class { .. } => vec!["model.denoiser.condition.classes=3".into()],
        Conditioning::Unconditional => vec![],
    });
    settings
}

/// Two steps of the experiment `name` through the program; the plan says `data`.
fn trains(name: &str, data: &str) {
    let path = configs().join(format!("{name}.yaml"));
    let whole = Experiment::read(&path, &[]).unwrap_or_else(|e| panic!("{e}"));
    let folder = TempDir::new().expect("a temporary folder");
    std::os::unix::fs::symlink(trees(), folder.path().join("data")).expect("a link");
    let mut settings = reduced(whole.model.as_ref().expect("a model"));
    // What it starts from: a model before it was tuned, or a codec and a text tower.
    let small = Experiment::read(&path, &settings).unwrap_or_else(|e| panic!("{e}"));
    let mut start = small.model.expect("a model");
    if whole.weights.learned_null {
        if let Some(text) = &mut start.text {
            text.null = NullText::EmptyPrompt;
        }
        if let Conditioning::Class { null, .. } = &mut start.denoiser.condition {
            *null = NullClass::Mean;
        }
    }
    write_model(&folder.path().join("start.safetensors"), &start);
    let weights = &whole.weights;
    for (key, file) in [
        ("init_from", &weights.init_from),
        ("codec", &weights.codec),
        ("text", &weights.text),
    ] {
        if file.is_some() {
            settings.push(format!("weights.{key}=start.safetensors"));
        }
    }
    let mut command =
        crate::running::command(folder.path(), &["train", path.to_str().expect("UTF-8")]);
    command
        .args(&settings)
        .args(["--device", "cpu", "--threads", "1"]);
    let output = command.output().expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name}: {said}");
    for words in [
        "steps        2 of 2 samples (1 x 2",
        "parameters   ",
        "memory       about ",
    ] {
        assert!(said.contains(words), "{name}: {words:?} not in: {said}");
    }
    let data = format!("data         {data}; every step encodes its pictures\n");
    assert!(said.contains(&data), "{name}: {data:?} not in: {said}");
    let log = std::fs::read_to_string(folder.path().join("run/log.jsonl")).expect("a log");
    assert_eq!(log.matches("\"loss\":").count(), 2, "{log}");
    assert!(log.contains("validation_nats_per_token"), "{log}");
    // What is recorded is the experiment.
    let record = folder.path().join("run/experiment.yaml");
    let record = Experiment::read(&record, &[]).unwrap_or_else(|e| panic!("{e}"));
    let given = Experiment::read(&path, &settings).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(record, given, "{name}");
    let inspect = ["inspect", "run/last/model.safetensors"];
    succeeded(&mut crate::running::command(folder.path(), &inspect));
}

macro_rules! two_steps {
    ($($name:ident: $data:expr;)*) => {
        $(
            #[test]
            fn $name() {
                trains(stringify!($name), $data);
            }
        )*

        #[test]
        fn every_experiment_is_tried() {
            let tried = [$(stringify!($name)),*];
            assert_eq!(tried.to_vec(), EXPERIMENTS.map(|(name, ..)| name).to_vec());
        }
    };
}

const COCO: &str = "MSCOCO, an epoch goes through the captions";
const CUB: &str = "CUB-200, an epoch goes through the pictures";
const OXFORD: &str = "Oxford-102, an epoch goes through the pictures";
const IMAGENET: &str = "ImageNet, an epoch goes through the pictures";

two_steps! {
    cc: "Conceptual Captions, an epoch goes through the pictures";
    coco: COCO;
    coco_from_cc: COCO;
    coco_s: COCO;
    coco_tune: COCO;
    cub200: CUB;
    cub200_s: CUB;
    cub200_s_mask_only: CUB;
    cub200_s_paper_noise: CUB;
    cub200_s_uniform: CUB;
    cub_from_cc: CUB;
    ffhq: "FFHQ, an epoch goes through the pictures";
    imagenet: IMAGENET;
    imagenet_tune: IMAGENET;
    ithq: "webdataset shards, an epoch goes through the pictures";
    oxford102: OXFORD;
    oxford102_s: OXFORD;
    oxford_from_cc: OXFORD;
}

/// The documentation's way from nothing to birds, at reduced size: a code mapping, token
/// caches, Conceptual Captions, birds from its weights, a picture.
#[test]
fn from_nothing_to_birds() {
    let folder = TempDir::new().expect("a temporary folder");
    let at = folder.path();
    let succeed = |args: &[&str], settings: &[String]| {
        let mut command = crate::running::command(at, args);
        succeeded(command.args(settings))
    };
    std::os::unix::fs::symlink(trees(), at.join("data")).expect("a link");
    let config = |name: &str| configs().join(name).to_str().expect("UTF-8").to_string();
    let (cc, birds) = (config("cc.yaml"), config("cub_from_cc.yaml"));
    let whole = Experiment::read(Path::new(&cc), &[]).expect("an experiment");
    let mut settings = reduced(&whole.model.expect("a model"));
    settings
        .retain(|setting| !setting.starts_with("weights.") && !setting.contains("train.folder"));
    let small = Experiment::read(Path::new(&cc), &settings).expect("an experiment");
    let model = small.model.expect("a model");
    write_model(&at.join("clip.safetensors"), &model);
    let (whole, _) = read_safetensors(&at.join("clip.safetensors")).expect("a model file");
    let mut codec = StateDict::default();
    for (name, entry) in whole.iter().filter(|(name, _)| name.starts_with(CODEC)) {
        codec.insert(name, entry.clone());
    }
    let file = at.join("codec.safetensors");
    codec_file::write(&file, &model.codec, &codec).expect("a codec file");

    let codec = ["--checkpoint", "codec.safetensors"];
    succeed(
        &[&["tokenize", "data/cub200", "--out", "all"][..], &codec].concat(),
        &[],
    );
    let usage = succeed(&["code-usage", "all", "--mapping-out", "codes.pt"], &[]);
    let codes = usage
        .split("mapping ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    settings.push(format!("model.denoiser.codes={}", codes.expect("a number")));

    let codec = [&codec[..], &["--mapping", "codes.pt"]].concat();
    for set in ["cc", "cub200"] {
        let (data, all, held) = (
            format!("data/{set}"),
            format!("tokens/{set}"),
            format!("tokens/{set}.val"),
        );
        let args = ["tokenize", &data, "--sampled", "--out", &all];
        succeed(&[&args[..], &codec].concat(), &[]);
        let args = [
            "tokenize", &data, "--split", "val", "--crop", "center", "--out", &held,
        ];
        succeed(&[&args[..], &codec].concat(), &[]);
    }
    let run = |config: &str, set: &str, further: &[&str]| {
        let args = [
            "train",
            config,
            &format!("data.train=tokens/{set}"),
            &format!("data.validation=tokens/{set}.val"),
            "train.precision=bf16",
            "--threads",
            "1",
            "--device",
            "cpu",
        ];
        succeed(&[&args[..], further].concat(), &settings);
    };
    let files = [
        "weights.codec=codec.safetensors",
        "weights.text=clip.safetensors",
        "weights.mapping=codes.pt",
    ];
    run(&cc, "cc", &files);
    let from = [
        "weights.init_from=runs/cc/best/model.safetensors",
        "weights.mapping=null",
    ];
    run(&birds, "cub200", &from);
    let record = at.join("runs/cub_from_cc/experiment.yaml");
    let record = Experiment::read(&record, &[]).expect("an experiment");
    assert_eq!(record.train.epochs, None);
    assert_eq!(record.train.learning_rate.peak, 4.5e-4);
    let model = [
        "sample",
        "--checkpoint",
        "runs/cub_from_cc/best/model.safetensors",
    ];
    let picture = [
        "--truncation",
        "0.86",
        "--steps",
        "2",
        "--out",
        "birds",
        "a small red bird",
    ];
    succeed(&[&model[..], &picture].concat(), &[]);
    assert!(crate::running::files(&at.join("birds"))
        .iter()
        .any(|name| name.ends_with(".png")));
}
