//! Several processes that divide every step among them.

use std::net::TcpListener;
use std::process::Child;
use std::time::Instant;

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

/// A run of three processes of which one is killed starts anew from the last checkpoint, and
/// ends with the bytes of one that nothing befell. On the way all have the same weights.
#[test]
fn a_killed_process_is_made_up_for() {
    let place = Workplace::new(&text_model(), 10);
    let three = ["--nproc-per-node", "3", "--max-restarts", "1"];
    let steps = ["train.steps=120", "train.checkpoint={every: 20, keep: 2}"];
    let three = [&SIX[..], &three[..], &steps[..]].concat();
    let mut whole = place.command(&[&three[..], &["train.folder=whole"]].concat());
    let whole = whole.env("RUST_LOG", "debug").output().expect("an end");
    let message = String::from_utf8_lossy(&whole.stderr);
    assert!(whole.status.success(), "{message}");
    let sums = |step: u64| -> Vec<&str> {
        let mark = format!("the weights of step {step} have the checksum ");
        message
            .split(&mark)
            .skip(1)
            .map(|rest| &rest[..16])
            .collect()
    };
    let (early, late) = (sums(20), sums(120));
    assert_eq!(early.len(), 3, "{message}");
    assert!(early.iter().all(|sum| *sum == early[0]), "{early:?}");
    assert!(late.iter().all(|sum| *sum == late[0]), "{late:?}");
    assert_ne!(early[0], late[0]);

    let killed = [&three[..], &["train.folder=killed"]].concat();
    let mut child = place.command(&killed).spawn().expect("the binary starts");
    wait_for(&mut child, "checkpoint", || {
        place.path("killed/step-00000020").exists()
    });
    signal_rank(&child, 2, libc::SIGKILL);
    let output = child.wait_with_output().expect("an end");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    for words in [
        "rank 2 of 3 failed",
        "SIGKILL",
        "restart 1 of 1",
        "continued",
    ] {
        assert!(message.contains(words), "{words:?} not in: {message}");
    }
    place.assert_same("whole/last", "killed/last");
}

/// The children of the launcher `child`, by rank.
fn ranks_of(child: &Child) -> Vec<libc::pid_t> {
    let id = child.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    let children = children.expect("the launcher's children");
    let ids = children.split_whitespace();
    ids.map(|id| id.parse().expect("a process")).collect()
}

fn signal_rank(child: &Child, rank: usize, number: libc::c_int) {
    // SAFETY: sends a signal to a process that the launcher, which is ours, waits for.
    unsafe { libc::kill(ranks_of(child)[rank], number) };
}

/// Starts a run that does not end by itself, and waits for its first steps.
fn long_run(place: &Workplace, folder: &str, more: &[&str]) -> Child {
    let folder_key = format!("train.folder={folder}");
    let long = [&["train.steps=1000000", &folder_key], more].concat();
    let mut child = place.command(&long).spawn().expect("the binary starts");
    wait_for_steps(place, folder, &mut child);
    child
}

fn wait_for_steps(place: &Workplace, folder: &str, child: &mut Child) {
    let log = place.path(&format!("{folder}/log.jsonl"));
    wait_for(child, "step", || {
        std::fs::metadata(&log).is_ok_and(|file| file.len() > 0)
    });
}

/// Exit code and standard error of a process that must end by itself within 20 seconds: the
/// 15 that are promised, and time for a machine under load.
fn ended(child: Child) -> (Option<i32>, String) {
    let since = Instant::now();
    let output = child.wait_with_output().expect("an end");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(since.elapsed().as_secs() < 20, "late: {message}");
    (output.status.code(), message)
}

/// When a process is killed or halted, the others end, and one message names it and says why.
#[test]
fn the_others_end_with_a_process_that_fails() {
    let place = Workplace::new(&text_model(), 10);
    for (number, cause) in [(libc::SIGKILL, "SIGKILL"), (libc::SIGSTOP, "SIGSTOP")] {
        let folder = format!("of{number}");
        let child = long_run(&place, &folder, &["--nproc-per-node", "2"]);
        signal_rank(&child, 1, number);
        let (code, message) = ended(child);
        assert_eq!(code, Some(2), "{message}");
        assert_eq!(
            message.matches("rank 1 of 2 failed").count(),
            1,
            "{message}"
        );
        assert!(message.contains(cause), "{cause:?} not in: {message}");
    }
}

/// The store's host dies: the launcher, which the processes outlive to write a checkpoint.
#[test]
fn a_run_whose_launcher_dies_leaves_a_checkpoint() {
    let place = Workplace::new(&text_model(), 10);
    let keep = "train.checkpoint={every: 1000000, keep: 2}";
    let child = long_run(&place, "run", &["--nproc-per-node", "2", keep]);
    let ranks = ranks_of(&child);
    signal(&child, libc::SIGKILL);
    // Their standard error ends with them.
    let (_, message) = ended(child);
    assert!(message.contains("wrote run/step-"), "{message}");
    let alive = |id: &libc::pid_t| {
        let status = std::fs::read_to_string(format!("/proc/{id}/stat"));
        status.is_ok_and(|status| !status.contains(") Z "))
    };
    assert!(!ranks.iter().any(alive), "{message}");
}

/// A port that is free now.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener
        .local_addr()
        .expect("an address")
        .port()
        .to_string()
}

/// Two processes that another launcher than ours starts, by its variables.
fn started_by(
    place: &Workplace,
    folder: &str,
    variables: impl Fn(usize) -> Vec<(&'static str, String)>,
) -> [Child; 2] {
    let folder = format!("train.folder={folder}");
    [0, 1].map(|rank| {
        let mut command = place.command(&["train.steps=1000000", &folder]);
        command.envs(variables(rank));
        command.spawn().expect("the binary starts")
    })
}

fn slurm(rank: usize, job: &str) -> Vec<(&'static str, String)> {
    let variables = [
        ("SLURM_PROCID", rank.to_string()),
        ("SLURM_LOCALID", rank.to_string()),
        ("SLURM_NTASKS", "2".into()),
        ("SLURM_JOB_ID", job.into()),
        ("SLURM_NODELIST", "localhost,other[5-9]".into()),
    ];
    variables.to_vec()
}

/// srun's tasks find each other; a signal to one of them ends all at one step, with one
/// checkpoint.
#[test]
fn tasks_of_srun_stop_together() {
    let place = Workplace::new(&text_model(), 10);
    // The port follows from the job's number.
    let job = format!("7{:04}", std::process::id() % 10_000);
    let [mut first, second] = started_by(&place, "run", |rank| slurm(rank, &job));
    wait_for_steps(&place, "run", &mut first);
    signal(&second, libc::SIGTERM);
    let (code, message) = ended(first);
    assert_eq!(code, Some(3), "{message}");
    let launcher = "launcher     srun (SLURM_PROCID, SLURM_NTASKS): rank 0 of 2, waits for rank 1";
    assert!(message.contains(launcher), "{message}");
    assert_eq!(ended(second).0, Some(3));
}

/// A task of srun that is halted is named by the others; with the first one the store goes.
#[test]
fn tasks_of_srun_name_the_one_that_fails() {
    let place = Workplace::new(&text_model(), 10);
    let job = |n: u32| format!("{:04}", (std::process::id() + n) % 10_000);
    let [mut first, second] = started_by(&place, "halted", |rank| slurm(rank, &job(1)));
    let [mut dies, other] = started_by(&place, "died", |rank| slurm(rank, &job(2)));
    wait_for_steps(&place, "halted", &mut first);
    wait_for_steps(&place, "died", &mut dies);
    signal(&second, libc::SIGSTOP);
    signal(&dies, libc::SIGKILL);
    let (code, message) = ended(other);
    assert_eq!(code, Some(2), "{message}");
    assert!(message.contains("rank 0, which held it"), "{message}");
    let (code, message) = ended(first);
    assert_eq!(code, Some(2), "{message}");
    let named = "rank 1 of 2 failed: it has not been heard of for 10 s";
    assert!(message.contains(named), "{message}");
    signal(&second, libc::SIGKILL);
    ended(second);
    dies.wait().expect("an end");
}

/// mpirun's processes find each other where an address is given.
#[test]
fn processes_of_mpirun_find_each_other() {
    let place = Workplace::new(&text_model(), 10);
    let port = free_port();
    let started = started_by(&place, "run", |rank| {
        let variables = [
            ("OMPI_COMM_WORLD_RANK", rank.to_string()),
            ("OMPI_COMM_WORLD_SIZE", "2".into()),
            ("OMPI_COMM_WORLD_LOCAL_RANK", rank.to_string()),
            ("MASTER_ADDR", "localhost".into()),
            ("MASTER_PORT", port.clone()),
        ];
        variables.to_vec()
    });
    let [mut first, second] = started;
    wait_for_steps(&place, "run", &mut first);
    // Both get it, and one twice, as from a launcher and a scheduler.
    signal(&first, libc::SIGTERM);
    signal(&second, libc::SIGTERM);
    signal(&second, libc::SIGINT);
    for child in [first, second] {
        let (code, message) = ended(child);
        assert_eq!(code, Some(3), "{message}");
    }
}

/// Kubeflow's variables make a launcher of each pod: two of them are one run.
#[test]
fn pods_of_kubeflow_train_together() {
    let place = Workplace::new(&text_model(), 10);
    let steps = [
        "train.steps=10",
        "train.batch_size=3",
        "train.accumulation=1",
    ];
    place.succeed(&[&steps[..], &["train.folder=one", "--nproc-per-node", "3"]].concat());
    let port = free_port();
    let pods = ["2", "1"].into_iter().enumerate().map(|(node, processes)| {
        let mut command = place.command(&[&steps[..], &["train.folder=pods"]].concat());
        command.envs([
            ("PET_NNODES", "2"),
            ("PET_NODE_RANK", &node.to_string()),
            ("PET_NPROC_PER_NODE", processes),
            ("PET_MASTER_ADDR", "localhost"),
            ("PET_MASTER_PORT", &port),
        ]);
        command.spawn().expect("the binary starts")
    });
    for pod in pods.collect::<Vec<_>>() {
        let (code, message) = ended(pod);
        assert_eq!(code, Some(0), "{message}");
    }
    place.assert_same("one/last", "pods/last");
}

/// Variables and flags that make no sense are refused by name.
#[test]
fn places_without_sense_are_refused() {
    let place = Workplace::new(&text_model(), 10);
    let torch = [
        ("RANK", "0"),
        ("WORLD_SIZE", "2"),
        ("MASTER_ADDR", "localhost"),
        ("MASTER_PORT", "29500"),
    ];
    let cases: [(&[(&str, &str)], &str); 14] = [
        (
            &[("RANK", "2")],
            "RANK is \"2\", expected a number below WORLD_SIZE",
        ),
        (&[("RANK", "one")], "RANK is \"one\", expected a number"),
        (&[("RANK", "-1")], "RANK is \"-1\", expected a number"),
        (
            &[("WORLD_SIZE", "0")],
            "WORLD_SIZE is \"0\", expected a number",
        ),
        (&[("WORLD_SIZE", "")], "WORLD_SIZE is not set, but RANK is"),
        (&[("RANK", "")], "RANK is not set, but WORLD_SIZE is"),
        (&[("MASTER_PORT", "65536")], "MASTER_PORT is \"65536\""),
        (&[("MASTER_PORT", "0")], "MASTER_PORT is \"0\""),
        (&[("MASTER_ADDR", "")], "MASTER_ADDR is not set"),
        (&[("LOCAL_RANK", "x")], "LOCAL_RANK is \"x\""),
        (
            &[("LOCAL_RANK", "3"), ("LOCAL_WORLD_SIZE", "2")],
            "LOCAL_RANK is \"3\", expected a number below LOCAL_WORLD_SIZE",
        ),
        (
            &[
                ("RANK", ""),
                ("WORLD_SIZE", ""),
                ("PET_NPROC_PER_NODE", "many"),
            ],
            "PET_NPROC_PER_NODE is \"many\"",
        ),
        (
            &[("RANK", ""), ("WORLD_SIZE", ""), ("PET_NNODES", "1:4")],
            "PET_NNODES is \"1:4\"",
        ),
        (
            &[("RANK", ""), ("WORLD_SIZE", ""), ("PET_NNODES", "2")],
            "--node-rank",
        ),
    ];
    for (variables, words) in cases {
        let mut command = place.command(&[]);
        command.envs(torch).envs(variables.iter().copied());
        let output = command.output().expect("the binary starts");
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{variables:?}: {message}");
        assert!(message.contains(words), "{words:?} not in: {message}");
    }
    for (flags, words) in [
        (&["--nproc-per-node", "0"][..], "--nproc-per-node"),
        (
            &["--nnodes", "2", "--master-addr", "a"],
            "--node-rank is not set",
        ),
        (
            &["--nnodes", "2", "--node-rank", "1"],
            "--master-addr is not set",
        ),
        (&["--nnodes", "2", "--node-rank", "2"], "--node-rank"),
        (&["--master-port", "0"], "--master-port"),
    ] {
        place.refuse(flags, &[words]);
    }
    assert!(!place.path("run").exists());
}
