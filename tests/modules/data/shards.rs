//! The large data sets: webdataset, Conceptual Captions, FFHQ.

use std::path::Path;

use image::ImageFormat;
use tempfile::TempDir;
use vqdiffusion::data::dataset::{DataLayout, Epoch};
use vqdiffusion::data::{CropRule, Dataset, Fingerprint, PictureLoader, Rows, Split, Transform};

use super::{encoded, names, open, picture, put, sample_image, skipped};

fn jpeg(seed: u32) -> Vec<u8> {
    encoded(&sample_image(40, 30, seed), ImageFormat::Jpeg)
}

/// A tar of members (name, bytes), as Python's tarfile writes it.
fn tar(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes.as_slice())
            .unwrap();
    }
    tar.into_inner().unwrap()
}

/// A shard of img2dataset with `count` samples from `first` on.
fn shard(first: u32, count: u32) -> Vec<u8> {
    let mut members = Vec::new();
    let names: Vec<[String; 3]> = (first..first + count)
        .map(|n| ["jpg", "txt", "json"].map(|ending| format!("{n:09}.{ending}")))
        .collect();
    for (n, [picture, text, json]) in (first..).zip(&names) {
        members.push((picture.as_str(), jpeg(n)));
        members.push((text.as_str(), format!("picture {n}\n").into_bytes()));
        let described = format!("{{\"caption\": \"picture {n}\", \"status\": \"success\"}}");
        members.push((json.as_str(), described.into_bytes()));
    }
    tar(&members)
}

fn captions(dataset: &Dataset) -> Vec<String> {
    let captions = dataset.items.iter().map(|item| item.captions.join("|"));
    captions.collect()
}

#[test]
fn webdataset() {
    let root = TempDir::new().unwrap();
    let at = root.path();
    put(&at.join("00001.tar"), shard(10000, 2));
    put(&at.join("00000.tar"), shard(0, 3));
    put(&at.join("00000.parquet"), "");
    put(&at.join("00000_stats.json"), "{}");
    let dataset = open(at, Split::Train);
    assert_eq!(dataset.layout, DataLayout::Shards);
    assert_eq!(dataset.epoch, Epoch::Pictures);
    assert!(dataset.skipped.is_empty(), "{:?}", dataset.skipped);
    let expected = [0, 1, 2, 10000, 10001];
    assert_eq!(captions(&dataset), expected.map(|n| format!("picture {n}")));
    assert_eq!(names(&dataset)[3], "00001.tar/000010000.jpg");
    for (item, n) in dataset.items.iter().zip(expected) {
        let plain = vqdiffusion::picture::decode(&jpeg(n)).unwrap();
        assert_eq!(dataset.picture(item).unwrap(), plain);
    }
    // Kept beside the shards: the shard itself is not gone through again.
    assert!(at.join("00000.tar.index.jsonl").exists());
    let again = open(at, Split::Train);
    assert_eq!(again.items, dataset.items);
    assert_eq!(
        Fingerprint::of_items(&again.items),
        Fingerprint::of_items(&dataset.items)
    );
    // A shard alone.
    let alone = open(&at.join("00001.tar"), Split::Train);
    assert_eq!(alone.items, dataset.items[3..]);
    // Another shard in its place, and a kept file that is none.
    put(&at.join("00001.tar"), shard(10000, 1));
    put(&at.join("00000.tar.index.jsonl"), "{\"format_version\": 1");
    assert_eq!(open(at, Split::Train).items, dataset.items[..4]);

    // Batches are the same function of seed and samples as of any other set.
    let transform = Transform {
        size: 16,
        crop: CropRule::Random,
        flip: false,
    };
    let loader = |dataset: Dataset| {
        let rows = Rows::new(Epoch::Pictures, &dataset.items);
        PictureLoader::new(dataset, rows, transform, 5, true).unwrap()
    };
    let folder = TempDir::new().unwrap();
    for n in [0, 1, 2, 10000] {
        put(&folder.path().join(format!("{n:09}.jpg")), jpeg(n));
    }
    let (packed, plain) = (
        loader(open(at, Split::Train)),
        loader(open(folder.path(), Split::Train)),
    );
    for first in [0, 3, 7] {
        let [a, b] = [&packed, &plain].map(|loader| loader.batch(first, 3).unwrap());
        assert_eq!(a.pictures, b.pictures);
        assert_eq!(a.rows, b.rows);
    }
}

#[test]
fn webdataset_with_broken_members() {
    let root = TempDir::new().unwrap();
    let at = root.path();
    let whole = shard(0, 3);
    put(&at.join("cut.tar"), &whole[..whole.len() / 2]);
    // Cut where a member ends: nothing but the end mark is missing.
    let short = shard(100, 1);
    put(&at.join("short.tar"), &short[..short.len() - 1024]);
    put(&at.join("none.tar"), "<html>not found</html>".repeat(100));
    put(&at.join("empty.tar"), "");
    let mut damaged = shard(200, 2);
    let at_second = damaged
        .windows(13)
        .position(|w| w == b"000000201.jpg")
        .unwrap();
    damaged[at_second + 148] ^= 1; // its header's checksum
    put(&at.join("damaged.tar"), damaged);
    let odd = [
        ("./a/1.input.jpg", jpeg(1)),
        ("./a/1.output.txt", b"one\ntwo  words".to_vec()),
        ("a/._1.jpg", b"what macOS adds".to_vec()),
        ("a/2.png", b"no picture".to_vec()),
        ("a/2.json", br#"{"text": "two", "x": NaN}"#.to_vec()),
        ("a/2.cls", b"7".to_vec()),
        ("a/3.txt", b"no picture".to_vec()),
        ("a/4.webp", jpeg(4)),
        ("a/5.jpg", jpeg(5)),
        ("a/5.txt", b"caf\xe9".to_vec()),
    ];
    put(&at.join("odd.tar"), tar(&odd));
    let long = format!("{}/x.jpg", "folder".repeat(30));
    let caption = long.replace("jpg", "txt");
    put(
        &at.join("z.tar"),
        tar(&[(&long, jpeg(6)), (&caption, b"long".to_vec())]),
    );
    let dataset = open(at, Split::Train);
    let listed: Vec<String> = dataset.skipped.iter().map(|s| s.to_string()).collect();
    let expected = [
        "cut.tar: the tar ends inside 000000001.txt (2 pictures before that)",
        "damaged.tar: the tar is damaged behind 000000200.json",
        "empty.tar: the file is empty",
        "none.tar: not a tar",
        "odd.tar: a/5.jpg: caption a/5.txt: not UTF-8",
        "odd.tar: keys without a picture that can be read: 1",
        "short.tar: the tar ends behind 000000100.json without its end mark",
        "cut.tar/000000001.jpg: no caption",
        "odd.tar/a/4.webp: no caption",
    ];
    assert_eq!(listed.len(), expected.len(), "{listed:#?}");
    for (found, expected) in listed.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}, expected {expected}");
    }
    let captions = captions(&dataset);
    let expected = [
        "picture 0",
        "picture 200",
        "one two words",
        "two",
        "picture 100",
        "long",
    ];
    assert_eq!(captions, expected);
    assert_eq!(dataset.items[3].label, Some(7));
    assert!(dataset.picture(&dataset.items[2]).is_ok());
    let error = dataset.picture(&dataset.items[3]).unwrap_err().to_string();
    assert!(error.starts_with("not a picture"), "{error}");
    assert!(Dataset::open(at, Split::Train, true).is_err());
}

#[test]
fn webdataset_with_splits() {
    let root = TempDir::new().unwrap();
    let at = root.path();
    put(&at.join("cc3m-train-0000.tar"), shard(0, 2));
    put(&at.join("cc3m-validation-0000.tar"), shard(5, 1));
    assert!(open(at, Split::Train).has_parts);
    assert_eq!(
        captions(&open(at, Split::Train)),
        ["picture 0", "picture 1"]
    );
    assert_eq!(captions(&open(at, Split::Val)), ["picture 5"]);
    let error = Dataset::open(at, Split::Test, false)
        .unwrap_err()
        .to_string();
    assert!(error.contains("split test"), "{error}");

    let root = TempDir::new().unwrap();
    put(&root.path().join("train/00000.tar"), shard(0, 1));
    put(&root.path().join("val/00000.tar"), shard(7, 1));
    assert_eq!(captions(&open(root.path(), Split::Val)), ["picture 7"]);
    assert!(open(root.path(), Split::Train).has_parts);
}

fn crc(address: &str) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(address.as_bytes());
    crc.sum()
}

#[test]
fn conceptual_captions() {
    let address = |n: u32| format!("https://example.org/{n}.jpg?x=1");
    let root = TempDir::new().unwrap();
    let at = root.path();
    let lines = |rows: &[u32]| -> String {
        rows.iter()
            .map(|&n| format!("caption {n}\t{}\n", address(n)))
            .collect()
    };
    let broken = "no address\there\n";
    let train = format!("{}{broken}{}", lines(&[0, 1, 2]), lines(&[3, 4]));
    put(&at.join("Train_GCC-training.tsv"), train);
    put(
        &at.join("Validation_GCC-1.1.0-Validation.tsv"),
        lines(&[7, 8]),
    );
    // As the common download scripts name them, without an ending; 1 and 3 are dead links.
    for (row, n) in [(0, 0), (2, 2), (5, 4)] {
        put(
            &at.join(format!("training/{row}_{}", crc(&address(n)))),
            jpeg(n),
        );
    }
    put(
        &at.join(format!("validation/1_{}", crc(&address(8)))),
        jpeg(8),
    );
    let dataset = open(at, Split::Train);
    assert_eq!(dataset.layout, DataLayout::Conceptual);
    assert_eq!(captions(&dataset), ["caption 0", "caption 2", "caption 4"]);
    let dead = "2 of 5 pictures are not there (dead links), the first of line 2";
    let expected = [
        (
            "Train_GCC-training.tsv line 4",
            "expected a caption and an address with a tab between",
        ),
        ("Train_GCC-training.tsv", dead),
    ];
    assert_eq!(skipped(&dataset), expected);
    for (item, n) in dataset.items.iter().zip([0, 2, 4]) {
        let plain = vqdiffusion::picture::decode(&jpeg(n)).unwrap();
        assert_eq!(dataset.picture(item).unwrap(), plain);
    }
    assert_eq!(captions(&open(at, Split::Val)), ["caption 8"]);
    assert!(dataset.has_parts);

    // By the sum alone, and the other order of columns with a header, as of 12M.
    let root = TempDir::new().unwrap();
    let at = root.path();
    let rows = [0, 1, 2]
        .map(|n| format!("{}\tcaption {n}\n", address(n)))
        .concat();
    put(&at.join("cc12m.tsv"), format!("url\tcaption\n{rows}"));
    for n in [1, 2] {
        put(
            &at.join(format!("images/{}.jpg", crc(&address(n)))),
            jpeg(n),
        );
    }
    let dataset = open(at, Split::Train);
    assert_eq!(captions(&dataset), ["caption 1", "caption 2"]);
    assert!(!dataset.has_parts);
    assert_eq!(
        open(&at.join("cc12m.tsv"), Split::Train).items,
        dataset.items
    );
    let error = Dataset::open(at, Split::Val, false)
        .unwrap_err()
        .to_string();
    assert!(error.contains("split val"), "{error}");

    // Pictures in a tar, numbered by row.
    std::fs::remove_dir_all(at.join("images")).unwrap();
    let members = [
        ("00000/000000000.jpg", jpeg(0)),
        ("00000/000000002.jpg", jpeg(2)),
    ];
    put(&at.join("pictures.tar"), tar(&members));
    let dataset = open(at, Split::Train);
    assert_eq!(captions(&dataset), ["caption 0", "caption 2"]);
    let plain = vqdiffusion::picture::decode(&jpeg(2)).unwrap();
    assert_eq!(dataset.picture(&dataset.items[1]).unwrap(), plain);
}

#[test]
fn oxford_102() {
    let root = TempDir::new().unwrap();
    let at = root.path();
    let class_of = |n: u32| if n < 3 { 77 } else { 1 };
    for n in 1..=4 {
        picture(at, &format!("jpg/image_{n:05}.jpg"), n);
        let lines: String = (0..10).map(|c| format!("flower {n}, {c}\n")).collect();
        let class = class_of(n);
        if n != 2 {
            let file = format!("text_c10/class_{class:05}/image_{n:05}.txt");
            put(&at.join(file), lines);
        }
    }
    put(&at.join("text_c10/class_00001/image_00003.h5"), "");
    picture(at, "jpg/image_00005.jpg", 5);
    put(
        &at.join("text_c10/class_00077/image_00005.txt"),
        b"caf\xe9\n",
    );
    put(&at.join("jpg/image_00006.jpg"), "cut");
    put(
        &at.join("text_c10/class_00077/image_00006.txt"),
        "a flower\n",
    );
    put(&at.join("jpg/Thumbs.db"), "");
    let dataset = open(at, Split::Train);
    assert_eq!(dataset.layout, DataLayout::Oxford);
    assert_eq!(dataset.epoch, Epoch::Pictures);
    assert!(!dataset.has_parts);
    let all = [1, 3, 4, 6].map(|n| format!("jpg/image_{n:05}.jpg"));
    assert_eq!(names(&dataset), all);
    assert!(dataset.picture(&dataset.items[3]).is_err());
    assert_eq!(dataset.items[1].captions.len(), 10);
    assert_eq!(dataset.items[1].captions[9], "flower 3, 9");
    let without = ("jpg/image_00002.jpg", "has no caption file below text_c10");
    let reasons = skipped(&dataset);
    assert_eq!(reasons[0], without);
    assert_eq!(reasons[1].0, "jpg/image_00005.jpg");
    assert!(reasons[1].1.contains("not UTF-8"), "{}", reasons[1].1);
    assert_eq!(reasons.len(), 2);
    for n in [5, 6] {
        let caption = format!("text_c10/class_00077/image_{n:05}.txt");
        std::fs::remove_file(at.join(caption)).unwrap();
        std::fs::remove_file(at.join(format!("jpg/image_{n:05}.jpg"))).unwrap();
    }
    let expected = &all[..3];

    // Splits by class, then by the lists of StackGAN.
    put(&at.join("flowers_icml/trainclasses.txt"), "class_00077\n");
    put(&at.join("flowers_icml/testclasses.txt"), "class_00001\n");
    assert_eq!(names(&open(at, Split::Train)), expected[..1]);
    assert_eq!(names(&open(at, Split::Test)), expected[1..]);
    assert_eq!(names(&open(at, Split::Val)), expected[1..]);
    put(
        &at.join("train/filenames.pickle"),
        "(lp0\nS'jpg/image_00004'\np1\naS'jpg/image_00009'\np2\na.",
    );
    let dataset = open(at, Split::Train);
    assert_eq!(names(&dataset), expected[2..]);
    assert_eq!(skipped(&dataset)[0].0, "jpg/image_00009.jpg");
    assert!(dataset.has_parts);
}

#[test]
fn ffhq_and_a_folder_of_faces() {
    let root = TempDir::new().unwrap();
    let at = root.path();
    for folder in ["images1024x1024", "thumbnails128x128"] {
        for n in [0, 1, 1000] {
            picture(
                at,
                &format!("{folder}/{:05}/{n:05}.png", n / 1000 * 1000),
                n,
            );
        }
    }
    put(&at.join("ffhq-dataset-v2.json"), "{}");
    put(&at.join("LICENSE.txt"), "");
    let dataset = open(at, Split::Train);
    assert_eq!(dataset.layout, DataLayout::Ffhq);
    let expected = ["00000/00000.png", "00000/00001.png", "01000/01000.png"];
    assert_eq!(names(&dataset), expected);
    assert!(dataset
        .items
        .iter()
        .all(|item| dataset.picture(item).is_ok()));
    let faces = open(&at.join("thumbnails128x128"), Split::Train);
    assert_eq!((faces.layout, faces.items.len()), (DataLayout::Folder, 3));
    // A broken face, and one that cannot be a picture of this program.
    put(&at.join("images1024x1024/01000/01001.png"), "");
    put(&at.join("images1024x1024/01000/01002.heic"), "");
    let dataset = open(at, Split::Train);
    assert_eq!(dataset.items.len(), 4);
    let error = dataset.picture(&dataset.items[3]).unwrap_err().to_string();
    assert_eq!(error, "the file is empty");
    assert_eq!(skipped(&dataset)[0].0, "01000/01002.heic");
    assert!(Path::new(&faces.root).ends_with("thumbnails128x128"));
}
