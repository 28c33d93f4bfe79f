//! Official configurations as whole experiments: model, codec, mapping and CLIP file come
//! from what they name.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use vqdiffusion::checkpoint::official::{self, CODEC, TEXT};
use vqdiffusion::checkpoint::state_dict::read_safetensors;
use vqdiffusion::checkpoint::{Entry, WeightSet};

use crate::running::changed;
use crate::torch_file::save;

const CODEC_FILE: &str = "OUTPUT/pretrained_model/taming_dvae";
const CLIP_FILE: &str = "OUTPUT/pretrained_model/ViT-B-32.pt";

/// A folder as the original's repository is: `configs/`, the codec, CLIP and mapping files
/// of a fixture where its configuration names them, and `data.safetensors` of 9 samples.
struct Repository {
    folder: TempDir,
}

impl Repository {
    fn of(case: &str, codec: &str) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let fixture = crate::running::fixture(case);
        let repository = Repository { folder };
        let (state, _) =
            official::read(&fixture.join("last.pth"), WeightSet::Ema).expect("a checkpoint");
        let below = |prefix: &str| -> Vec<(String, Entry)> {
            let prefix = format!("{prefix}.");
            let named = state.iter();
            let named = named.filter_map(|(name, entry)| {
                Some((name.strip_prefix(&prefix)?.to_string(), entry.clone()))
            });
            named.collect()
        };
        let file = format!("{CODEC_FILE}/{codec}");
        repository.save(&file, &["state_dict"], &below(CODEC));
        let tower = below(TEXT);
        if !tower.is_empty() {
            repository.save(CLIP_FILE, &[], &tower);
        }
        let yaml = std::fs::read_to_string(fixture.join("config.yaml")).expect("a file");
        std::fs::create_dir(repository.path("configs")).expect("a folder");
        std::fs::write(repository.path("configs/coco.yaml"), yaml).expect("a file");
        let statistics = "help_folder/statistics";
        if fixture.join(statistics).is_dir() {
            std::fs::create_dir_all(repository.path(statistics)).expect("a folder");
            for name in crate::running::files(&fixture.join(statistics)) {
                let name = format!("{statistics}/{name}");
                std::fs::copy(fixture.join(&name), repository.path(&name)).expect("a copy");
            }
        }
        let tokens = match case {
            "text_tiny" => 64,
            _ => 16,
        };
        let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Int64, Device::Cpu));
        let ids = Tensor::from_slice(&[49406i64, 320, 49407]).pad([0, 74], "constant", 0.0);
        let tensors = [
            ("tokens", zeros(&[9, tokens])),
            ("text_ids", ids.unsqueeze(0).repeat([9, 1])),
            ("labels", zeros(&[9])),
        ];
        Tensor::write_safetensors(&tensors, repository.path("data.safetensors")).expect("a file");
        repository
    }

    /// Puts a PyTorch file into it.
    fn save(&self, file: &str, keys: &[&str], entries: &[(String, Entry)]) {
        let path = self.path(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        save(&path, keys, entries);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `vqdiffusion train` in the folder `at`.
    fn train(&self, at: &str, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_vqdiffusion"))
            .args(["train", "--threads", "1", "--device", "cpu"])
            .args(args)
            .current_dir(self.path(at))
            .output()
            .expect("the binary starts")
    }

    fn succeed(&self, at: &str, args: &[&str]) -> [String; 2] {
        let output = self.train(at, args);
        let [out, said] = [&output.stdout, &output.stderr].map(|bytes| crate::running::text(bytes));
        assert!(output.status.success(), "{args:?}: {said}");
        [out, said]
    }

    fn refuse(&self, at: &str, args: &[&str], words: &[&str]) {
        let output = self.train(at, args);
        let said = crate::running::text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{args:?}: {word:?} not in: {said}");
        }
    }
}

const OPENIMAGES: &str = "taming_f8_8192_openimages_last.pth";

#[test]
fn a_run_from_nothing_takes_what_the_configuration_names() {
    let place = Repository::of("text_tiny", OPENIMAGES);
    let config = "configs/coco.yaml";
    let data = "data.train=data.safetensors";
    place.refuse(".", &[config], &["data.train is missing"]);

    // 9 samples in batches of 4 make two steps an epoch.
    let [_, said] = place.succeed(".", &[config, data, "train.epochs=2", "train.folder=run"]);
    assert!(said.contains("steps        4 of 4 samples"), "{said}");
    for left in ["solver.save_epochs", "solver.ema.device"] {
        assert!(said.contains(left), "{said}");
    }
    let (state, _) = read_safetensors(&place.path("run/last/model.safetensors")).expect("a model");
    let (original, _) = official::read(
        &crate::running::fixture("text_tiny").join("last.pth"),
        WeightSet::Ema,
    )
    .expect("a checkpoint");
    // The codec and the tower are the files', the denoiser is not.
    for (name, same) in [
        ("content_codec.decoder.conv_in.weight", true),
        ("transformer.condition_emb.ln_final.weight", true),
        ("transformer.transformer.to_logits.1.weight", false),
    ] {
        let [ours, theirs] = [&state, &original].map(|state| {
            let entry = state.get(name).unwrap_or_else(|| panic!("no {name}"));
            entry.read().expect("values").to_kind(Kind::Float)
        });
        assert_eq!(ours.allclose(&theirs, 0.0, 0.0, false), same, "{name}");
    }
    crate::running::succeed(
        place.folder.path(),
        &[
            "sample",
            "a bird",
            "--steps",
            "2",
            "--checkpoint",
            "run/last/model.safetensors",
            "--out",
            "pictures",
        ],
    );

    // The whole plan, which says the same when it is read again.
    let [printed, _] = place.succeed(".", &[config, data, "--print-config"]);
    for line in [
        "epochs: 100",
        "recipe: official",
        "activation_checkpointing: false",
        "decay: 0.9",
        "auxiliary_weight: 0.0005",
        "peak: 0.001",
        "layers: 3",
        "null_text: empty_prompt",
        OPENIMAGES,
        "ViT-B-32.pt",
        "taming_vqvae_2887.pt",
    ] {
        assert!(printed.contains(line), "{line:?} not in: {printed}");
    }
    std::fs::write(place.path("plan.yaml"), &printed).expect("a file");
    let [again, _] = place.succeed(".", &["plan.yaml", "--print-config"]);
    assert_eq!(again, printed);
    // Steps that are given take the place of epochs.
    let [printed, _] = place.succeed(".", &[config, data, "train.steps=7", "--print-config"]);
    assert!(
        printed.contains("steps: 7") && !printed.contains("epochs"),
        "{printed}"
    );

    // Paths are found from the configuration's folder up, too.
    std::fs::create_dir(place.path("elsewhere")).expect("a folder");
    let there = ["../configs/coco.yaml", "data.train=../data.safetensors"];
    let [printed, _] = place.succeed("elsewhere", &[&there[..], &["--print-config"]].concat());
    assert!(printed.contains(OPENIMAGES), "{printed}");

    let few = [config, data, "train.batch_size=10", "train.folder=few"];
    place.refuse(".", &few, &["train.epochs: 100", "9 samples", "10"]);
    std::fs::remove_file(place.path(CLIP_FILE)).expect("a file");
    place.refuse(".", &[config, data], &["ViT-B-32.pt", "weights.text"]);
    std::fs::remove_dir_all(place.path(CODEC_FILE)).expect("a folder");
    place.refuse(".", &[config, data], &[OPENIMAGES, "weights.codec"]);
}

/// Classes and no condition at all, and what their configurations leave out.
#[test]
fn every_kind_of_configuration_is_an_experiment() {
    for (case, codec, kind) in [
        ("class_tiny", "vqgan_imagenet_f16_16384.pth", "kind: class"),
        (
            "uncond_tiny",
            "vqgan_ffhq_f16_1024.pth",
            "kind: unconditional",
        ),
    ] {
        let place = Repository::of(case, codec);
        let args = [
            "configs/coco.yaml",
            "data.train=data.safetensors",
            "train.folder=run",
            "train.epochs=1",
            "train.batch_size=4",
        ];
        let [printed, _] = place.succeed(".", &[&args[..], &["--print-config"]].concat());
        assert!(
            printed.contains(kind) && printed.contains(codec),
            "{printed}"
        );
        place.succeed(".", &args);
        assert!(place.path("run/last/model.safetensors").is_file());
    }
}

/// The original's dropout is ours.
#[test]
fn dropout_is_taken_over() {
    let place = Repository::of("text_tiny", OPENIMAGES);
    let yaml = std::fs::read_to_string(place.path("configs/coco.yaml")).expect("a file");
    let yaml = changed(&yaml, "attn_pdrop: 0.0", "attn_pdrop: 0.1");
    let yaml = changed(&yaml, "resid_pdrop: 0.0", "resid_pdrop: 0.25");
    std::fs::write(place.path("dropping.yaml"), yaml).expect("a file");
    let data = "data.train=data.safetensors";
    let [printed, _] = place.succeed(".", &["dropping.yaml", data, "--print-config"]);
    let printed: serde_yaml::Value = serde_yaml::from_str(&printed).expect("YAML");
    let dropout = serde_yaml::to_string(&printed["train"]["dropout"]).expect("YAML");
    assert_eq!(dropout, "attention: 0.1\nresidual: 0.25\n");
    let few = [
        "dropping.yaml",
        data,
        "train.steps=2",
        "train.folder=dropped",
    ];
    place.succeed(".", &few);
}

/// What would train another model than the original's code does is refused by its key.
#[test]
fn recipes_without_a_counterpart() {
    let place = Repository::of("text_tiny", OPENIMAGES);
    let yaml = std::fs::read_to_string(place.path("configs/coco.yaml")).expect("a file");
    for (from, to, words) in [
        (
            "resid_pdrop: 0.0",
            "resid_pdrop: 1.0",
            ["resid_pdrop is 1", "below 1"],
        ),
        (
            "trainable: true",
            "trainable: false",
            ["content_emb_config.params.trainable is false", "true"],
        ),
        (
            "torch.optim.AdamW",
            "torch.optim.SGD",
            ["optimizer.target is torch.optim.SGD", "AdamW"],
        ),
        (
            "adjust_lr: none",
            "adjust_lr: cube",
            ["adjust_lr is cube", "sqrt"],
        ),
        (
            "name: none",
            "name: transformer",
            ["name is transformer", "none"],
        ),
        (
            "step_iteration: 1",
            "step_iteration: 2",
            ["step_iteration is 2", "expected 1"],
        ),
        (
            "ReduceLROnPlateauWithWarmup",
            "StepLR",
            ["scheduler.target", "CosineAnnealingLRWithWarmup"],
        ),
        (
            "threshold_mode: rel",
            "threshold_mode: odd",
            ["threshold_mode is odd", "rel or abs"],
        ),
        (
            "max_norm: 0.5",
            "max_norm: much",
            ["max_norm is much", "a number"],
        ),
    ] {
        std::fs::write(place.path("odd.yaml"), changed(&yaml, from, to)).expect("a file");
        place.refuse(".", &["odd.yaml", "data.train=data.safetensors"], &words);
    }
}

/// `inspect` of configurations says what they describe.
#[test]
fn configurations_are_described() {
    let place = Repository::of("text_tiny", OPENIMAGES);
    let inspect = |path: &str| crate::running::succeed(place.folder.path(), &["inspect", path]);
    let said = inspect("configs/coco.yaml");
    for line in [
        "layout       official configuration with its recipe of training",
        "variant      text-conditioned",
        "denoiser     3 blocks, width 48, 4 heads, dense feed-forward ×4, learned timesteps",
        "training     100 epochs in batches of 4",
    ] {
        assert!(
            said.lines().any(|found| found == line),
            "{line:?} not in: {said}"
        );
    }
    assert!(!said.contains("missing"), "{said}");
    std::fs::remove_file(place.path(CLIP_FILE)).expect("a file");
    let said = inspect("configs/coco.yaml");
    assert!(
        said.contains("missing      OUTPUT/pretrained_model/ViT-B-32.pt"),
        "{said}"
    );

    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let said = inspect(ours.join("text_b.yaml").to_str().expect("UTF-8"));
    assert!(
        said.contains("layout       vqdiffusion configuration of a model"),
        "{said}"
    );
    assert!(said.contains("size B"), "{said}");
    let said = inspect(ours.join("emoji.yaml").to_str().expect("UTF-8"));
    assert!(
        said.contains("layout       vqdiffusion experiment"),
        "{said}"
    );
    assert!(said.contains("training     "), "{said}");
    let said = inspect(ours.join("emoji_codec.yaml").to_str().expect("UTF-8"));
    assert!(
        said.contains("layout       vqdiffusion experiment of an image codec"),
        "{said}"
    );
    std::fs::write(place.path("odd.yaml"), "colour: red\n").expect("a file");
    crate::running::refuse(
        place.folder.path(),
        &["inspect", "odd.yaml"],
        &["odd.yaml", "colour"],
    );
}
