//! Data sets in their true layouts, and files that cannot be used.

use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};
use tempfile::TempDir;
use vqdiffusion::data::dataset::{Epoch, Layout};
use vqdiffusion::data::decode::decode;
use vqdiffusion::data::pictures::load;
use vqdiffusion::data::prefetch::prefetch;
use vqdiffusion::data::{CropRule, DataError, Dataset, Row, Rows, Split, Transform};

/// A picture whose values depend on the position, different for every `seed`.
fn sample_image(width: u32, height: u32, seed: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let value = |c: u32| ((x * (7 + c) + y * (13 - c) + seed * 31) % 256) as u8;
        Rgb([value(0), value(1), value(2)])
    })
}

fn encoded(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image
        .write_to(&mut bytes, format)
        .expect("it can be encoded");
    bytes.into_inner()
}

fn put(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    std::fs::write(path, bytes).expect("a file");
}

fn picture(root: &Path, name: &str, seed: u32) {
    let format = match name.ends_with("png") {
        true => ImageFormat::Png,
        false => ImageFormat::Jpeg,
    };
    put(
        &root.join(name),
        encoded(&sample_image(40, 30, seed), format),
    );
}

fn open(root: &Path, split: Split) -> Dataset {
    Dataset::open(root, split, false).expect("a data set")
}

fn names(dataset: &Dataset) -> Vec<String> {
    let name = |item: &vqdiffusion::data::Item| item.picture.display().to_string();
    dataset.items.iter().map(name).collect()
}

/// (what, reason) of every skipped item.
fn skipped(dataset: &Dataset) -> Vec<(&str, &str)> {
    let pairs = dataset.skipped.iter();
    pairs
        .map(|s| (s.what.as_str(), s.reason.as_str()))
        .collect()
}

#[test]
fn folder_with_sidecars() {
    let root = TempDir::new().unwrap();
    let at = root.path();
    for name in [
        "b.png",
        "a.jpg",
        "deep/c.JPEG",
        "lonely.png",
        "bad.png",
        "blank.png",
    ] {
        picture(at, name, 1);
    }
    put(&at.join("a.txt"), "a cat\r\n\r\n  two cats \r\n");
    put(&at.join("b.txt"), "\u{feff}ein Hündchen");
    put(&at.join("deep/c.txt"), "deep");
    put(&at.join("bad.txt"), b"caf\xe9");
    put(&at.join("blank.txt"), " \n");
    put(&at.join("notes.md"), "no picture");
    put(&at.join(".hidden.png"), "no picture");
    let dataset = open(at, Split::Train);
    assert_eq!(dataset.layout, Layout::Folder);
    assert_eq!(names(&dataset), ["a.jpg", "b.png", "deep/c.JPEG"]);
    assert_eq!(dataset.items[0].captions, ["a cat", "two cats"]);
    assert_eq!(dataset.items[1].captions, ["ein Hündchen"]);
    let skipped = skipped(&dataset);
    let expected = [
        ("bad.png", "caption file bad.txt: not UTF-8 (byte 3)"),
        ("blank.png", "caption file blank.txt: holds no caption"),
    ];
    assert_eq!(skipped[..2], expected);
    assert_eq!(skipped[2].0, "lonely.png");
    assert_eq!(skipped.len(), 3);
    let error = Dataset::open(at, Split::Train, true).unwrap_err();
    assert!(matches!(error, DataError::Strict { .. }), "{error}");
}

#[test]
fn folder_with_odd_names() {
    let root = TempDir::new().unwrap();
    let at = root.path();
    for name in ["CAT.JPG", "héron.png", "deep/dog.png"] {
        picture(at, name, 1);
    }
    put(&at.join("CAT.TXT"), "a cat");
    put(&at.join("héron.txt"), "un héron");
    put(&at.join("deep/dog.txt"), "a dog");
    put(&at.join("new.webp"), "RIFF");
    let latin = std::ffi::OsStr::from_bytes(b"caf\xe9.png");
    put(&at.join(latin), "");
    symlink("..", at.join("deep/up")).unwrap();
    symlink(at.join("deep"), at.join("linked")).unwrap();
    let dataset = open(at, Split::Train);
    let expected = ["CAT.JPG", "deep/dog.png", "héron.png", "linked/dog.png"];
    assert_eq!(names(&dataset), expected);
    let captions = |n: usize| dataset.items[n].captions.join("|");
    assert_eq!([0, 1, 2].map(captions), ["a cat", "a dog", "un héron"]);
    let reasons = skipped(&dataset);
    assert_eq!(reasons[0].1, "the name is not UTF-8");
    assert_eq!(reasons[1..], [("new.webp", "expected PNG or JPEG")]);
}

#[test]
fn folder_of_pictures_alone() {
    let root = TempDir::new().unwrap();
    picture(root.path(), "x/2.png", 2);
    picture(root.path(), "x/1.png", 1);
    let dataset = open(root.path(), Split::Train);
    assert_eq!(names(&dataset), ["x/1.png", "x/2.png"]);
    assert!(dataset.items.iter().all(|item| item.captions.is_empty()));

    let empty = TempDir::new().unwrap();
    let error = Dataset::open(empty.path(), Split::Train, false).unwrap_err();
    assert!(error.to_string().contains("no pictures"), "{error}");
}

#[test]
fn json_lines() {
    let root = TempDir::new().unwrap();
    let lines: [&[u8]; 10] = [
        br#"{"file": "a.png", "caption": " red heart ", "style": "flat", "label": 3}"#,
        br#"{"file_name": "b.png", "captions": ["one", "two", ""]}"#,
        b"",
        br#"{"file": "a.png", "file_name": "x", "text": "heart", "captions": null}"#,
        b"{\"file\": \"c.png\", \"caption\": \"caf\xe9\"}",
        br#"{"file": "d.png"}"#,
        br#"{"caption": "no file"}"#,
        br#"{"file": "e.png", "caption": "x", "label": "cat"}"#,
        br#"{"file": "a.png", "caption": "x", "label": 4}"#,
        br#"["f.png", "x"]"#,
    ];
    put(&root.path().join("captions.jsonl"), lines.join(&b'\n'));
    let dataset = open(root.path(), Split::Train);
    assert_eq!(dataset.layout, Layout::JsonLines);
    assert_eq!(dataset.epoch, Epoch::Pictures);
    assert_eq!(names(&dataset), ["a.png", "b.png"]);
    assert_eq!(dataset.items[0].captions, ["red heart", "heart"]);
    assert_eq!(dataset.items[0].label, Some(3));
    assert_eq!(dataset.items[1].captions, ["one", "two"]);
    let reasons = skipped(&dataset);
    let places: Vec<&str> = reasons.iter().map(|(what, _)| *what).collect();
    let expected = [5, 7, 8, 9, 10, 6].map(|n| format!("captions.jsonl line {n}"));
    assert_eq!(places, expected);
    assert!(reasons[0].1.contains("not UTF-8"), "{reasons:?}");
    assert!(reasons[1].1.contains("missing field `file`"), "{reasons:?}");
    let expected = [
        "invalid type: string \"cat\", expected i64 at column 48",
        "label 4 for a.png, which has the label 3",
        "expected one JSON object a line",
        "no caption for d.png",
    ];
    let found: Vec<&str> = reasons[2..].iter().map(|(_, reason)| *reason).collect();
    assert_eq!(found, expected);
    // The list itself names the same data set.
    let by_list = open(&root.path().join("captions.jsonl"), Split::Train);
    assert_eq!((by_list.root, by_list.items), (dataset.root, dataset.items));
}

#[test]
fn comma_separated_values() {
    let root = TempDir::new().unwrap();
    let list = root.path().join("pets.csv");
    let rows: [&[u8]; 5] = [
        b"file,caption,label\n",
        b"a.jpg,\"a \"\"big\"\" cat,\nasleep\",7\n",
        b"b.jpg,caf\xe9,\n",
        b"a.jpg,second,\n",
        b"c.jpg,third,seven\n",
    ];
    put(&list, rows.concat());
    let dataset = open(&list, Split::Train);
    assert_eq!(dataset.layout, Layout::Csv);
    assert_eq!(names(&dataset), ["a.jpg"]);
    assert_eq!(
        dataset.items[0].captions,
        ["a \"big\" cat,\nasleep", "second"]
    );
    assert_eq!(dataset.items[0].label, Some(7));
    let reasons = skipped(&dataset);
    assert_eq!(reasons[0].0, "pets.csv line 4");
    assert!(reasons[0].1.contains("not UTF-8"), "{reasons:?}");
    assert_eq!(
        reasons[1],
        ("pets.csv line 6", "label is 'seven', expected an integer")
    );

    // A byte order mark, capitals, quotes, Windows' line ends; too many fields.
    let rows = "\u{feff}\"File\" , Caption\r\na.jpg,\"one, two\"\r\nb.jpg,one, two\r\nc.jpg,\r\n";
    put(&list, rows);
    let dataset = open(&list, Split::Train);
    assert_eq!(names(&dataset), ["a.jpg"]);
    assert_eq!(dataset.items[0].captions, ["one, two"]);
    let reasons = skipped(&dataset);
    assert_eq!(reasons[0].0, "pets.csv line 3");
    assert!(reasons[0].1.contains("3 fields, expected 2"), "{reasons:?}");
    assert_eq!(reasons[1], ("pets.csv line 4", "no caption for c.jpg"));

    for (rows, problem) in [
        ("file;caption\na.jpg;x\n", "columns are separated by commas"),
        ("file,caption\n", "names no picture"),
        ("", "no column 'file'"),
    ] {
        put(&list, rows);
        let error = Dataset::open(&list, Split::Train, false).unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    }
    put(&list, "path,caption\na.jpg,x\n");
    let error = Dataset::open(&list, Split::Train, false)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no column 'file', only: path, caption"),
        "{error}"
    );
}

#[test]
fn mscoco() {
    let root = TempDir::new().unwrap();
    let at = root.path();
    for (split, ids) in [("train", [9u64, 581_929]), ("val", [42, 73])] {
        let captions = serde_json::json!({
            "info": {"year": 2014},
            "images": [],
            "annotations": [
                {"image_id": ids[1], "id": 1, "caption": "A man on a horse."},
                {"image_id": ids[0], "id": 2, "caption": "Food.\n"},
                {"image_id": ids[1], "id": 3, "caption": "A horse."},
                {"image_id": ids[1], "id": 4, "caption": " \n"},
            ],
        });
        put(
            &at.join(format!("annotations/captions_{split}2014.json")),
            captions.to_string(),
        );
        for id in ids {
            let name = format!("{split}2014/{split}2014/COCO_{split}2014_{id:012}.jpg");
            picture(at, &name, id as u32);
        }
    }
    let dataset = open(at, Split::Train);
    assert_eq!(dataset.layout, Layout::Coco);
    let expected = ["000000000009", "000000581929"]
        .map(|id| format!("train2014/train2014/COCO_train2014_{id}.jpg"));
    assert_eq!(names(&dataset), expected);
    assert_eq!(dataset.items[1].captions, ["A man on a horse.", "A horse."]);
    assert_eq!(dataset.items[0].captions, ["Food."]);
    assert_eq!(
        skipped(&dataset),
        [("a caption of picture 581929", "the caption is empty")]
    );
    assert_eq!(dataset.epoch, Epoch::Captions);
    for item in open(at, Split::Val).items.iter().chain(&dataset.items) {
        assert!(
            at.join(&item.picture).exists(),
            "{}",
            item.picture.display()
        );
    }
    let error = Dataset::open(at, Split::Test, false)
        .unwrap_err()
        .to_string();
    assert!(error.contains("captions_test2014.json"), "{error}");
}

#[test]
fn cub_200() {
    let root = TempDir::new().unwrap();
    let at = root.path();
    let birds = [
        "001.Albatross/Albatross_0001",
        "002.Auk/Auk_0007",
        "002.Auk/Auk_0009",
    ];
    // Protocol 0, as Python 2 writes a list of strings.
    let pickle = |names: &[&str]| {
        let entries = names.iter().enumerate();
        let entries: String = entries
            .map(|(n, name)| format!("S'{name}'\np{}\na", n + 1))
            .collect();
        format!("(lp0\n{entries}.")
    };
    put(&at.join("train/filenames.pickle"), pickle(&birds));
    put(&at.join("test/filenames.pickle"), pickle(&birds[..1]));
    for bird in &birds {
        picture(at, &format!("images/{bird}.jpg"), 5);
    }
    for bird in &birds[..2] {
        let captions: String = (0..10).map(|n| format!("bird {n} of {bird}\n")).collect();
        put(&at.join(format!("text/text/{bird}.txt")), captions);
    }
    let dataset = open(at, Split::Train);
    assert_eq!(dataset.layout, Layout::Cub);
    assert_eq!(dataset.items.len(), 2);
    assert_eq!(dataset.epoch, Epoch::Pictures);
    assert_eq!(dataset.items[1].captions.len(), 10);
    assert_eq!(dataset.items[1].captions[3], "bird 3 of 002.Auk/Auk_0007");
    assert!(at.join(&dataset.items[1].picture).exists());
    assert_eq!(skipped(&dataset)[0].0, "text/text/002.Auk/Auk_0009.txt");
    assert_eq!(open(at, Split::Test).items.len(), 1);
    assert_eq!(open(at, Split::Val).items, open(at, Split::Test).items);

    put(&at.join("train/filenames.pickle"), "(dp0\n.");
    let error = Dataset::open(at, Split::Train, false)
        .unwrap_err()
        .to_string();
    assert!(error.contains("pickled list of file names"), "{error}");
}

#[test]
fn imagenet() {
    let root = TempDir::new().unwrap();
    let at = root.path();
    let list = "n02000002/x_1.JPEG\nn01000001/y_2.JPEG\n\nnonsense\n";
    put(&at.join("ILSVRC2012_name_train.txt"), list);
    put(&at.join("ILSVRC2012_name_val.txt"), "n02000002/v.JPEG\n");
    for name in [
        "n02000002/x_1.JPEG",
        "n01000001/y_2.JPEG",
        "n01500000/z.JPEG",
    ] {
        picture(at, &format!("train/{name}"), 3);
    }
    let dataset = open(at, Split::Train);
    assert_eq!(dataset.layout, Layout::ImageNet);
    let labels: Vec<_> = dataset.items.iter().map(|item| item.label).collect();
    assert_eq!(
        labels,
        [Some(2), Some(0)],
        "places among the three sorted classes"
    );
    assert_eq!(names(&dataset)[0], "train/n02000002/x_1.JPEG");
    assert_eq!(
        skipped(&dataset),
        [(
            "ILSVRC2012_name_train.txt line 4",
            "'nonsense' is not wnid/file"
        )]
    );
    assert_eq!(
        open(at, Split::Val).items[0].label,
        Some(2),
        "labels as in training"
    );
}

#[test]
fn lists_that_are_none() {
    let root = TempDir::new().unwrap();
    let error = Dataset::open(&root.path().join("nowhere"), Split::Train, false).unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
    put(&root.path().join("list.xml"), "<xml/>");
    let error = Dataset::open(&root.path().join("list.xml"), Split::Train, false).unwrap_err();
    assert!(error.to_string().contains("(.jsonl or .csv)"), "{error}");
}

/// A JPEG header that says what follows has `components` colour components.
fn jpeg_header(bits: u8, components: u8) -> Vec<u8> {
    let mut bytes = vec![
        0xFF,
        0xD8,
        0xFF,
        0xC0,
        0,
        8 + 3 * components,
        bits,
        0,
        8,
        0,
        8,
        components,
    ];
    for n in 1..=components {
        bytes.extend([n, 0x11, 0]);
    }
    bytes.extend([0xFF, 0xDA, 0, 2, 1, 2, 3, 0xFF, 0xD9]);
    bytes
}

#[test]
fn damaged_and_unusual_pictures_are_refused_by_name() {
    let image = sample_image(40, 30, 1);
    let jpeg = encoded(&image, ImageFormat::Jpeg);
    let png = encoded(&image, ImageFormat::Png);
    let sixteen = {
        let image = image::ImageBuffer::<Rgb<u16>, _>::from_pixel(4, 4, Rgb([1, 2, 3]));
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    };
    let mut huge = png.clone();
    huge[16..24].copy_from_slice(&[0, 0, 0x75, 0x30, 0, 0, 0x75, 0x30]); // 30000 × 30000
    let crc = crc(&huge[12..29]);
    huge[29..33].copy_from_slice(&crc.to_be_bytes());
    let cases: [(&[u8], &str); 9] = [
        (b"", "the file is empty"),
        (
            b"not a picture at all",
            "not a picture, expected PNG or JPEG",
        ),
        (&jpeg[..jpeg.len() / 2], "the JPEG data end too early"),
        (&jpeg[..jpeg.len() - 2], "the JPEG data end too early"),
        (&jpeg[..30], "the JPEG data end too early"),
        (&jpeg_header(8, 4), "CMYK colours, expected RGB or grey"),
        (&jpeg_header(12, 3), "12 bits a channel, expected 8"),
        (&sixteen, "16 bits a channel, expected 8"),
        (
            &huge,
            "30000 by 30000 pixels, expected at most 89478485 in all",
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(decode(bytes).unwrap_err(), expected);
    }
    assert!(decode(&png[..png.len() / 2]).is_err());
    assert_eq!(decode(&png).unwrap().rgb, image.into_raw());
    assert_eq!(decode(&jpeg).unwrap().width, 40);
}

/// CRC-32 of a PNG chunk.
fn crc(bytes: &[u8]) -> u32 {
    let mut hasher = flate2::Crc::new();
    hasher.update(bytes);
    hasher.sum()
}

#[test]
fn grey_and_transparent_pictures() {
    let grey = image::GrayImage::from_pixel(2, 1, image::Luma([9]));
    let mut bytes = Cursor::new(Vec::new());
    grey.write_to(&mut bytes, ImageFormat::Png).unwrap();
    assert_eq!(decode(bytes.get_ref()).unwrap().rgb, [9; 6]);

    let pixels = [[10, 20, 30, 0], [10, 20, 30, 255], [10, 20, 30, 51]];
    let clear = image::RgbaImage::from_raw(3, 1, pixels.concat()).unwrap();
    let mut bytes = Cursor::new(Vec::new());
    clear.write_to(&mut bytes, ImageFormat::Png).unwrap();
    let expected = [255, 255, 255, 10, 20, 30, 206, 208, 210]; // c/5 + 255·4/5
    assert_eq!(decode(bytes.get_ref()).unwrap().rgb, expected);
}

#[test]
fn what_is_no_file_is_no_picture() {
    let root = TempDir::new().unwrap();
    let at = root.path();
    picture(at, "good.png", 1);
    std::fs::create_dir(at.join("folder.png")).unwrap();
    symlink("nowhere", at.join("dangling.png")).unwrap();
    // Endless, and not to be read.
    symlink("/dev/zero", at.join("device.png")).unwrap();
    symlink("good.png", at.join("link.png")).unwrap();
    let list = ["folder", "dangling", "device", "missing", "link"];
    let list = list.map(|name| format!("{{\"file\": \"{name}.png\"}}"));
    put(&at.join("captions.jsonl"), list.join("\n"));
    let dataset = open(at, Split::Train);
    let transform = Transform {
        size: 16,
        crop: CropRule::Center,
        flip: false,
    };
    let reasons = [0, 1, 2, 3].map(|place| {
        let skipped = load(&dataset, place, &transform, 0, 0..1).unwrap_err();
        skipped.to_string()
    });
    let gone = "No such file or directory (os error 2)";
    let expected = [
        "folder.png: not a file".to_string(),
        format!("dangling.png: {gone}"),
        "device.png: not a file".into(),
        format!("missing.png: {gone}"),
    ];
    assert_eq!(reasons, expected);
    assert_eq!(load(&dataset, 4, &transform, 0, 0..1).unwrap().len(), 1);
}

#[test]
fn rows_are_captions_or_pictures() {
    let item = |captions: usize| vqdiffusion::data::Item {
        picture: "x.png".into(),
        captions: vec!["caption".into(); captions],
        label: None,
    };
    let items = [0, 2, 0, 0, 1, 3, 0].map(item);
    let mut expected = Vec::new();
    for (item, captions) in items.iter().map(|item| item.captions.len()).enumerate() {
        expected.extend((0..captions).map(|n| Row {
            item,
            caption: Some(n),
        }));
    }
    let rows = |epoch| {
        let rows = Rows::new(epoch, &items);
        let all: Vec<Row> = (0..rows.len()).map(|n| rows.at(n)).collect();
        all
    };
    assert_eq!(rows(Epoch::Captions), expected);
    let pictures: Vec<usize> = rows(Epoch::Pictures).iter().map(|r| r.item).collect();
    assert_eq!(pictures, [0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_thread_that_ends_early_is_an_error() {
    let numbers = |panics_at: u64| {
        let make = move |n| match n {
            _ if n == panics_at => panic!("the disk burns"),
            _ => Ok(10 * n),
        };
        prefetch(2, 3..7, make).unwrap()
    };
    let all: Result<Vec<u64>, DataError> = numbers(99).collect();
    assert_eq!(all.unwrap(), [30, 40, 50, 60]);
    let mut results = numbers(5);
    assert!(matches!(results.next(), Some(Ok(30))));
    assert!(matches!(results.next(), Some(Ok(40))));
    for problem in ["panicked: the disk burns", "has ended"] {
        let error = results.next().unwrap().unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    assert!(results.next().is_none(), "all four numbers had an answer");
}

#[test]
fn fingerprints_tell_lists_apart() {
    let root = TempDir::new().unwrap();
    let list = root.path().join("captions.jsonl");
    let fingerprint = |lines: &str| {
        put(&list, lines);
        open(root.path(), Split::Train).fingerprint()
    };
    let (a, b) = (
        r#"{"file": "a.png", "caption": "x", "label": 1}"#,
        r#"{"file": "b.png", "caption": "y", "label": 2}"#,
    );
    let first = fingerprint(&format!("{a}\n{b}"));
    assert_eq!(first.items, 2);
    assert_eq!(first, fingerprint(&format!("{a}\r\n\r\n{b}\n")));
    let other = |lines: String| assert_ne!(first.sha256, fingerprint(&lines).sha256, "{lines}");
    other(a.into());
    other(format!("{b}\n{a}"));
    other(format!("{a}\n{}", b.replace("b.png", "c.png")));
    other(format!("{a}\n{}", b.replace('y', "z")));
    other(format!("{a}\n{}", b.replace('2', "3")));
    put(&list, a);
    let of_one = open(root.path(), Split::Train).fingerprint();
    let json = br#"[{"picture":"a.png","captions":["x"],"label":1}]"#;
    use sha2::{Digest, Sha256};
    let hex: String = Sha256::digest(json).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(of_one.sha256, hex);
}
