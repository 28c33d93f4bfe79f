//! Runs with dropout: their masks depend on nothing but seed and samples, and what is not
//! training has none.

use crate::train::place::{text_model, Workplace};

const DROPOUT: &str = "train.dropout={attention: 0.1, residual: 0.2}";

/// Interrupted or not, to the same bytes; other bytes than without, or with another seed's
/// masks. Rates of 0 are no dropout.
#[test]
fn a_run_goes_on_to_the_same_bytes() {
    let place = Workplace::new(&text_model(), 10);
    let run = |folder: &str, more: &[&str]| {
        let folder = format!("train.folder={folder}");
        place.succeed(&[&[folder.as_str(), "train.steps=20"], more].concat())
    };
    run("whole", &[DROPOUT]);
    run("halves", &[DROPOUT, "train.steps=5"]);
    run("halves", &[DROPOUT, "--resume", "auto"]);
    place.assert_same("whole/last", "halves/last");
    run("without", &[]);
    run("zero", &["train.dropout={attention: 0, residual: 0.0}"]);
    place.assert_same("without/last", "zero/last");
    let first = |folder: &str| place.logged(folder, "loss")[0];
    assert_ne!(first("whole"), first("without"));
    let attention = ["train.dropout={attention: 0.1}", "train.steps=1"];
    run("attention", &attention);
    let residual = ["train.dropout={residual: 0.2}", "train.steps=1"];
    run("residual", &residual);
    let losses = ["whole", "without", "attention", "residual"].map(first);
    for (i, a) in losses.iter().enumerate() {
        assert!(losses[..i].iter().all(|b| b != a), "{losses:?}");
    }
}

/// The bound of weights that no step has changed is the same with dropout.
#[test]
fn validations_drop_nothing() {
    let place = Workplace::new(&text_model(), 10);
    let still = [
        "train.steps=1",
        "train.validation.every=1",
        "train.ema={decay: 0.999, every: 1000}",
    ];
    let bound = |folder: &str, more: &[&str]| {
        let folder_set = format!("train.folder={folder}");
        place.succeed(&[&still[..], &[folder_set.as_str()], more].concat());
        place.logged(folder, "validation_nats_per_token")
    };
    let without = bound("without", &[]);
    assert_eq!(without.len(), 1);
    assert_eq!(bound("dropping", &[DROPOUT]), without);
}
