//! Experiments that are based on others.

use std::path::Path;

use serde_yaml::Value;
use tempfile::TempDir;

use crate::running::{refuse, run, succeed, text};
use crate::train::place::{text_model, Workplace};

fn folder_with(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }
    folder
}

/// A model's shape, for experiments that are printed alone.
const SHAPE: &str = "\
model:
  denoiser: {layers: 2, width: 32, heads: 2, codes: 12, grid: [4, 4], position_table: [4, 4],
    timesteps: 10, timestep_embedding: table, feed_forward: fc, expansion: 2,
    condition: {kind: text, positions: 77, width: 16}}
  transition: {kind: mask_and_replace, alpha: [0.99999, 0.000009], gamma: [0.000009, 0.9]}
  text:
    tower: {vocabulary: 1792, context: 77, width: 16, layers: 1, heads: 1, hidden: 32}
    null_text: empty_prompt
  codec: {resolution: 16, channels: 32, multipliers: [1, 1, 1], residual_blocks: 1,
    attention_resolutions: [4], latent_channels: 8, embedding_width: 8, codebook: 12,
    quantizer: gumbel}
";

const RECIPE: &str = "\
base: shape.yaml
weights: {codec: codec.pth, mapping: codes.pt, text: clip.pt}
data: {train: nothing, validation: nothing}
train:
  epochs: 7
  batch_size: 4
  objective: {mask_weight: [1.0, 0.5]}
  learning_rate:
    start: 1.0e-4
    peak: 2.0e-3
    warmup: 10
    course: {kind: plateau, factor: 0.5, patience: 8, threshold: 0.1, minimum: 1.0e-5}
  preview: {prompts: [a bird, a cat], columns: 3}
";

const TOP: &str = "\
base: ../recipe.yaml
weights: {mapping: null}
data: {train: pictures, validation: null}
train:
  steps: 30
  objective: {mask_weight: [1, 1]}
  learning_rate: {peak: 3.0e-3}
  preview: {prompts: [a red bird]}
";

fn experiments() -> TempDir {
    folder_with(&[
        ("configs/shape.yaml", SHAPE),
        ("configs/recipe.yaml", RECIPE),
        ("configs/own/top.yaml", TOP),
    ])
}

fn printed(folder: &Path, args: &[&str]) -> Value {
    let args = [&["train"], args, &["--print-config"]].concat();
    serde_yaml::from_str(&succeed(folder, &args)).expect("YAML")
}

fn at<'a>(root: &'a Value, key: &str) -> &'a Value {
    let found = key.split('.').try_fold(root, |at, part| at.get(part));
    found.unwrap_or_else(|| panic!("no {key}"))
}

/// Maps merge, lists and values replace, null unsets, and settings of the command line win.
#[test]
fn an_experiment_is_based_on_others() {
    let folder = experiments();
    let root = printed(folder.path(), &["configs/own/top.yaml"]);
    for (key, expected) in [
        ("model.denoiser.width", "32"),
        ("weights.codec", "codec.pth"),
        ("data.train", "pictures"),
        ("train.steps", "30"),
        ("train.batch_size", "4"),
        ("train.accumulation", "8"),
        ("train.objective.mask_weight", "[1.0, 1.0]"),
        ("train.learning_rate.start", "0.0001"),
        ("train.learning_rate.peak", "0.003"),
        ("train.learning_rate.course.patience", "8"),
        ("train.preview.prompts", "[a red bird]"),
        ("train.preview.columns", "3"),
    ] {
        let expected: Value = serde_yaml::from_str(expected).expect("YAML");
        assert_eq!(*at(&root, key), expected, "{key}");
    }
    for (part, gone) in [
        (&root, "base"),
        (at(&root, "weights"), "mapping"),
        (at(&root, "data"), "validation"),
        (at(&root, "train"), "epochs"),
    ] {
        assert_eq!(part.get(gone), None, "{gone}");
    }
    // What is printed is whole: it means the same wherever it lies.
    let again = folder_with(&[("plan.yaml", &serde_yaml::to_string(&root).expect("YAML"))]);
    assert_eq!(printed(again.path(), &["plan.yaml"]), root);
    // From another folder, by an absolute path.
    let path = folder.path().join("configs/own/top.yaml");
    assert_eq!(
        printed(again.path(), &[path.to_str().expect("UTF-8")]),
        root
    );
    assert_eq!(
        printed(&folder.path().join("configs/own"), &["top.yaml"]),
        root
    );

    let settings = [
        "configs/own/top.yaml",
        "train.epochs=2",
        "train.preview.prompts=[a]",
        "train.learning_rate.course={kind: constant}",
        "data.validation=more",
    ];
    let root = printed(folder.path(), &settings);
    assert_eq!(at(&root, "train.epochs").as_i64(), Some(2));
    assert_eq!(
        at(&root, "train.preview.prompts")
            .as_sequence()
            .map(Vec::len),
        Some(1)
    );
    assert_eq!(
        at(&root, "train.learning_rate.course.kind").as_str(),
        Some("constant")
    );
    assert_eq!(at(&root, "data.validation").as_str(), Some("more"));
}

/// Of several bases later ones count; a mapping of another kind is not merged.
#[test]
fn several_bases_and_other_kinds() {
    let folder = experiments();
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("a file");
    };
    write(
        "small.yaml",
        "base: configs/shape.yaml\nmodel: {denoiser: {layers: 1}}\n",
    );
    write(
        "classes.yaml",
        "base: [configs/own/top.yaml, small.yaml, configs/shape.yaml]\n\
         model:\n  text: null\n  denoiser: {condition: {kind: class, classes: 9, null_class: mean}}\n\
         train: {learning_rate: {course: {kind: constant}}, preview: {prompts: []}}\n",
    );
    let root = printed(folder.path(), &["classes.yaml"]);
    assert_eq!(at(&root, "model.denoiser.layers").as_i64(), Some(1));
    assert_eq!(at(&root, "model.denoiser.width").as_i64(), Some(32));
    assert_eq!(at(&root, "model").get("text"), None);
    let condition = at(&root, "model.denoiser.condition");
    assert_eq!(condition.get("positions"), None);
    assert_eq!(condition.get("classes").and_then(Value::as_i64), Some(9));
    assert_eq!(at(&root, "train.steps").as_i64(), Some(30));

    // A model's shape that is based on another is a configuration like any.
    let said = succeed(folder.path(), &["inspect", "small.yaml"]);
    assert!(said.contains("1 block"), "{said}");
}

/// Errors name the file and the line in which the wrong key stands.
#[test]
fn what_is_wrong_is_named_where_it_stands() {
    let folder = experiments();
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("a file");
    };
    let recipe = |from: &str, to: &str| {
        assert!(RECIPE.contains(from), "{from}");
        write("configs/recipe.yaml", &RECIPE.replace(from, to));
    };
    let bad = |settings: &[&str], words: &[&str]| {
        let args = [&["train", "configs/own/top.yaml"], settings].concat();
        refuse(folder.path(), &args, words);
    };
    let of_recipe = "recipe.yaml line ";
    recipe("batch_size: 4", "batchsize: 4");
    bad(
        &[],
        &[
            of_recipe,
            "line 6: train.batchsize: unknown",
            "did you mean `batch_size`",
        ],
    );
    recipe("batch_size: 4", "batch_size: four");
    bad(&[], &[of_recipe, "line 6: train.batch_size: ", "\"four\""]);
    recipe("batch_size: 4", "batch_size: 0");
    bad(&[], &[of_recipe, "line 6: train.batch_size is 0"]);
    // Inside of what is read as a whole.
    recipe("patience: 8", "patienc: 8");
    bad(
        &[],
        &[
            of_recipe,
            "line 12: train.learning_rate.course",
            "did you mean `patience`",
        ],
    );
    recipe("warmup: 10", "warmup: -1");
    bad(&[], &[of_recipe, "line 11: train.learning_rate.warmup: "]);
    // Replaced above, so that nothing is wrong.
    recipe("mask_weight: [1.0, 0.5]", "mask_weight: no");
    printed(folder.path(), &["configs/own/top.yaml"]);
    write("configs/recipe.yaml", RECIPE);
    write("configs/shape.yaml", &SHAPE.replace("heads: 2", "heads: 3"));
    bad(
        &[],
        &["shape.yaml line 2: model: denoiser.heads 3 do not divide"],
    );
    write(
        "configs/shape.yaml",
        &SHAPE.replace("multipliers: [1, 1, 1]", "multipliers: [1, x]"),
    );
    bad(&[], &["shape.yaml line 9: model.codec.multipliers.1: "]);
    write("configs/shape.yaml", SHAPE);
    bad(
        &["train.seed=1", "train.batch_size=x"],
        &["train.batch_size=x: train.batch_size: "],
    );
    bad(
        &["train.batch_size=0", "train.seed=1"],
        &["train.batch_size=0: train.batch_size is 0"],
    );
    bad(&["data.train=null"], &["data.train=null: data.train: "]);

    for (text, words) in [
        (
            "base: nothing.yaml\n",
            vec![
                "top.yaml line 1: base: ",
                "own/nothing.yaml",
                "No such file",
            ],
        ),
        (
            "train: {}\nbase: ../../configs\n",
            vec!["top.yaml line 2: base: ", "configs"],
        ),
        (
            "base: 7\n",
            vec!["top.yaml line 1: base: expected the name of a file"],
        ),
        (
            "base: [top.yaml, [x]]\n",
            vec!["line 1: base: expected the name"],
        ),
        ("base: {x: 1}\n", vec!["line 1: base: expected the name"]),
        (
            "base: ../list.yaml\n",
            vec!["line 1: base: ", "list.yaml is no mapping"],
        ),
        ("base: ../broken.yaml\n", vec!["broken.yaml: ", "line 3"]),
        (
            "base: top.yaml\n",
            vec![
                "line 1: base: a file is based on itself",
                "top.yaml, on configs",
            ],
        ),
        (
            "base: ../a.yaml\n",
            vec![
                "b.yaml line 1: base: a file is based on itself: configs/own/../a.yaml, on ",
                "b.yaml, on ",
            ],
        ),
    ] {
        write("configs/list.yaml", "[1, 2]");
        write("configs/broken.yaml", "a: 1\nb: [");
        write("configs/a.yaml", "base: b.yaml\n");
        write("configs/b.yaml", "base: own/../a.yaml\n");
        write("configs/own/top.yaml", text);
        bad(&[], &words);
    }
}

/// An original's configuration is a base like any other.
#[test]
fn an_official_configuration_as_a_base() {
    let case = crate::running::fixture("text_tiny");
    let official = std::fs::read_to_string(case.join("config.yaml")).expect("a file");
    let folder = folder_with(&[
        ("official.yaml", official.as_str()),
        (
            "top.yaml",
            "base: official.yaml\nweights: {init_from: x.pth}\ndata: {train: birds}\n\
             model: null\ntrain: {steps: 9}\n",
        ),
    ]);
    let output = run(folder.path(), &["train", "top.yaml", "--print-config"]);
    let message = text(&output.stderr);
    assert!(message.contains("x.pth"), "{message}");
    let experiment =
        vqdiffusion::experiment::Experiment::read(&folder.path().join("top.yaml"), &[])
            .expect("an experiment");
    assert_eq!((experiment.train.steps, experiment.train.epochs), (9, None));
    assert_eq!(
        experiment.train.recipe,
        vqdiffusion::train::engine::Recipe::Official
    );
    assert_eq!(
        experiment.weights.config,
        Some(folder.path().join("official.yaml"))
    );
}

/// A run's folder holds its whole configuration, from which it goes on without the files
/// that the experiment came from.
#[test]
fn a_run_goes_on_from_its_own_record() {
    let place = Workplace::new(&text_model(), 10);
    let experiment = std::fs::read_to_string(place.path("experiment.yaml")).expect("a file");
    std::fs::write(place.path("base.yaml"), experiment).expect("a file");
    std::fs::write(
        place.path("experiment.yaml"),
        "base: base.yaml\ntrain: {steps: 5, checkpoint: {every: 5}}\n",
    )
    .expect("a file");
    place.succeed(&["train.folder=a"]);
    place.succeed(&["train.folder=b", "train.steps=10"]);
    for name in ["base.yaml", "experiment.yaml", "start.safetensors"] {
        std::fs::remove_file(place.path(name)).expect("a file");
    }
    let record = "a/experiment.yaml";
    let text = std::fs::read_to_string(place.path(record)).expect("the record");
    let root: Value = serde_yaml::from_str(&text).expect("YAML");
    assert_eq!(at(&root, "model.denoiser.width").as_i64(), Some(32));
    let args = [
        "--threads",
        "1",
        "--device",
        "cpu",
        "--resume",
        "auto",
        "train.steps=10",
    ];
    let here = place.path("");
    succeed(&here, &[&["train", record][..], &args].concat());
    place.assert_same("a/last", "b/last");
    let text = std::fs::read_to_string(place.path(record)).expect("the record");
    assert!(text.contains("steps: 10"), "{text}");
}
