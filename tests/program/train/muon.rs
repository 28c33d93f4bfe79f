//! Runs with Muon: what they print, keep and go on from.

use tch::Tensor;
use vqdiffusion::train::engine::folder::saved_steps;

use crate::train::place::{text_model, Workplace};

const MUON: &str = "train.optimizer={kind: muon, weight_decay: 0.02}";

/// Names of the tensors in a checkpoint's state that begin like this.
fn names(place: &Workplace, state: &str, beginning: &str) -> Vec<String> {
    let tensors = Tensor::read_safetensors(place.path(state)).expect("a state");
    let names = tensors.into_iter().map(|(name, _)| name);
    names.filter(|name| name.starts_with(beginning)).collect()
}

/// Interrupted or not, to the same bytes; hidden matrices have one moment, and the loss falls.
#[test]
fn a_run_goes_on_to_the_same_bytes() {
    let place = Workplace::new(&text_model(), 10);
    let run = |folder: &str, more: &[&str]| {
        let folder = format!("train.folder={folder}");
        let common = [MUON, "train.text=trained", folder.as_str()];
        place.succeed(&[&common, more].concat())
    };
    run("whole", &[]);
    run("halves", &["train.steps=15"]);
    run("halves", &["--resume", "auto"]);
    place.assert_same("whole/last", "halves/last");
    let losses = place.logged("whole", "loss");
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(
        mean(&losses[30..]) < 0.9 * mean(&losses[..10]),
        "{losses:?}"
    );

    let state = "whole/last/state.safetensors";
    let [parameters, averages, squares] =
        ["parameter.", "average.", "square_average."].map(|group| names(&place, state, group));
    assert_eq!(parameters.len(), averages.len());
    // Of each of two blocks twice query, key, value and projection, and two dense layers; of
    // the text tower's one block four.
    assert_eq!(squares.len(), parameters.len() - 2 * 10 - 4);
    assert!(squares.iter().all(|name| !name.contains("query.weight")));
}

/// A run has one optimizer from beginning to end.
#[test]
fn another_optimizer_does_not_go_on() {
    let place = Workplace::new(&text_model(), 10);
    place.succeed(&["train.folder=adamw", "train.steps=5"]);
    place.succeed(&["train.folder=muon", "train.steps=5", MUON]);
    place.refuse(
        &["train.folder=adamw", "--resume", "auto", MUON],
        &["step-00000005", "train.optimizer.kind adamw"],
    );
    place.refuse(
        &["train.folder=muon", "--resume", "auto"],
        &["step-00000005", "train.optimizer.kind muon"],
    );
    for folder in ["adamw", "muon"] {
        assert_eq!(saved_steps(&place.path(folder)).expect("a folder").len(), 1);
    }
}

/// What is printed means the same; of AdamW nothing more than before there was Muon.
#[test]
fn the_optimizer_as_printed() {
    let place = Workplace::new(&text_model(), 10);
    let printed = |overrides: &[&str]| {
        let output = place.run(&[overrides, &["--print-config"]].concat());
        assert!(output.status.success());
        String::from_utf8(output.stdout).expect("text")
    };
    let optimizer = |text: &str| {
        let value: serde_yaml::Value = serde_yaml::from_str(text).expect("YAML");
        serde_yaml::to_string(&value["train"]["optimizer"]).expect("YAML")
    };
    let usual = "betas:\n- 0.9\n- 0.96\nweight_decay: 0.045\nepsilon: 1e-8\n";
    assert_eq!(optimizer(&printed(&[])), usual);
    assert_eq!(optimizer(&printed(&["train.optimizer.kind=adamw"])), usual);
    let muon = printed(&["train.optimizer={kind: muon, momentum: 0.9}"]);
    assert_eq!(
        optimizer(&muon),
        format!("kind: muon\nmomentum: 0.9\n{usual}")
    );
    std::fs::write(place.path("experiment.yaml"), &muon).expect("a file");
    assert_eq!(printed(&[]), muon);
}
