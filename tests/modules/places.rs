//! Which process a launcher's environment makes of this one.

use vqdiffusion::ranks::{Launcher, Place, RanksError};

fn find(variables: &[(&str, &str)]) -> Result<Option<Place>, RanksError> {
    let of = |name: &str| {
        let found = variables.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| value.to_string())
    };
    Place::find(&of)
}

fn place(variables: &[(&str, &str)]) -> Place {
    let found = find(variables).unwrap_or_else(|e| panic!("{variables:?}: {e}"));
    found.unwrap_or_else(|| panic!("{variables:?}: alone"))
}

const SLURM: [(&str, &str); 5] = [
    ("SLURM_PROCID", "5"),
    ("SLURM_NTASKS", "8"),
    ("SLURM_LOCALID", "1"),
    ("SLURM_NODEID", "2"),
    ("SLURM_JOB_ID", "1234567"),
];

/// Rank 0 is on the first machine of SLURM's list, in all forms that the list has.
#[test]
fn the_first_machine_of_slurms_lists() {
    for (list, first) in [
        ("n5", "n5"),
        ("m3,n5", "m3"),
        ("n[5-9,12],m3", "n5"),
        ("n[12,5-9]", "n12"),
        ("n[005-100]", "n005"),
        ("rack[2-3]n[07,9]", "rack2n07"),
        ("gpu-[1-2].cluster.org,login", "gpu-1.cluster.org"),
        ("a,b[1-2]", "a"),
        ("10.0.0.[3-4]", "10.0.0.3"),
    ] {
        let found = place(&[&SLURM[..], &[("SLURM_JOB_NODELIST", list)]].concat());
        assert_eq!(found.host, first, "{list}");
    }
    for list in ["n[5-9", "n[]", "n[a-b]", ",", "[", "n 5"] {
        let error = find(&[&SLURM[..], &[("SLURM_NODELIST", list)]].concat());
        let error = error.expect_err(list).to_string();
        assert!(error.starts_with("SLURM_NODELIST is "), "{error}");
    }
}

#[test]
fn what_srun_says() {
    let list = [("SLURM_NODELIST", "n[5-9]")];
    let found = place(&[&SLURM[..], &list].concat());
    let expected = Place {
        launcher: Launcher::Slurm,
        rank: 5,
        count: 8,
        local_rank: 1,
        node: 2,
        host: "n5".into(),
        port: 19_567,
        held: false,
        attempt: 0,
    };
    assert_eq!(found, expected);
    // The step's own machines come first, and what the user says before them.
    let step = [&SLURM[..], &list, &[("SLURM_STEP_NODELIST", "n[8-9]")]].concat();
    assert_eq!(place(&step).host, "n8");
    let named = [("MASTER_ADDR", "m"), ("MASTER_PORT", "77")];
    let found = place(&[&step[..], &named].concat());
    assert_eq!((found.host.as_str(), found.port), ("m", 77));
    let short = [("SLURM_JOB_ID", "42")];
    assert_eq!(place(&[&short[..], &SLURM, &list].concat()).port, 15_042);

    // A shell in an allocation is no task of srun, nor is a job of one.
    for alone in [
        ("SLURM_JOB_NAME", "bash"),
        ("SLURM_JOB_NAME", "interactive"),
        ("SLURM_NTASKS", "1"),
    ] {
        let variables = [&[("SLURM_PROCID", "0"), alone], &SLURM[1..], &list].concat();
        assert_eq!(find(&variables).expect("a place"), None, "{alone:?}");
    }
    for (bad, words) in [
        (("SLURM_PROCID", "8"), "SLURM_PROCID is \"8\""),
        (("SLURM_NTASKS", "many"), "SLURM_NTASKS is \"many\""),
        (("SLURM_JOB_ID", "x"), "SLURM_JOB_ID is \"x\""),
        (("SLURM_NODELIST", ""), "SLURM_NODELIST is not set"),
    ] {
        let error = find(&[&[bad][..], &SLURM, &list].concat());
        let error = error.expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
}

/// torchrun under srun sets both kinds of variables, and mpirun in an allocation too.
#[test]
fn the_innermost_launcher_counts() {
    let torch = [
        ("RANK", "1"),
        ("WORLD_SIZE", "2"),
        ("LOCAL_RANK", "1"),
        ("MASTER_ADDR", "h"),
        ("MASTER_PORT", "1"),
    ];
    let run = [
        ("TORCHELASTIC_RUN_ID", "none"),
        ("TORCHELASTIC_USE_AGENT_STORE", "True"),
        ("TORCHELASTIC_RESTART_COUNT", "3"),
    ];
    let found = place(&[&torch[..], &run, &SLURM].concat());
    assert_eq!(found.launcher, Launcher::Torchrun);
    assert_eq!((found.rank, found.held, found.attempt), (1, true, 3));

    // A pod of PyTorchJob has no local rank.
    let pod = [&torch[..2], &torch[3..]].concat();
    let found = place(&pod);
    assert_eq!((found.launcher, found.local_rank), (Launcher::Variables, 0));
    assert!(!found.held);

    let mpi = [
        ("OMPI_COMM_WORLD_RANK", "2"),
        ("OMPI_COMM_WORLD_SIZE", "4"),
        ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
    ];
    let batch = [("SLURM_PROCID", "0"), ("SLURM_NODELIST", "n[5-9]")];
    let found = place(&[&mpi[..], &batch, &SLURM[1..]].concat());
    assert_eq!(found.launcher, Launcher::OpenMpi);
    assert_eq!((found.rank, found.local_rank), (2, 1));
    assert_eq!((found.host.as_str(), found.port), ("n5", 29_500));
    let error = find(&mpi).expect_err("no address").to_string();
    assert!(error.starts_with("MASTER_ADDR is not set"), "{error}");

    let pmi = [("PMI_RANK", "1"), ("PMI_SIZE", "2"), ("MASTER_ADDR", "h")];
    assert_eq!(place(&pmi).launcher, Launcher::Pmi);
    for alone in [&[][..], &[("PMI_RANK", "0"), ("PMI_SIZE", "1")]] {
        assert_eq!(find(alone).expect("a place"), None);
    }
}
