//! Runs that are killed, stopped, out of room or damaged, and go on.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tch::{Device, Tensor};
use tempfile::TempDir;
use vqdiffusion::checkpoint::{Checkpoint, OpenOptions};
use vqdiffusion::data::{Samples, TokenLoader};
use vqdiffusion::pipeline::Pipeline;
use vqdiffusion::ranks::Ranks;
use vqdiffusion::torch::device::Precision;
use vqdiffusion::train::diffusion::line::Speed;
use vqdiffusion::train::diffusion::{DiffusionTask, InitialModel, RunData, WeightsConfig, MODEL};
use vqdiffusion::train::engine::checkpoint::newest;
use vqdiffusion::train::engine::folder::saved_steps;
use vqdiffusion::train::engine::{CheckpointConfig, Run, RunFolder, SavedStep, Task};
use vqdiffusion::train::{TextTraining, TrainConfig, TrainError};

use crate::train::place::{
    model, signal, text_model, wait_for, write_model, write_tokens, Workplace,
};

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let place = Workplace::new(&text_model(), 10);
    place.succeed(&["train.folder=whole"]);
    place.succeed(&["train.folder=again"]);
    place.assert_same("whole/last", "again/last");

    let killed = ["train.folder=killed", "train.steps=1000000"];
    let mut child = place.command(&killed).spawn().expect("the binary starts");
    wait_for(&mut child, "checkpoint", || {
        place.path("killed/step-00000005").exists()
    });
    child.kill().expect("a running child"); // SIGKILL
    let _ = child.wait();
    let steps = saved_steps(&place.path("killed")).expect("a folder");
    assert!(steps.last().is_some_and(|s| s.step < 40), "{steps:?}");
    let message = place.succeed(&["train.folder=killed", "--resume", "auto"]);
    assert!(message.contains("continued"), "{message}");
    place.assert_same("whole/last", "killed/last");
    // The log has every step once.
    assert_eq!(
        place.logged("killed", "loss"),
        place.logged("whole", "loss")
    );
    // The last two checkpoints stay, and the best.
    let steps = saved_steps(&place.path("whole")).expect("a folder");
    assert!((2..=3).contains(&steps.len()), "{steps:?}");
}

#[test]
fn a_signal_ends_the_run_after_a_checkpoint() {
    let place = Workplace::new(&text_model(), 10);
    for number in [libc::SIGTERM, libc::SIGINT] {
        let folder = format!("train.folder=signal{number}");
        let long = [
            folder.as_str(),
            "train.steps=1000000",
            "train.checkpoint.every=1000000",
        ];
        let mut child = place.command(&long).spawn().expect("the binary starts");
        let log = place.path(&format!("signal{number}/log.jsonl"));
        wait_for(&mut child, "step", || {
            std::fs::metadata(&log).is_ok_and(|file| file.len() > 0)
        });
        signal(&child, number);
        let status = child.wait().expect("a child");
        assert_eq!(status.code(), Some(3));
        let folder_path = place.path(&format!("signal{number}"));
        let saved = newest_in(&folder_path)
            .expect("a folder")
            .expect("a checkpoint");
        let steps = place.logged(&format!("signal{number}"), "step");
        assert_eq!(Some(&(saved.step as f64)), steps.last());
        // It goes on from there.
        let end = format!("train.steps={}", saved.step + 2);
        place.succeed(&[&folder, &end, "--resume", "auto"]);
    }
}

#[test]
fn a_second_signal_ends_the_run_at_once() {
    let place = Workplace::new(&text_model(), 10);
    // A step of minutes.
    let long = ["train.accumulation=100000"];
    let mut child = place.command(&long).spawn().expect("the binary starts");
    let log = place.path("run/log.jsonl");
    wait_for(&mut child, "log", || log.exists());
    signal(&child, libc::SIGTERM);
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().expect("a child").is_none());
    signal(&child, libc::SIGTERM);
    let status = child.wait().expect("a child");
    assert_eq!(status.code(), Some(128 + libc::SIGTERM));
}

#[test]
fn without_room_the_previous_checkpoint_stays() {
    let place = Workplace::new(&text_model(), 10);
    place.succeed(&["train.steps=5"]);
    // Files may not grow beyond 64 KiB, as on a full disk.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_vqdiffusion"))
        .args([
            "train",
            "experiment.yaml",
            "--resume",
            "auto",
            "--threads",
            "1",
        ])
        .current_dir(place.folder.path())
        .output()
        .expect("sh starts");
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    for word in ["step 10 could not be written", "step-00000005 stays"] {
        assert!(message.contains(word), "{word:?} not in: {message}");
    }
    let left: Vec<_> = std::fs::read_dir(place.path("run"))
        .expect("a folder")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    place.succeed(&["--resume", "auto"]);
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let place = Workplace::new(&text_model(), 10);
    place.succeed(&["train.steps=10"]);
    let file = place.path("run/step-00000010/state.safetensors");
    let mut bytes = std::fs::read(&file).expect("a file");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, bytes).expect("a file");
    place.refuse(
        &["--resume", "run/step-00000010"],
        &["state.safetensors", "SHA-256"],
    );
    let message = place.succeed(&["--resume", "auto", "train.steps=12"]);
    assert!(message.contains("step-00000005 at step 5"), "{message}");
}

/// What came after the checkpoint that a run goes on from is followed by nothing, and not
/// lost.
#[test]
fn newer_checkpoints_are_set_aside() {
    const KEEP: &str = "train.checkpoint.keep=9";
    let place = Workplace::new(&text_model(), 10);
    place.succeed(&["train.steps=20", KEEP]);
    let steps = |folder: &str| -> Vec<u64> {
        let saved = saved_steps(&place.path(folder)).expect("a folder");
        saved.iter().map(|s| s.step).collect()
    };
    assert_eq!(steps("run"), [5, 10, 15, 20]);
    let link = |name: &str| std::fs::read_link(place.path(name)).expect("a link");
    // The bound falls.
    assert_eq!(link("run/best"), PathBuf::from("step-00000020"));
    let losses = place.logged("run", "loss");

    let back = ["--resume", "run/step-00000010", "train.steps=12", KEEP];
    let message = place.succeed(&back);
    for word in ["set aside", "steps 15, 20", "run/abandoned-1"] {
        assert!(message.contains(word), "{word:?} not in: {message}");
    }
    assert_eq!(steps("run/abandoned-1"), [15, 20]);
    assert_eq!(place.logged("run/abandoned-1", "loss"), losses);
    assert_eq!(place.logged("run", "loss"), losses[..12]);
    assert_eq!(link("run/last"), PathBuf::from("step-00000012"));
    let best = link("run/best");
    assert!(place.path("run").join(&best).exists(), "{best:?}");
    let message = place.succeed(&["--resume", "auto", "train.steps=14", KEEP]);
    assert!(message.contains("step-00000012 at step 12"), "{message}");
    assert!(!message.contains("set aside"), "{message}");

    // Back to before the first validation: nothing is the best.
    place.succeed(&["--resume", "run/step-00000005", "train.steps=5", KEEP]);
    assert_eq!(steps("run"), [5]);
    assert_eq!(steps("run/abandoned-2"), [10, 12, 14]);
    assert!(!place.path("run/best").is_symlink());
    assert_eq!(link("run/last"), PathBuf::from("step-00000005"));

    // The abandoned branch goes on in a folder of its own.
    let abandoned = ["--resume", "run/abandoned-1/step-00000020"];
    place.refuse(
        &abandoned,
        &["is not a checkpoint of the run in run", "train.folder"],
    );
    place.succeed(&[&abandoned[..], &["train.folder=other", "train.steps=25"]].concat());
    place.succeed(&["train.folder=whole", "train.steps=25"]);
    place.assert_same("other/last", "whole/last");
    place.refuse(
        &["--resume", "run/step-00000099"],
        &["step-00000099", "No such file"],
    );
}

/// A copy of a run's folder, its links with it, of which the checkpoints after `step` are
/// missing: what a process leaves that was killed before the next one.
fn killed_after(place: &Workplace, whole: &str, step: u64, killed: &str) {
    let copied = Command::new("cp")
        .args(["-a", whole, killed])
        .current_dir(place.folder.path())
        .status();
    assert!(copied.expect("cp starts").success());
    for saved in saved_steps(&place.path(killed)).expect("a folder") {
        if saved.step > step {
            std::fs::remove_dir_all(saved.path).expect("a folder");
        }
    }
}

/// Names of the files in a run's folder that begin like this.
fn names(place: &Workplace, run: &str, beginning: &str) -> Vec<String> {
    let entries = std::fs::read_dir(place.path(run)).expect("a folder");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with(beginning)).collect()
}

/// A line of the log that an interruption fell into is over the same steps as without it.
#[test]
fn lines_of_the_log_do_not_depend_on_interruptions() {
    let place = Workplace::new(&text_model(), 10);
    let settings = [
        "train.steps=20",
        "train.log_every=4",
        "train.checkpoint={every: 3, keep: 9}",
    ];
    place.succeed(&[&settings[..], &["train.folder=whole"]].concat());
    for step in [3, 6, 8, 10] {
        // 8 ends a line, 10 is a validation's checkpoint.
        let folder = format!("killed{step}");
        killed_after(&place, "whole", step, &folder);
        let into = format!("train.folder={folder}");
        place.succeed(&[&settings[..], &[into.as_str(), "--resume", "auto"]].concat());
        place.assert_same("whole/last", &format!("{folder}/last"));
        for key in [
            "step",
            "samples",
            "loss",
            "token_accuracy",
            "distinct_codes",
            "code_perplexity",
            "gradient_norm",
            "learning_rate",
            "validation_nats_per_token",
        ] {
            let (whole, killed) = (place.logged("whole", key), place.logged(&folder, key));
            assert!(!whole.is_empty(), "{key}");
            assert_eq!(whole, killed, "{key} of {folder}");
        }
    }
}

/// What a kill between a checkpoint and what follows it leaves undone is done by the next
/// start, and nothing else is.
#[test]
fn the_next_start_makes_up_for_names_and_sheets() {
    let place = Workplace::new(&text_model(), 10);
    let settings = [
        "train.steps=20",
        "train.preview={every: 2, prompts: [a], columns: 1, steps: 2}",
    ];
    place.succeed(&settings);
    let link = |name: &str| std::fs::read_link(place.path(name)).expect("a link");
    assert_eq!(
        names(&place, "run", "samples-").len(),
        2,
        "of steps 10 and 20"
    );
    let (best, sheet) = (link("run/best"), place.bytes("run/samples-00000020.png"));
    let events = names(&place, "run", "events");
    assert_eq!(events.len(), 1);

    std::fs::remove_file(place.path("run/last")).expect("a link");
    std::fs::remove_file(place.path("run/best")).expect("a link");
    let again = [&settings[..], &["--resume", "auto"]].concat();
    place.succeed(&again);
    assert_eq!(link("run/last"), PathBuf::from("step-00000020"));
    assert_eq!(link("run/best"), best);
    assert_eq!(
        names(&place, "run", "events"),
        events,
        "a finished run has no more events"
    );

    std::fs::remove_file(place.path("run/samples-00000020.png")).expect("a sheet");
    std::fs::create_dir(place.path("run/.vqdiffusion-1-0")).expect("a folder");
    place.succeed(&again);
    assert!(place.bytes("run/samples-00000020.png") == sheet);
    assert!(names(&place, "run", ".").is_empty());
}

/// A run whose links became folders, as some ways of copying do it.
#[test]
fn a_run_copied_with_its_links_followed_goes_on() {
    let place = Workplace::new(&text_model(), 10);
    place.succeed(&["train.folder=whole"]);
    place.succeed(&["train.steps=20"]);
    let copied = Command::new("cp")
        .args(["-rL", "run", "copy"])
        .current_dir(place.folder.path())
        .status();
    assert!(copied.expect("cp starts").success());
    place.succeed(&["train.folder=copy", "--resume", "auto"]);
    place.assert_same("whole/last", "copy/last");
    assert!(place.path("copy/last").is_symlink());
}

#[test]
fn a_second_process_is_refused() {
    let place = Workplace::new(&text_model(), 10);
    let long = ["train.steps=1000000", "train.checkpoint.every=1000000"];
    let mut child = place.command(&long).spawn().expect("the binary starts");
    let log = place.path("run/log.jsonl");
    wait_for(&mut child, "log", || log.exists());
    for resume in [&[][..], &["--resume", "auto"]] {
        place.refuse(resume, &["run", "another process", "is writing here"]);
    }
    child.kill().expect("a running child");
    let _ = child.wait();
    // It left no lock.
    place.succeed(&["train.steps=1", "--resume", "auto"]);
}

#[test]
fn data_that_changed_are_warned_of() {
    let place = Workplace::new(&text_model(), 10);
    place.succeed(&["train.steps=5"]);
    let resume = |steps: &str| place.succeed(&[steps, "--resume", "auto"]);
    let message = resume("train.steps=6");
    assert!(!message.contains("training data"), "{message}");
    write_tokens(&place.path("tokens.safetensors"), 11);
    let message = resume("train.steps=7");
    for word in [
        "run/step-00000006",
        "10 pictures then, 11 now",
        "order and epochs",
    ] {
        assert!(message.contains(word), "{word:?} not in: {message}");
    }
    let tensors = Tensor::read_safetensors(place.path("tokens.safetensors")).expect("tensors");
    let flipped = |(name, tensor): (String, Tensor)| (name, tensor.flip([0]));
    let tensors: Vec<_> = tensors.into_iter().map(flipped).collect();
    Tensor::write_safetensors(&tensors, place.path("tokens.safetensors")).expect("a file");
    let message = resume("train.steps=8");
    assert!(
        message.contains("11 pictures, others than then"),
        "{message}"
    );
}

/// A signal does not wait for the end of a validation, which is made up for.
#[test]
fn a_validation_is_stopped_and_made_up_for() {
    let place = Workplace::new(&text_model(), 10);
    let steps = ["train.steps=10", "train.log_every=1"];
    let mut child = place
        .command(&[&steps[..], &["train.validation.times=1000000"]].concat())
        .spawn()
        .expect("the binary starts");
    let log = place.path("run/log.jsonl");
    wait_for(&mut child, "tenth step", || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.lines().count() == 10)
    });
    signal(&child, libc::SIGTERM);
    let mut status = None;
    for _ in 0..600 {
        status = child.try_wait().expect("a child");
        if status.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    if status.is_none() {
        child.kill().expect("a running child");
    }
    assert_eq!(status.expect("an end within a minute").code(), Some(3));
    assert!(!place.path("run/best").is_symlink());
    place.succeed(&[&steps[..], &["--resume", "auto"]].concat());
    place.succeed(&[&steps[..], &["train.folder=whole"]].concat());
    let key = "validation_nats_per_token";
    assert_eq!(place.logged("run", key), place.logged("whole", key));
    assert_eq!(place.logged("run", key).len(), 1);
    assert_eq!(
        std::fs::read_link(place.path("run/best")).expect("a link"),
        PathBuf::from("step-00000010")
    );
    // Once.
    place.succeed(&[&steps[..], &["--resume", "auto"]].concat());
    assert_eq!(place.logged("run", key).len(), 1);
}

/// The newest whole checkpoint in `folder`.
fn newest_in(folder: &Path) -> Result<Option<SavedStep>, TrainError> {
    newest(folder, MODEL)
}

/// Saves checkpoints in `KILLED_SAVER` without end; nothing without that variable.
#[test]
fn child_that_saves_without_end() {
    let Some(folder) = std::env::var_os("KILLED_SAVER").map(PathBuf::from) else {
        return;
    };
    // It ends with the test that started it, however that ends.
    // SAFETY: sets a flag of this process.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    tch::set_num_threads(1);
    let config = TrainConfig::default();
    let weights = WeightsConfig {
        init_from: Some(folder.join("start.safetensors")),
        ..WeightsConfig::default()
    };
    let start = InitialModel::open(&weights, None, TextTraining::Frozen).expect("a start");
    let (state, frozen) = start.load(&config, Device::Cpu).expect("a start");
    let samples = Samples::read(&folder.join("tokens.safetensors")).expect("samples");
    let data = RunData {
        train: TokenLoader::new(samples, 0, 0.0).expect("a loader"),
        validation: None,
    };
    let speed = Speed {
        flops_per_image: 1.0,
        peak: 1.0,
    };
    let task = DiffusionTask::new(&config, start.model(), frozen, data, speed, Device::Cpu);
    let place = RunFolder::open(&folder.join("run"), DiffusionTask::MEASURE).expect("a folder");
    let mut settings = config.settings();
    settings.checkpoint = CheckpointConfig { every: 1, keep: 2 };
    let mut run = Run::new(settings, place, Ranks::alone(), state, task).expect("a run");
    if let Some(saved) = newest_in(&run.folder.path).expect("a readable folder") {
        run.restore(&saved.path).expect("a whole checkpoint");
    }
    loop {
        run.state.step += 1;
        run.save(None, false).expect("a saved checkpoint");
    }
}

#[test]
fn the_last_checkpoint_survives_two_hundred_kills() {
    std::thread::scope(|scope| {
        for lane in 1..=2 {
            scope.spawn(move || survive_kills(100, lane * 88_172_645_463_325_252));
        }
    });
}

fn survive_kills(kills: usize, mut generator: u64) {
    let folder = TempDir::new().expect("a temporary folder");
    let config = model("{kind: unconditional}", "");
    write_model(&folder.path().join("start.safetensors"), &config);
    write_tokens(&folder.path().join("tokens.safetensors"), 4);
    let run = folder.path().join("run");
    let exe = std::env::current_exe().expect("this test");
    let mut last = 0;
    let steps = || saved_steps(&run).ok().and_then(|s| Some(s.last()?.step));
    for kill in 0..kills {
        let mut child = Command::new(&exe)
            .args([
                "--exact",
                "train::resume::child_that_saves_without_end",
                "--nocapture",
            ])
            .env("KILLED_SAVER", folder.path())
            .env("OMP_NUM_THREADS", "1")
            .stdout(Stdio::null())
            .spawn()
            .expect("this test starts again");
        wait_for(&mut child, "newer checkpoint", || {
            steps().unwrap_or(0) > last
        });
        // xorshift: somewhere in the next saves, which take milliseconds.
        generator ^= generator << 13;
        generator ^= generator >> 7;
        generator ^= generator << 17;
        std::thread::sleep(Duration::from_micros(generator % 20_000));
        child.kill().expect("a running child");
        let _ = child.wait();
        let saved = newest_in(&run).expect("a readable folder");
        let saved = saved.unwrap_or_else(|| panic!("no checkpoint after kill {kill}"));
        assert_eq!(
            Some(saved.step),
            steps(),
            "the newest is damaged (kill {kill})"
        );
        assert!(
            saved.step > last,
            "kill {kill}: {} after {last}",
            saved.step
        );
        last = saved.step;
    }
    // It is a model file.
    let saved = newest_in(&run)
        .expect("a readable folder")
        .expect("a checkpoint");
    let file = saved.path.join("model.safetensors");
    let model = Checkpoint::open(&file, &OpenOptions::default()).expect("a model file");
    Pipeline::load(&model, Device::Cpu, Precision::F32).expect("a whole model");
}
