//! Several processes that divide every step among them.

use tch::{Kind, Tensor};
use vqdiffusion::checkpoint::state_dict::read_safetensors;

use crate::train::place::{signal, text_model, wait_for, Workplace};

/// Six samples a step, in two batches.
const SIX: [&str; 2] = ["train.batch_size=3", "train.accumulation=2"];

/// ‖a − b‖ / ‖a‖ over all tensors of `model.safetensors` that differ in training.
fn distance(place: &Workplace, a: &str, b: &str) -> f64 {
    let read = |run: &str| {
        let path = place.path(&format!("{run}/last/state.safetensors"));
        read_safetensors(&path).expect("a state").0
    };
    let (a, b) = (read(a), read(b));
    let (mut off, mut all) = (0.0, 0.0);
    for (name, entry) in a.iter().filter(|(name, _)| name.starts_with("parameter.")) {
        let x = entry.read().expect("a tensor").to_kind(Kind::Double);
        let y: Tensor = b.get(name).expect(name).read().expect("a tensor");
        off += (&x - y).square().sum(Kind::Double).double_value(&[]);
        all += x.square().sum(Kind::Double).double_value(&[]);
    }
    assert!(all > 0.0);
    (off / all).sqrt()
}

/// The steps are those of one process, whatever their number: the same samples, losses and
/// weights up to rounding.
#[test]
fn processes_make_the_steps_of_one() {
    let place = Workplace::new(&text_model(), 10);
    let steps = [&SIX[..], &["train.steps=10", "train.validation.every=10"]].concat();
    place.succeed(&[&steps[..], &["train.folder=one"]].concat());
    for count in ["2", "3"] {
        let folder = format!("train.folder=of{count}");
        let together = [folder.as_str(), "--nproc-per-node", count];
        let message = place.succeed(&[&steps[..], &together].concat());
        assert!(
            message.contains(&format!("processes    {count}")),
            "{message}"
        );
        let run = format!("of{count}");
        for key in ["step", "samples", "distinct_codes", "code_perplexity"] {
            assert_eq!(place.logged("one", key), place.logged(&run, key), "{key}");
        }
        for key in ["loss", "gradient_norm", "token_accuracy"] {
            let (one, all) = (place.logged("one", key), place.logged(&run, key));
            assert_eq!(one.len(), 10);
            for (a, b) in one.iter().zip(&all) {
                assert!((a - b).abs() <= 1e-4 * a.abs(), "{key}: {one:?}, {all:?}");
            }
        }
        let off = distance(&place, "one", &run);
        assert!(off < 1e-4, "{count} processes: weights off by {off}");
    }
    place.refuse(
        &[&steps[..], &["train.folder=of4", "--nproc-per-node", "4"]].concat(),
        &[
            "train.batch_size is 3 with accumulation 2",
            "4 processes",
            "4 or 8",
        ],
    );
}

/// A run of three processes that is killed goes on to the bytes of one that is not.
#[test]
fn killed_processes_go_on_to_the_same_bytes() {
    let place = Workplace::new(&text_model(), 10);
    let three = [&SIX[..], &["train.steps=15", "--nproc-per-node", "3"]].concat();
    place.succeed(&[&three[..], &["train.folder=whole"]].concat());
    let keep = "train.checkpoint={every: 5, keep: 1000}";
    let long = [
        &SIX[..],
        &["train.steps=100000", keep, "--nproc-per-node", "3"],
    ]
    .concat();
    let mut child = place
        .command(&[&long[..], &["train.folder=killed"]].concat())
        .spawn()
        .expect("the binary starts");
    wait_for(&mut child, "checkpoint", || {
        place.path("killed/step-00000005").exists()
    });
    signal(&child, libc::SIGTERM);
    let status = child.wait().expect("a child");
    assert_eq!(status.code(), Some(3));
    for entry in std::fs::read_dir(place.path("killed")).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("step-") && name != "step-00000005" {
            std::fs::remove_dir_all(&path).expect("a folder");
        }
    }
    place.succeed(&[&three[..], &["train.folder=killed", "--resume", "auto"]].concat());
    place.assert_same("whole/last", "killed/last");
}

/// When one of several processes is killed or halted, the others end, and it is named.
#[test]
fn the_others_end_with_a_process_that_fails() {
    let place = Workplace::new(&text_model(), 10);
    for (number, named) in [
        (libc::SIGKILL, "process 1 of 2 ended"),
        (libc::SIGSTOP, "process 1 of 2 is halted"),
    ] {
        let folder = format!("train.folder=of{number}");
        let long = ["train.steps=1000000", "--nproc-per-node", "2", &folder];
        let mut child = place.command(&long).spawn().expect("the binary starts");
        let log = place.path(&format!("of{number}/log.jsonl"));
        wait_for(&mut child, "step", || {
            std::fs::metadata(&log).is_ok_and(|file| file.len() > 0)
        });
        let id = child.id();
        let ranks = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let ranks = ranks.expect("the launcher's children");
        let second = ranks.split_whitespace().nth(1).expect("two processes");
        let second: libc::pid_t = second.parse().expect("a process");
        // SAFETY: sends a signal to a process that the launcher, which is ours, waits for.
        unsafe { libc::kill(second, number) };
        let output = child.wait_with_output().expect("an end");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.contains(named), "{named:?} not in: {message}");
        assert_eq!(output.status.code(), Some(2), "{message}");
    }
}
