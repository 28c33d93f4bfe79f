//! Weights and configurations that do not fit each other, or are damaged.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::SafeTensors;
use tempfile::TempDir;

use crate::running::{changed, fixture, native_model, refuse, s};

#[test]
fn a_configuration_is_checked_against_the_weights() {
    let folder = TempDir::new().unwrap();
    let case = fixture("text_tiny");
    let yaml = std::fs::read_to_string(case.join("config.yaml")).unwrap();
    let changes = [
        ("n_layer: 3", "n_layer: 4", "n_layer is 4", "holds 3"),
        (
            "diffusion_step: 100",
            "diffusion_step: 50",
            "diffusion_step is 50",
            "holds 100",
        ),
        (
            "timestep_type: adalayernorm",
            "timestep_type: adalayernorm_abs",
            "adalayernorm_abs",
            "holds adalayernorm",
        ),
        (
            "quantize_number: 33",
            "quantize_number: 40",
            "quantize_number is 40",
            "holds 33",
        ),
        (
            "alpha_init_type: alpha1",
            "alpha_init_type: cos",
            "alpha_init_type is cos",
            "alpha1",
        ),
        ("n_head: 4", "n_head: 5", "5 attention heads", "48"),
    ];
    for (from, to, declared, found) in changes {
        let config = folder.path().join("config.yaml");
        std::fs::write(&config, changed(&yaml, from, to)).unwrap();
        refuse(
            folder.path(),
            &["inspect", s(&case.join("last.pth")), "--config", s(&config)],
            &[declared, found],
        );
    }
    std::fs::write(folder.path().join("bad.yaml"), "model: [1, 2\n").unwrap();
    refuse(
        folder.path(),
        &["inspect", s(&case.join("last.pth")), "--config", "bad.yaml"],
        &["bad.yaml", "line"],
    );
    std::fs::write(folder.path().join("odd.yaml"), "model:\n  denoser: 1\n").unwrap();
    refuse(
        folder.path(),
        &["inspect", s(&case.join("last.pth")), "--config", "odd.yaml"],
        &["odd.yaml", "denoser"],
    );
}

/// Rewrites a safetensors file with `change` applied to its tensors.
fn rewrite(
    from: &Path,
    to: &Path,
    change: impl Fn(&mut HashMap<String, (Dtype, Vec<usize>, Vec<u8>)>),
) {
    let bytes = std::fs::read(from).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut all: HashMap<_, _> = tensors
        .tensors()
        .into_iter()
        .map(|(name, t)| (name, (t.dtype(), t.shape().to_vec(), t.data().to_vec())))
        .collect();
    change(&mut all);
    let views: Vec<(String, TensorView)> = all
        .iter()
        .map(|(name, (dtype, shape, data))| {
            (
                name.clone(),
                TensorView::new(*dtype, shape.clone(), data).unwrap(),
            )
        })
        .collect();
    safetensors::serialize_to_file(views, header.metadata().clone(), to).unwrap();
}

#[test]
fn bad_weights_are_named() {
    let (folder, model) = native_model();
    let bad = folder.path().join("bad.safetensors");
    let key = "transformer.transformer.blocks.1.mlp.0.weight";
    let sample = |words: &[&str]| {
        let args = ["sample", "--checkpoint", s(&bad), "--out", "never", "x"];
        refuse(folder.path(), &args, words);
        refuse(
            folder.path(),
            &["convert", s(&bad), "never.safetensors"],
            words,
        );
        assert!(!folder.path().join("never/0-x.png").exists());
        assert!(!folder.path().join("never.safetensors").exists());
    };
    rewrite(&model, &bad, |all| {
        let data = &mut all.get_mut(key).unwrap().2;
        data[400..404].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    sample(&["bad.safetensors", key, "NaN"]);

    rewrite(&model, &bad, |all| {
        all.get_mut(key).unwrap().1.reverse();
    });
    sample(&[key, "[48, 192]", "[192, 48]"]);

    rewrite(&model, &bad, |all| {
        let entry = all.remove(key).unwrap();
        all.insert(changed(key, "mlp", "mpl"), entry);
    });
    sample(&[key, "missing", "blocks.1.mpl.0.weight"]);

    rewrite(&model, &bad, |all| {
        let mapping = all.get_mut("content_codec.full_to_quantize").unwrap();
        mapping.2[80..88].copy_from_slice(&33i64.to_le_bytes());
    });
    sample(&["full_to_quantize", "entry 10 is 33", "0 to 32"]);
}

#[test]
fn damaged_and_foreign_files_are_refused() {
    let (folder, model) = native_model();
    let bytes = std::fs::read(&model).unwrap();
    let official = std::fs::read(fixture("text_tiny").join("last.pth")).unwrap();
    let bad = folder.path().join("bad");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("truncated own", bytes[..bytes.len() / 2].to_vec()),
        ("truncated header", bytes[..100].to_vec()),
        (
            "truncated official",
            official[..official.len() - 5000].to_vec(),
        ),
        (
            "page",
            b"<!DOCTYPE html><html><body>Not found</body></html>".to_vec(),
        ),
        (
            "noise",
            (0..5000u32)
                .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
                .collect(),
        ),
    ];
    for (what, content) in cases {
        std::fs::write(&bad, content).unwrap();
        for command in [
            vec!["sample", "--checkpoint", s(&bad), "--out", "never", "x"],
            vec!["inspect", s(&bad)],
            vec!["convert", s(&bad), "never.safetensors"],
        ] {
            refuse(folder.path(), &command, &[s(&bad)]);
        }
        assert!(!folder.path().join("never").exists(), "{what}");
        assert!(!folder.path().join("never.safetensors").exists(), "{what}");
    }
    refuse(folder.path(), &["inspect", "absent.pth"], &["absent.pth"]);
    refuse(folder.path(), &["inspect", "."], &["is a folder"]);
    // A safetensors file of somebody else is described, but not sampled from.
    let foreign = folder.path().join("foreign.safetensors");
    let view = TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
    safetensors::serialize_to_file([("x", view)], None, &foreign).unwrap();
    refuse(
        folder.path(),
        &["sample", "--checkpoint", s(&foreign), "x"],
        &["foreign.safetensors", "header"],
    );
}

/// The own-format file `model` with one value of the header's configuration replaced.
fn with_configuration(model: &Path, changed: &Path, pointer: &str, value: serde_json::Value) {
    let bytes = std::fs::read(model).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let entry = &mut header["__metadata__"]["vqdiffusion"];
    let mut own: serde_json::Value = serde_json::from_str(entry.as_str().unwrap()).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    own.pointer_mut(&format!("/config{parent}")).unwrap()[key] = value;
    *entry = own.to_string().into();
    let mut header = header.to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(&bytes[8 + length..]);
    std::fs::write(changed, out).unwrap();
}

#[test]
fn impossible_configurations_are_refused() {
    let (folder, model) = native_model();
    let at = folder.path();
    let changed = at.join("changed.safetensors");
    let huge = serde_json::json!(1_000_000_000_000_i64);
    for (pointer, value, words) in [
        ("/denoiser/heads", 0.into(), ["denoiser.heads", "0"]),
        ("/denoiser/heads", 5.into(), ["denoiser.heads", "48"]),
        (
            "/denoiser/grid",
            serde_json::json!([16, 16]),
            ["grid", "position_table"],
        ),
        (
            "/denoiser/timesteps",
            huge.clone(),
            ["denoiser.timesteps", "1000000000000"],
        ),
        (
            "/denoiser/layers",
            1_000_000_000.into(),
            ["denoiser.layers", "1024"],
        ),
        (
            "/denoiser/codes",
            i64::MAX.into(),
            ["denoiser.codes", "expected 1 to"],
        ),
        (
            "/denoiser/expansion",
            (-1).into(),
            ["denoiser.expansion", "-1"],
        ),
        (
            "/codec/multipliers",
            serde_json::json!([]),
            ["codec.multipliers", "[]"],
        ),
        ("/codec/norm_groups", 5.into(), ["codec.norm_groups", "5"]),
        (
            "/codec/residual_blocks",
            huge,
            ["codec.residual_blocks", "1024"],
        ),
        ("/text/tower/heads", 3.into(), ["text.tower.heads", "16"]),
        (
            "/transition/alpha",
            serde_json::json!([2.0, -1.0]),
            ["transition.alpha", "from 0 to 1"],
        ),
        (
            "/transition/gamma",
            serde_json::json!([0.9, 0.1]),
            ["transition.gamma", "rising"],
        ),
    ] {
        with_configuration(&model, &changed, pointer, value);
        let args = [
            "sample",
            "a",
            "--checkpoint",
            s(&changed),
            "--out",
            "pictures",
        ];
        refuse(at, &args, &[&["changed.safetensors"], &words[..]].concat());
        assert!(!at.join("pictures").exists());
    }
}
