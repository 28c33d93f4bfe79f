//! What surrounds the program: the home folder, closed pipes, signals, memory and disks that
//! run out, and arguments that look like something else.

use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::running::{
    changed, command, files, full_after, hangup, native_model, refused, s, succeed, succeeded, text,
};

fn emoji() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints/emoji.safetensors");
    s(&path).to_string()
}

/// An experiment over the bundled model and two pictures.
fn experiment(folder: &Path) {
    std::fs::create_dir(folder.join("data")).unwrap();
    for (name, colour) in [("red", [255, 0, 0]), ("blue", [0, 0, 255])] {
        let picture = image::RgbImage::from_pixel(16, 16, image::Rgb(colour));
        picture
            .save(folder.join(format!("data/{name}.png")))
            .unwrap();
        std::fs::write(folder.join(format!("data/{name}.txt")), name).unwrap();
    }
    let yaml = format!(
        "weights: {{init_from: {}}}\ndata: {{train: data, drop_rate: 0.1}}\ntrain:\n  \
         {{folder: run, steps: 4, batch_size: 1, accumulation: 1, checkpoint: {{every: 1000000}}, \
         validation: {{every: 0}}, log_every: 1}}\n",
        emoji()
    );
    std::fs::write(folder.join("experiment.yaml"), yaml).unwrap();
}

#[test]
fn paths_may_begin_at_home_wherever_they_are_given() {
    let (folder, model) = native_model();
    let at = folder.path();
    let home = at.join("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::copy(&model, home.join("m.safetensors")).unwrap();
    let at_home = |args: &[&str]| {
        let mut command = command(at, args);
        command.env("HOME", &home);
        command
    };
    succeeded(&mut at_home(&[
        "sample",
        "--checkpoint=~/m.safetensors",
        "--steps=2",
        "--out=~/pictures",
        "a",
    ]));
    assert_eq!(files(&home.join("pictures")), ["0-a.png"]);
    succeeded(&mut at_home(&["inspect", "~/m.safetensors"]));
    succeeded(&mut at_home(&[
        "tokenize",
        "~/pictures/0-a.png",
        "--checkpoint",
        "~/m.safetensors",
        "--out=~/t.jsonl",
    ]));
    assert!(home.join("t.jsonl").exists());

    experiment(at);
    let yaml = std::fs::read_to_string(at.join("experiment.yaml")).unwrap();
    let yaml = changed(&yaml, "train: data", "train: ~/data");
    std::fs::write(home.join("e.yaml"), yaml).unwrap();
    let printed = succeeded(&mut at_home(&[
        "train",
        "~/e.yaml",
        "train.folder=~/run",
        "--print-config",
    ]));
    for path in ["data", "run"] {
        let path = home.join(path).display().to_string();
        assert!(printed.contains(&path), "{path} not in {printed}");
    }
    assert!(!at.join("~").exists() && !printed.contains('~'));
}

#[test]
fn a_value_may_begin_with_a_minus_sign_and_is_answered_by_its_option() {
    let (folder, model) = native_model();
    let at = folder.path();
    let sample = |args: &[&str], words: &[&str]| {
        let mut command = command(
            at,
            &["sample", "--checkpoint", s(&model), "--steps", "2", "a"],
        );
        command.args(args);
        refused(&mut command, words);
    };
    sample(&["--seed", "-1"], &["--seed", "-1"]);
    sample(&["--count", "-1"], &["--count", "-1"]);
    sample(&["--top-k", "-1"], &["top-k", "-1"]);
    sample(&["--purity", "-0.5"], &["purity", "-0.5"]);
    sample(&["--truncation", "-1"], &["truncation", "-1"]);
    sample(&["--guidance", "-1e9"], &["guidance", "-1000000000"]);
    // Away from the prompt: unusual, and possible.
    let picture = succeed(
        at,
        &[
            "sample",
            "--checkpoint",
            s(&model),
            "--steps",
            "2",
            "--guidance",
            "-1",
            "a",
        ],
    );
    assert_eq!(picture.lines().count(), 1);
}

/// A reader that stops reading is success, whatever it read: standard output or error.
#[test]
fn closed_pipes_stop_no_work() {
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    experiment(at);
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    let code = |args: &[&str]| {
        let mut command = command(at, args);
        command
            .stdout(closed())
            .stderr(closed())
            .status()
            .unwrap()
            .code()
    };
    let emoji = emoji();
    assert_eq!(code(&["inspect", &emoji]), Some(0));
    assert_eq!(code(&["completions", "bash"]), Some(0));
    assert_eq!(
        code(&["train", "experiment.yaml", "--print-config"]),
        Some(0)
    );
    assert_eq!(code(&["train", "experiment.yaml"]), Some(0));
    assert!(at.join("run/step-00000004").is_dir());
    assert_eq!(
        code(&["sample", "--checkpoint", &emoji, "--steps=2", "a", "b"]),
        Some(0)
    );
    assert_eq!(files(&at.join("outputs")), ["0-a.png", "1-b.png"]);
    assert_eq!(
        code(&["tokenize", "data", "--checkpoint", &emoji, "--out", "t"]),
        Some(0)
    );
}

fn started(command: &mut Command) -> Child {
    command
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until the child said something with `word` in it.
fn heard(child: &mut Child, word: &str) {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let found = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(word)));
    assert!(found.is_some(), "{word} was never said");
    // Goes on reading, so that the child can go on speaking.
    std::thread::spawn(move || lines.for_each(drop));
}

fn send(child: &Child, signal: i32) {
    // SAFETY: a signal to a child that was not waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

#[test]
fn the_end_of_the_terminal_stops_a_run_like_any_signal_unless_it_was_ignored() {
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    experiment(at);
    let train = |run: &str| {
        let override_ = format!("train.folder={run}");
        let mut command = command(at, &["train", "experiment.yaml", "train.steps=1000000"]);
        command.arg(override_);
        command
    };
    let mut child = started(hangup(&mut train("hung-up"), libc::SIG_DFL));
    heard(&mut child, "memory");
    std::thread::sleep(Duration::from_millis(300));
    send(&child, libc::SIGHUP);
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let kept = files(&at.join("hung-up"));
    assert!(
        kept.iter().any(|name| name.starts_with("step-")),
        "{kept:?}"
    );

    let mut ignoring = train("nohup");
    let mut child = started(hangup(&mut ignoring, libc::SIG_IGN));
    heard(&mut child, "memory");
    std::thread::sleep(Duration::from_millis(300));
    send(&child, libc::SIGHUP);
    std::thread::sleep(Duration::from_millis(700));
    assert!(child.try_wait().unwrap().is_none());
    send(&child, libc::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

/// Runs with `kilobytes` of address space.
fn with_memory(kilobytes: u64, at: &Path, args: &[&str]) -> std::process::Output {
    let mut command = command(at, args);
    // SAFETY: between fork and exec; sets a limit.
    unsafe {
        command.pre_exec(move || {
            let bytes = kilobytes * 1024;
            let limit = libc::rlimit {
                rlim_cur: bytes,
                rlim_max: bytes,
            };
            libc::setrlimit(libc::RLIMIT_AS, &limit);
            Ok(())
        })
    };
    command
        .env("OMP_NUM_THREADS", "1")
        .env_remove("RUST_BACKTRACE")
        .output()
        .unwrap()
}

#[test]
fn memory_that_runs_out_is_told_with_the_setting_to_lower() {
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    experiment(at);
    let args = [
        "train",
        "experiment.yaml",
        "train.batch_size=64",
        "--threads=1",
    ];
    let ended = with_memory(1_100_000, at, &args);
    let message = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{message}");
    for word in [
        "error: not enough memory while",
        "MiB more were asked for",
        "lower train.batch_size",
    ] {
        assert!(message.contains(word), "{message}");
    }
    for word in ["unwrap", "frame #", "panicked", "src/"] {
        assert!(!message.contains(word), "{message}");
    }
}

/// Whatever cannot be had, and wherever: an error, never an abort.
#[test]
fn memory_that_runs_out_aborts_nothing() {
    let folder = TempDir::new().unwrap();
    let emoji = emoji();
    let args = [
        "sample",
        "--checkpoint",
        &emoji,
        "--steps=2",
        "--overwrite",
        "--threads=1",
        "a",
    ];
    // The loader and libtorch's own start end as they like: 127, or an abort.
    let least = (2..40).map(|n| n * 25_000).find(|&kilobytes| {
        let ended = with_memory(kilobytes, folder.path(), &["completions", "bash"]);
        matches!(ended.status.code(), Some(0 | 2))
    });
    let least = least.expect("less than a gigabyte to start");
    let mut failed = 0;
    for kilobytes in (0..8).map(|n| least + n * 20_000) {
        let ended = with_memory(kilobytes, folder.path(), &args);
        let message = text(&ended.stderr);
        assert!(ended.status.signal().is_none(), "{kilobytes}: {message}");
        if ended.status.success() {
            break;
        }
        failed += 1;
        assert_eq!(ended.status.code(), Some(2), "{kilobytes}: {message}");
        assert!(
            message.to_lowercase().contains("memory"),
            "{kilobytes}: {message}"
        );
    }
    assert!(failed > 0);
}

/// A picture, a cache, a model that a full disk has no room for is named, and nothing is left
/// of it; what was there before stays.
#[test]
fn a_full_disk_is_told_with_the_file_and_leaves_nothing_half_written() {
    let (folder, model) = native_model();
    let at = folder.path();
    let full = |room: u64, args: &[&str], words: &[&str]| {
        let mut command = command(at, args);
        full_after(&mut command, &at.join("full"), room);
        refused(&mut command, words);
    };
    std::fs::create_dir(at.join("full")).unwrap();
    let space = "No space left on device";
    let sample = [
        "sample",
        "--checkpoint",
        s(&model),
        "--steps=2",
        "--out=full",
        "a",
        "b",
    ];
    full(100, &sample, &["full/0-a.png", space]);
    assert!(files(&at.join("full")).is_empty());
    full(
        5_000,
        &["convert", s(&model), "full/m.safetensors"],
        &["full/m.safetensors", space],
    );
    full(
        5_000,
        &["convert", s(&model), "full/m.pth"],
        &["full/m.pth", space],
    );
    full(
        50_000,
        &["convert", s(&model), "full/d", "--to=diffusers"],
        &["full/d", space],
    );
    experiment(at);
    let train = ["train", "experiment.yaml", "train.folder=full/run"];
    for room in [1_000_000, 22_000_000] {
        full(
            room,
            &train,
            &["full/run/step-00000004", ".safetensors", space],
        );
    }
    std::fs::remove_dir_all(at.join("full/run")).unwrap();
    assert!(files(&at.join("full")).is_empty());
    succeed(at, &["convert", s(&model), "full/m.safetensors"]);
    let before = std::fs::read(at.join("full/m.safetensors")).unwrap();
    let again = ["convert", s(&model), "full/m.safetensors", "--overwrite"];
    full(5_000, &again, &["full/m.safetensors", space]);
    assert_eq!(files(&at.join("full")), ["m.safetensors"]);
    assert_eq!(
        std::fs::read(at.join("full/m.safetensors")).unwrap(),
        before
    );

    // The standard output is named too.
    let device = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut inspect = command(at, &["inspect", s(&model)]);
    let ended = inspect.stdout(device).output().unwrap();
    assert_eq!(ended.status.code(), Some(2));
    assert!(
        text(&ended.stderr).contains("standard output: No space left"),
        "{}",
        text(&ended.stderr)
    );
}

#[test]
fn signals_stop_sampling_and_the_pictures_made_stay() {
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    let emoji = emoji();
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let out = format!("out-{signal}");
        let args = [
            "sample",
            "--checkpoint",
            &emoji,
            "--steps=2",
            "--count=5000",
            "--out",
            &out,
        ];
        let mut child = hangup(&mut command(at, &args), libc::SIG_DFL)
            .arg("a")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut named = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(named.next().unwrap().unwrap(), format!("{out}/0-a.png"));
        std::thread::spawn(move || named.for_each(drop));
        send(&child, signal);
        let ended = child.wait_with_output().unwrap();
        let said = text(&ended.stderr);
        assert_eq!(ended.status.code(), Some(3), "{said}");
        let made = files(&at.join(&out));
        let expected = format!(
            "stopped by a signal: {} of 5000 pictures were made",
            made.len()
        );
        assert!(said.contains(&expected), "{expected}: {said}");
        for name in made {
            image::open(at.join(&out).join(name)).unwrap();
        }
    }
}

#[test]
fn two_processes_may_fill_one_folder_but_not_make_one_picture() {
    let folder = TempDir::new().unwrap();
    let at = folder.path();
    let emoji = emoji();
    let sample = |args: &[&str]| {
        let mut command = command(at, &["sample", "--checkpoint", &emoji, "--steps=1"]);
        command
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let pair = [sample(&["--count=9", "a"]), sample(&["--count=9", "b"])];
    for child in pair {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    assert_eq!(files(&at.join("outputs")).len(), 18);

    // A picture that another process makes while this one is at work.
    let child = sample(&["--count=5000", "c"]);
    while !at.join("outputs/0-c.png").exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    let taken = at.join("outputs/4999-c.png");
    std::fs::write(&taken, "").unwrap();
    for n in 20..60 {
        std::fs::write(at.join(format!("outputs/{n}-c.png")), "").unwrap();
    }
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(2));
    assert!(text(&ended.stderr).contains("-c.png: exists already"));
    assert_eq!(std::fs::read(taken).unwrap(), b"");
}

#[test]
fn numbers_are_answered_by_their_option_at_both_ends() {
    let (folder, model) = native_model();
    let at = folder.path();
    std::fs::write(at.join("prompts.txt"), "a\nb\n").unwrap();
    let refuse = |args: &[&str], words: &[&str]| {
        let sample = ["sample", "--checkpoint", s(&model), "--prompts=prompts.txt"];
        let mut command = command(at, &sample);
        command.args(args);
        refused(&mut command, words);
    };
    let largest = "18446744073709551615";
    refuse(&["--seed=-1"], &["--seed", "0 to 18446744073709551615"]);
    refuse(
        &["--seed", largest, "--steps=1"],
        &["seed is 18446744073709551615"],
    );
    refuse(
        &["--seed=18446744073709551616"],
        &["--seed", "expected a whole number"],
    );
    refuse(&["--count=0"], &["--count"]);
    refuse(&["--count=50001"], &["--count 50001 makes 100002 pictures"]);
    refuse(&["--count=4294967296"], &["--count"]);
    refuse(&["--steps=0"], &["steps", "1 to"]);
    refuse(&["--steps=1000000"], &["steps", "1000000"]);
    refuse(&["--steps", largest], &["--steps"]);
    refuse(&["--top-k=0"], &["top-k is 0"]);
    refuse(
        &["--top-k=9223372036854775807"],
        &["top-k is 9223372036854775807"],
    );
    refuse(&["--tokens-per-step=0"], &["--tokens-per-step", "1 to"]);
    refuse(&["--tokens-per-step", largest], &["--tokens-per-step"]);
    refuse(&["--threads=0"], &["--threads", "1..=1024"]);
    refuse(&["--threads=1025"], &["--threads", "1..=1024"]);
    refuse(&["--batch-size=0"], &["--batch-size"]);
    refuse(&["--guidance=1e300"], &["guidance"]);
    refuse(&["--guidance=nan"], &["guidance"]);
    refuse(&["--purity=inf"], &["purity"]);
    assert_eq!(files(at), ["model.safetensors", "prompts.txt"]);

    // The largest that are possible.
    let last = "--seed=18446744073709551613";
    let args = ["--steps=1", "--threads=2", last, "--batch-size=4294967295"];
    let mut command = command(at, &["sample", "--checkpoint", s(&model), "a", "--count=2"]);
    succeeded(command.args(args).arg("--tokens-per-step=4294967295"));
    let names = ["18446744073709551613-a.png", "18446744073709551614-a.png"];
    assert_eq!(files(&at.join("outputs")), names);
}
