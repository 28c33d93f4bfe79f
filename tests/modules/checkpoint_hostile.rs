//! Damaged and malicious checkpoints: always an error or a value, never a panic, a hang or
//! unbounded memory.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vqdiffusion::checkpoint::pytorch::{CheckpointError, Limits, TorchFile};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoints")
}

/// Writes bytes to a file and opens it.
fn open(bytes: &[u8], limits: Limits) -> Result<TorchFile, CheckpointError> {
    let mut file = tempfile::Builder::new().suffix(".pth").tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let opened = TorchFile::open_with(file.path(), limits);
    if let Err(e) = &opened {
        let message = e.to_string();
        assert!(message.contains(".pth"), "no file named: {message}");
        // Nothing from a file is printed at length.
        assert!(message.len() < 2000, "{} characters", message.len());
    }
    opened
}

fn message(bytes: &[u8]) -> String {
    open(bytes, Limits::default())
        .err()
        .expect("an error")
        .to_string()
}

/// Opens and reads all that can be read, within a time.
fn exercise(bytes: &[u8]) {
    let start = Instant::now();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    if let Ok(checkpoint) = TorchFile::open(file.path()) {
        let ids: Vec<_> = checkpoint.pickle().nodes().map(|(id, _)| id).collect();
        for id in ids {
            if let Ok(Some(tensor)) = checkpoint.tensor(id) {
                if let Ok(bytes) = checkpoint.read_tensor(&tensor) {
                    assert_eq!(Some(bytes.len() as u64), tensor.byte_len());
                }
            }
        }
    }
    assert!(start.elapsed() < Duration::from_secs(30));
}

fn checkpoints() -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e != "json"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        })
        // Those that take long to walk add nothing here.
        .filter(|(name, _)| !["bomb.pth", "deep.pth"].contains(&name.as_str()))
        .collect();
    files.sort();
    assert!(files.len() > 20);
    files
}

fn check_memory() {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        return;
    };
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|text| text.trim().strip_suffix(" kB"));
    if let Some(peak) = peak.and_then(|text| text.parse::<u64>().ok()) {
        assert!(peak < 1 << 20, "peak memory {peak} kB");
    }
}

#[test]
fn files_cut_off_anywhere() {
    for (_, bytes) in checkpoints() {
        let step = (bytes.len() / 60).max(1);
        let edges = (0..20).chain(bytes.len().saturating_sub(30)..bytes.len());
        for length in (0..bytes.len()).step_by(step).chain(edges) {
            exercise(&bytes[..length.min(bytes.len())]);
        }
    }
    check_memory();
}

#[test]
fn files_with_a_changed_byte() {
    let files = checkpoints();
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for _ in 0..3000 {
        let (_, bytes) = &files[random(files.len())];
        let mut bytes = bytes.clone();
        let at = random(bytes.len());
        bytes[at] = random(256) as u8;
        exercise(&bytes);
    }
    // The older format has no checksums or directory before its pickles: every byte of one file,
    // with the values that make lengths huge or negative.
    let (_, legacy) = files
        .iter()
        .find(|(name, _)| name == "old_views.pth")
        .unwrap();
    for at in 0..legacy.len() {
        for value in [0, 0x7f, 0x80, 0xff] {
            let mut bytes = legacy.clone();
            bytes[at] = value;
            exercise(&bytes);
        }
    }
    check_memory();
}

#[test]
fn what_is_no_checkpoint_is_named() {
    let mut random = vec![0xdeu8; 4000];
    random[1] = 0xad;
    for (bytes, word) in [
        (&b""[..], "empty"),
        (b"<!DOCTYPE html>\n<html><title>Sign in</title>", "web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9",
            "git lfs pull",
        ),
        (&random, "de ad de de"),
        (b"PK", "cut off"),
        (b"PK\x03\x04 and no more", "cut off"),
        (b"\x80\x02}q\x00.", "torch.save did not write"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF", "cut off"),
    ] {
        let message = message(bytes);
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn a_cut_off_file_says_so() {
    for name in ["zip.pth", "legacy.pth"] {
        let bytes = std::fs::read(folder().join(name)).unwrap();
        for part in [3, 2] {
            let message = message(&bytes[..bytes.len() * (part - 1) / part]);
            assert!(message.contains("cut off"), "{message}");
        }
    }
}

/// A file in the older format with one tensor, whose numbers are given as pickle instructions.
fn one_tensor(numel: &[u8], offset: &[u8], shape: &[u8], stride: &[u8]) -> Vec<u8> {
    let mut file =
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.".to_vec();
    file.extend(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\n");
    for piece in [
        b"U\x011U\x03cpu",
        numel,
        b"NtQ",
        offset,
        shape,
        stride,
        b"\x89}tR.",
    ] {
        file.extend(piece);
    }
    file.extend(b"\x80\x02]U\x011a.");
    file.extend(4u64.to_le_bytes());
    file.extend((0..4u8).flat_map(|i| f32::from(i).to_le_bytes()));
    file
}

#[test]
fn impossible_tensors_are_refused() {
    let four = b"K\x04";
    let huge = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f";
    let tuple = |members: &[&[u8]]| [b"(".as_slice(), &members.concat(), b"t"].concat();
    let good = one_tensor(four, b"K\x00", &tuple(&[four]), &tuple(&[b"K\x01"]));
    let checkpoint = open(&good, Limits::default()).unwrap();
    assert!(checkpoint.tensor(checkpoint.root()).unwrap().is_some());

    let one = &tuple(&[b"K\x01"])[..];
    let four_long = &tuple(&[four])[..];
    for (offset, shape, stride, word) in [
        (&b"K\x01"[..], four_long, one, "inside the 4 elements"),
        (
            b"J\xff\xff\xff\xff",
            four_long,
            one,
            "-1 as a storage offset",
        ),
        (huge, four_long, one, "inside the 4 elements"),
        (
            b"K\x00",
            &tuple(&[b"J\xff\xff\xff\xff"]),
            one,
            "-1 as sizes",
        ),
        (b"K\x00", &tuple(&[huge]), one, "below 2^63"),
        (
            b"K\x00",
            four_long,
            &tuple(&[huge]),
            "inside the 4 elements",
        ),
        (
            b"K\x00",
            &tuple(&[huge, huge]),
            &tuple(&[b"K\x00", b"K\x00"]),
            "below 2^63",
        ),
        (b"K\x00", four_long, b")", "1 sizes and 0 strides"),
        (b"K\x00", b"N", one, "a tuple"),
        (b"N", four_long, one, "no integer"),
        (b"K\x00", &tuple(&[b"G\0\0\0\0\0\0\0\0"]), one, "no integer"),
    ] {
        let checkpoint = open(&one_tensor(four, offset, shape, stride), Limits::default());
        let checkpoint = checkpoint.unwrap();
        let message = checkpoint
            .tensor(checkpoint.root())
            .unwrap_err()
            .to_string();
        assert!(message.contains(word), "{message}");
    }
    // A terabyte out of four elements.
    let giant = tuple(&[b"J\0\0\0\x40", b"M\0\x01"]);
    let file = one_tensor(four, b"K\x00", &giant, &tuple(&[b"K\x00", b"K\x00"]));
    let checkpoint = open(&file, Limits::default()).unwrap();
    let tensor = checkpoint.tensor(checkpoint.root()).unwrap().unwrap();
    let message = checkpoint.read_tensor(&tensor).unwrap_err().to_string();
    assert!(message.contains("repeated"), "{message}");
    // What a caller changes is checked again.
    let mut tensor = tensor;
    tensor.shape = vec![usize::MAX, 3];
    assert!(checkpoint.read_tensor(&tensor).is_err());
    tensor.shape = vec![5];
    tensor.stride = vec![1];
    assert!(checkpoint.read_tensor(&tensor).is_err());
    check_memory();
}

#[test]
fn storages_of_another_size_are_refused() {
    for numel in [&b"K\x05"[..], b"K\x03", b"J\xff\xff\xff\xff", b"N"] {
        let text = message(&one_tensor(numel, b"K\x00", b")", b")"));
        assert!(text.contains("expected"), "{text}");
    }
}

fn archive(entries: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        let options = SimpleFileOptions::default().compression_method(method);
        writer.start_file(*name, options).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Position of the only central directory header.
fn directory(bytes: &[u8]) -> usize {
    bytes
        .windows(4)
        .position(|four| four == b"PK\x01\x02")
        .unwrap()
}

#[test]
fn archives_without_a_checkpoint_are_named() {
    let text = message(&archive(
        &[("inner/model.ckpt", b"")],
        CompressionMethod::Stored,
    ));
    assert!(text.contains("inner/model.ckpt"), "{text}");
    let text = message(&archive(&[], CompressionMethod::Stored));
    assert!(text.contains("empty zip archive"), "{text}");
    let text = message(&archive(
        &[("m/model.json", b"")],
        CompressionMethod::Stored,
    ));
    assert!(text.contains("1.4"), "{text}");
}

#[test]
fn a_compressed_bomb_is_stopped() {
    let program = [&b"\x80\x02("[..], &vec![b'N'; 1 << 20], b"t."].concat();
    let mut bytes = archive(&[("a/data.pkl", &program)], CompressionMethod::Deflated);
    let limits = Limits {
        bytes: 1000,
        ..Limits::default()
    };
    let text = open(&bytes, limits).err().unwrap().to_string();
    assert!(
        text.contains("a/data.pkl") && text.contains("at most 1000"),
        "{text}"
    );
    // The directory may lie about the size; what is read counts.
    let at = directory(&bytes) + 24;
    bytes[at..at + 4].copy_from_slice(&900u32.to_le_bytes());
    assert!(open(&bytes, limits).is_err());
    let limits = Limits {
        instructions: 1000,
        ..Limits::default()
    };
    let bytes = archive(&[("a/data.pkl", &program)], CompressionMethod::Deflated);
    let text = open(&bytes, limits).err().unwrap().to_string();
    assert!(text.contains("1000 instructions"), "{text}");
}

#[test]
fn unreadable_records_are_named() {
    let good = archive(&[("a/data.pkl", b"\x80\x02N.")], CompressionMethod::Stored);
    assert!(open(&good, Limits::default()).is_ok());
    let at = directory(&good);
    // Flags, method, sizes, and the position of the local header.
    for (offset, value, word) in [
        (8, &[1u8, 0][..], "encrypted"),
        (10, &[12, 0], "compression method"),
        (20, &[0xff, 0xff, 0, 0], "65535 bytes"),
        (24, &[0xff, 0xff, 0, 0], "sizes that fit"),
        (42, &[7, 0, 0, 0], "readable record"),
    ] {
        let mut bytes = good.clone();
        bytes[at + offset..at + offset + value.len()].copy_from_slice(value);
        let text = message(&bytes);
        assert!(text.contains(word) && text.contains("a/data.pkl"), "{text}");
    }
    let order = archive(
        &[("a/data.pkl", b"N."), ("a/byteorder", b"middle")],
        CompressionMethod::Stored,
    );
    assert!(message(&order).contains("\"middle\""));
}

#[test]
fn a_missing_storage_record_is_named() {
    let bytes = std::fs::read(folder().join("plain.pth")).unwrap();
    let mut source = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for i in 0..source.len() {
        let entry = source.by_index_raw(i).unwrap();
        if !entry.name().unwrap().ends_with("data/1") {
            writer.raw_copy_file(entry).unwrap();
        }
    }
    let checkpoint = open(&writer.finish().unwrap().into_inner(), Limits::default()).unwrap();
    let model = checkpoint.get(checkpoint.root(), "model").unwrap();
    let read = |key| {
        let tensor = checkpoint.tensor(checkpoint.get(model, key).unwrap());
        checkpoint.read_tensor(&tensor.unwrap().unwrap())
    };
    assert_eq!(read("w").unwrap().len(), 80);
    let text = read("b").unwrap_err().to_string();
    assert!(
        text.contains("plain/data/1") && text.contains("no such record"),
        "{text}"
    );
}

/// Programs that are small in a compressed file, at the bound and beyond it.
#[test]
fn long_programs_are_refused() {
    let Limits { instructions, .. } = Limits::default();
    let most = usize::try_from(instructions).unwrap();
    let tuple = |values: usize| {
        let program = [&b"\x80\x02("[..], &vec![b'N'; values], b"t."].concat();
        archive(&[("a/data.pkl", &program)], CompressionMethod::Deflated)
    };
    // PROTO, MARK, TUPLE and STOP count too.
    assert!(open(&tuple(most - 4), Limits::default()).is_ok());
    let text = message(&tuple(most - 3));
    assert!(text.contains(&format!("{most} instructions")), "{text}");
    for unit in [&b"("[..], b"N)R", b"N\x94", b"ca\nb\n", b"U\x01a", b"]"] {
        let mut program = b"\x80\x04(".to_vec();
        program.extend(unit.repeat(most));
        let bytes = archive(&[("a/data.pkl", &program)], CompressionMethod::Deflated);
        let text = message(&bytes);
        assert!(text.contains("instructions"), "{text}");
    }
    check_memory();
}
