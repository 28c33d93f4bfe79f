//! Reads checkpoints that PyTorch wrote and compares with what PyTorch itself reads from them.
//! `generate_checkpoints.py` makes the files and the expected values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use vqdiffusion::checkpoint::pytorch::{CheckpointError, DType, Format, Node, NodeId, TorchFile};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/checkpoints")
        .join(name)
}

fn open(name: &str) -> TorchFile {
    TorchFile::open(file(name)).unwrap_or_else(|e| panic!("{e}"))
}

fn find(checkpoint: &TorchFile, path: &str) -> NodeId {
    let keys = path.split('/').filter(|key| !key.is_empty());
    keys.fold(checkpoint.root(), |node, key| {
        let next = checkpoint.get(node, key);
        next.unwrap_or_else(|| panic!("{}: no {key:?} of {path}", checkpoint.path().display()))
    })
}

fn expected() -> BTreeMap<String, BTreeMap<String, Value>> {
    let text = std::fs::read_to_string(file("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn every_tensor_is_read_as_pytorch_reads_it() {
    let expected = expected();
    assert!(expected.len() >= 25, "only {} files", expected.len());
    for (name, tensors) in &expected {
        let checkpoint = open(name);
        assert!(!tensors.is_empty(), "{name}: no tensors expected");
        for (path, wanted) in tensors {
            let found = checkpoint.tensor(find(&checkpoint, path));
            let tensor = found.unwrap_or_else(|e| panic!("{name}: {path}: {e}"));
            let tensor = tensor.unwrap_or_else(|| panic!("{name}: {path} is no tensor"));
            assert_eq!(wanted["dtype"], tensor.dtype.name(), "{name}: {path}");
            assert_eq!(
                wanted["shape"],
                serde_json::json!(tensor.shape),
                "{name}: {path}"
            );
            let bytes = checkpoint.read_tensor(&tensor);
            let bytes = bytes.unwrap_or_else(|e| panic!("{name}: {path}: {e}"));
            assert_eq!(wanted["bytes"], hex(&bytes), "{name}: {path}");
        }
    }
}

#[test]
fn formats_are_told_by_content() {
    for (name, format) in [
        ("zip.pth", Format::Zip),
        ("legacy.pth", Format::Legacy),
        ("script.pt", Format::TorchScript),
        ("protocol5_legacy.pth", Format::Legacy),
    ] {
        assert_eq!(open(name).format(), format, "{name}");
    }
}

#[test]
fn values_beside_tensors_are_reachable() {
    for name in ["zip.pth", "legacy.pth"] {
        let c = open(name);
        let values = c.pickle();
        assert_eq!(values.as_i64(find(&c, "last_epoch")), Some(7));
        assert_eq!(values.as_i64(find(&c, "last_iter")), Some(12345678901));
        assert_eq!(values.as_f64(find(&c, "lr")), Some(0.25));
        assert_eq!(values.as_bool(find(&c, "flag")), Some(true));
        assert_eq!(values.node(find(&c, "none")), Some(&Node::None));
        let keys: Vec<&str> = c.entries(find(&c, "model")).map(|(key, _)| key).collect();
        assert_eq!(keys.len(), 7);
        assert!(
            keys.iter().all(|key| key.starts_with("module.")),
            "{keys:?}"
        );
        let groups = values.items(find(&c, "optimizer/param_groups"));
        assert_eq!(values.as_f64(c.get(groups[0], "lr").unwrap()), Some(1e-3));
        // Optimizer state is keyed by integers, which string look-ups pass over.
        let state = find(&c, "optimizer/state");
        assert_eq!(c.entries(state).count(), 0);
        let (_, first) = values.pairs(state).next().unwrap();
        assert!(c
            .tensor(c.get(first, "exp_avg").unwrap())
            .unwrap()
            .is_some());
        assert!(c.tensor(c.root()).unwrap().is_none());
    }
}

#[test]
fn every_protocol_gives_the_same_scalars() {
    for protocol in [1, 3, 4, 5] {
        for suffix in ["", "_legacy"] {
            let c = open(&format!("protocol{protocol}{suffix}.pth"));
            let numbers = c.pickle().items(find(&c, "numbers"));
            let integers: Vec<_> = numbers.iter().map(|&id| c.pickle().as_i64(id)).collect();
            let wanted = [0, 255, 65535, -1, 1 << 40].map(Some);
            assert_eq!(integers[..5], wanted);
            assert_eq!(c.pickle().as_f64(numbers[5]), Some(0.5));
            assert_eq!(c.pickle().as_str(numbers[8]), Some("é"));
        }
    }
}

#[test]
fn protocol_0_keeps_its_values_but_has_no_storages() {
    let c = open("protocol0.pth");
    assert_eq!(c.pickle().as_i64(find(&c, "n")), Some(5));
    let message = c.tensor(find(&c, "w")).unwrap_err().to_string();
    assert!(message.contains("protocol 0"), "{message}");
}

#[test]
fn views_share_their_storage_and_read_only_their_part() {
    let c = open("layouts.pth");
    let tensor = |path| c.tensor(find(&c, path)).unwrap().unwrap();
    let (base, view) = (tensor("base"), tensor("view"));
    assert_eq!(base.storage, view.storage);
    assert_eq!((view.offset, view.byte_len()), (8, Some(32)));
    let transposed = tensor("transposed");
    assert_eq!(
        (transposed.shape, transposed.stride),
        (vec![4, 6], vec![1, 4])
    );
    assert_eq!(tensor("scalar").shape, Vec::<usize>::new());
    assert_eq!(tensor("bfloat16").dtype, DType::BF16);
}

#[test]
fn unknown_classes_are_kept_without_meaning() {
    for name in ["lightning.ckpt", "lightning_legacy.ckpt"] {
        let c = open(name);
        let values = c.pickle();
        let callbacks: Vec<_> = values.pairs(find(&c, "callbacks")).collect();
        assert_eq!(callbacks.len(), 2);
        let class = values.class_name(callbacks[0].0);
        assert_eq!(
            class,
            Some(("pytorch_lightning.callbacks", "ModelCheckpoint"))
        );
        assert_eq!(c.entries(callbacks[0].1).count(), 2);
        let parameters = find(&c, "hyper_parameters");
        assert_eq!(
            values.class_name(parameters),
            Some(("argparse", "Namespace"))
        );
        assert_eq!(values.items(find(&c, "hyper_parameters/betas")).len(), 2);
        assert!(matches!(
            values.node(find(&c, "long")),
            Some(Node::BigInt(_))
        ));
        assert_eq!(values.items(find(&c, "counts/a")).len(), 1);
        let attribute = c.tensor(find(&c, "partial/tensor")).unwrap();
        assert_eq!(attribute.unwrap().shape, [2]);
    }
}

#[test]
fn foreign_tensors_fail_only_when_asked_for() {
    let c = open("foreign.pth");
    for (key, word) in [
        ("complex", "complex64"),
        ("sparse", "sparse"),
        ("csr", "sparse"),
        ("quantized", "quantized"),
        ("float8", "float8_e4m3fn"),
        ("uint16", "uint16"),
        ("meta", "without its data"),
    ] {
        let message = c.tensor(find(&c, key)).unwrap_err().to_string();
        assert!(
            message.contains(word) && message.contains("foreign.pth"),
            "{message}"
        );
    }
    assert!(c.tensor(find(&c, "untyped")).unwrap().is_none());
}

#[test]
fn script_modules_and_constants_are_walked() {
    let c = open("script.pt");
    let (module, class) = c.pickle().class_name(c.root()).unwrap();
    assert!(module.starts_with("__torch__"), "{module} {class}");
    assert!(c.pickle().state(c.root()).is_some());
    assert_eq!(c.pickle().items(find(&c, "names")).len(), 2);
    assert_eq!(c.pickle().as_i64(find(&c, "table/x")), Some(1));

    let c = open("script_constants.pt");
    let constants = c.pickle().items(c.constants().unwrap());
    let tensor = c.tensor(constants[0]).unwrap().unwrap();
    let bytes = c.read_tensor(&tensor).unwrap();
    assert_eq!(hex(&bytes), "0000803f00000040");
}

#[test]
fn depth_and_sharing_cost_neither_stack_nor_copies() {
    // A small stack would overflow at any recursion over the 100,000 levels.
    let walk = || {
        let c = open("deep.pth");
        for path in ["lists", "tuples"] {
            let mut node = find(&c, path);
            let mut depth = 1;
            while let Some(&inner) = c.pickle().items(node).first() {
                node = inner;
                depth += 1;
            }
            assert!(depth >= 100_000, "{path}: {depth}");
        }
    };
    let thread = std::thread::Builder::new().stack_size(128 << 10);
    thread.spawn(walk).unwrap().join().unwrap();

    let c = open("bomb.pth");
    let references = c.pickle().items(find(&c, "bomb"));
    assert_eq!(references.len(), 1_000_000);
    assert!(references.iter().all(|id| *id == references[0]));
    assert_eq!(c.pickle().items(references[0]).len(), 1_000_000);
}

#[test]
fn nothing_is_executed() {
    let marker = Path::new("/tmp/a_checkpoint_was_executed");
    for name in ["malicious.pth", "malicious_legacy.pth"] {
        let c = open(name);
        let (_, function) = c.pickle().class_name(find(&c, "evil")).unwrap();
        assert_eq!(function, "system");
        assert!(c.tensor(find(&c, "evil")).unwrap().is_none());
    }
    assert!(!marker.exists());
}

#[test]
fn parts_are_read_by_the_name_of_the_whole_too() {
    for name in ["split.pth", "split.pth_aa", "split.pth_ac"] {
        let c = open(name);
        assert_eq!(c.parts().len(), 3, "{name}");
        let tensor = c.tensor(find(&c, "model/w")).unwrap().unwrap();
        assert_eq!(c.read_tensor(&tensor).unwrap().len(), 80);
    }
}

#[test]
fn a_missing_last_part_is_suspected() {
    let folder = tempfile::tempdir().unwrap();
    for part in ["aa", "ab"] {
        let name = format!("split.pth_{part}");
        std::fs::copy(file(&name), folder.path().join(&name)).unwrap();
    }
    let error = TorchFile::open(folder.path().join("split.pth"))
        .err()
        .unwrap();
    assert!(matches!(error, CheckpointError::CutOff { .. }), "{error}");
    let message = error.to_string();
    assert!(
        message.contains("2 parts; is one missing at the end?"),
        "{message}"
    );
}

#[test]
fn big_endian_files_are_refused() {
    for name in ["big_endian.pth", "big_endian_legacy.pth"] {
        let error = TorchFile::open(file(name)).err().unwrap();
        assert!(
            matches!(error, CheckpointError::Unsupported { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("big-endian"), "{error}");
    }
}
